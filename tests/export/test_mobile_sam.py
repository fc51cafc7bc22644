"""MobileSAM's ``vit_t``: its checkpoints' names, its arithmetic, and its graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor

from risengine.backends.onnx_session import OnnxSession
from risengine.config import RuntimeConfig
from risengine.errors import InputError
from risexport.checkpoints.mobile_sam import UNUSED_TENSORS, build_sam_vit_t, load_mobile_sam, mobile_sam_name
from risexport.checkpoints.sam_checkpoints import load_sam
from risexport.graphs import sam_graphs
from risexport.sam.image import ImageEncoder

Shapes = dict[str, tuple[int, ...]]

WIDTHS, BLOCKS, HEADS, OFFSETS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (0, 49, 196, 49)


def normalised_convolution(name: str, *shape: int) -> Shapes:
    width = shape[0]
    shapes: Shapes = {f"{name}.bn.{tensor}": (width,) for tensor in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.c.weight": shape, **shapes, f"{name}.bn.num_batches_tracked": ()}


def affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def encoder_shapes() -> Shapes:
    """Tensors of ``image_encoder`` in mobile_sam.pt, as the published package stores them."""
    shapes = normalised_convolution("patch_embed.seq.0", 32, 3, 3, 3)
    shapes |= normalised_convolution("patch_embed.seq.2", 64, 32, 3, 3)
    for layer, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
        for block in (f"layers.{layer}.blocks.{index}" for index in range(count)):
            if layer == 0:
                shapes |= normalised_convolution(f"{block}.conv1", 4 * width, width, 1, 1)
                shapes |= normalised_convolution(f"{block}.conv2", 4 * width, 1, 3, 3)
                shapes |= normalised_convolution(f"{block}.conv3", width, 4 * width, 1, 1)
                continue
            shapes[f"{block}.attn.attention_biases"] = (HEADS[layer], OFFSETS[layer])
            shapes |= affine(f"{block}.attn.norm", width) | affine(f"{block}.attn.qkv", 3 * width, width)
            shapes |= affine(f"{block}.attn.proj", width, width) | affine(f"{block}.mlp.norm", width)
            shapes |= affine(f"{block}.mlp.fc1", 4 * width, width) | affine(f"{block}.mlp.fc2", width, 4 * width)
            shapes |= normalised_convolution(f"{block}.local_conv", width, 1, 3, 3)
        if layer < 3:
            wider, name = WIDTHS[layer + 1], f"layers.{layer}.downsample"
            shapes |= normalised_convolution(f"{name}.conv1", wider, width, 1, 1)
            shapes |= normalised_convolution(f"{name}.conv2", wider, 1, 3, 3)
            shapes |= normalised_convolution(f"{name}.conv3", wider, wider, 1, 1)
    shapes |= affine("norm_head", 320) | affine("head", 1000, 320)
    shapes |= {"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return shapes | affine("neck.1", 256) | affine("neck.3", 256)


def draw(rng: np.random.RandomState, name: str, shape: tuple[int, ...]) -> Tensor:
    """Draws values that keep activations near one and leave no tensor without effect."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    values = rng.standard_normal(shape)
    if name.endswith("running_var"):
        values = 0.5 + values**2
    elif name.endswith("attention_biases"):
        pass
    elif len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.2 * values + name.endswith("weight")
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    """A file's content: random tensors by MobileSAM's names; RandomState's numbers never change."""
    rng = np.random.RandomState(0)
    encoder = {f"image_encoder.{name}": shape for name, shape in sorted(encoder_shapes().items())}
    decoder = {k: v for k, v in build_sam_vit_t().state_dict().items() if not k.startswith("image_encoder.")}
    return {name: draw(rng, name, shape) for name, shape in encoder.items()} | decoder


@pytest.fixture(scope="module")
def checkpoint_file(checkpoint: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mobile_sam") / "mobile_sam.pt"
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def sam(checkpoint_file: Path) -> Sam:
    return load_sam("vit_t", checkpoint_file)[0]


def pixels() -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).standard_normal((1, 3, 1024, 1024)).astype(np.float32))


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def test_every_tensor_has_one_name_in_the_file() -> None:
    model = build_sam_vit_t().state_dict()
    named = {mobile_sam_name(name): tuple(value.shape) for name, value in model.items()}
    assert len(named) == len(model) == 435
    expected = {f"image_encoder.{name}": shape for name, shape in encoder_shapes().items()}
    assert expected.keys() >= UNUSED_TENSORS
    encoder = {name: shape for name, shape in named.items() if name.startswith("image_encoder.")}
    assert encoder == {name: shape for name, shape in expected.items() if name not in UNUSED_TENSORS}
    decoder = [name for name in model if not name.startswith("image_encoder.")]
    assert [mobile_sam_name(name) for name in decoder] == decoder


GOLDEN = [-0.06851, 0.29432, -0.10552, 0.10046, 0.94900, 1.87331, -0.40894, 0.05771]
GOLDEN += [0.11718, -0.72895, -0.36199, -0.69110, 0.40617, 0.49421, 0.10876, 0.67770]
"""``embedding[0, ::64, ::32, ::32]`` of MobileSAM's own code (mobilesam-mirror 1.0.0) for these weights and pixels."""


def test_embedding_is_mobile_sams(sam: Sam) -> None:
    with torch.inference_mode():
        embedding = sam.image_encoder(pixels())
    assert embedding.shape == (1, 256, 64, 64)
    torch.testing.assert_close(embedding[0, ::64, ::32, ::32].flatten(), torch.tensor(GOLDEN), rtol=0, atol=1e-4)


def test_embedding_equals_the_published_package(sam: Sam, checkpoint: dict[str, Tensor]) -> None:
    package = pytest.importorskip("mobile_sam", reason="MobileSAM is not installed: pip install mobilesam-mirror timm")
    published = package.sam_model_registry["vit_t"]()
    published.load_state_dict(checkpoint)
    published.eval()
    with torch.inference_mode():
        assert relative(sam.image_encoder(pixels()), published.image_encoder(pixels())) <= 1e-5


@pytest.mark.parametrize("form", ["without classifier", "safetensors", "half"])
def test_loads_every_form(sam: Sam, checkpoint: dict[str, Tensor], tmp_path: Path, form: str) -> None:
    path = tmp_path / ("sam.safetensors" if form == "safetensors" else "sam.pt")
    if form == "safetensors":
        save_file(checkpoint, path)
    elif form == "half":
        torch.save({name: value.half() for name, value in checkpoint.items()}, path)
    else:
        torch.save({name: value for name, value in checkpoint.items() if name not in UNUSED_TENSORS}, path)
    loaded, facts = load_sam("vit_t", path)
    tolerance = 1e-3 if form == "half" else 0.0
    torch.testing.assert_close(loaded.state_dict(), sam.state_dict(), rtol=tolerance, atol=tolerance)
    assert (facts.model, facts.checkpoint, facts.image_size_px) == ("vit_t", path.name, 1024)


MERGING = "image_encoder.layers.2.downsample.conv1.c.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({MERGING: None}, f"missing: {MERGING}; unexpected: none"),
        ({"image_encoder.head.scale": torch.ones(1)}, "missing: none; unexpected: image_encoder.head.scale"),
        # timm's own name of a tensor is no name in a file, even though the model uses it.
        (
            {"image_encoder.stages.0.blocks.0.conv1.bn.weight": torch.ones(256)},
            "unexpected: image_encoder.stages.0.blocks.0.conv1.bn.weight",
        ),
        ({MERGING: torch.ones(160, 160, 1, 1)}, f"{MERGING} has shape (160, 160, 1, 1), the model expects (320, 160"),
        ({MERGING: torch.full((320, 160, 1, 1), torch.nan)}, f"{MERGING} holds NaN"),
    ],
)
def test_what_does_not_fit_is_named_as_in_the_file(
    checkpoint: dict[str, Tensor], change: dict[str, Tensor | None], words: str
) -> None:
    state = {name: value for name, value in (checkpoint | change).items() if value is not None}
    with pytest.raises(InputError, match=re.escape(words)):
        load_mobile_sam(build_sam_vit_t(), state, "checkpoint x")


def test_other_architectures_are_refused(checkpoint_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unexpected: .*image_encoder\.layers\.0.* name the model that it belongs to"):
        load_sam("vit_b", checkpoint_file)
    save_file({"image_encoder.pos_embed": torch.ones(1, 64, 64, 768)}, tmp_path / "vit_b.safetensors")
    with pytest.raises(InputError, match=r"missing: image_encoder\.patch_embed\.seq.*unexpected: .*pos_embed"):
        load_sam("vit_t", tmp_path / "vit_b.safetensors")


def test_graph_equals_torch_at_a_quarter_of_the_size(sam: Sam, tmp_path: Path) -> None:
    sam.image_encoder.img_size = 256
    plan = next(plan for plan in sam_graphs(sam) if plan.role == "image_encoder")
    spec = plan.export(tmp_path)
    session = OnnxSession(tmp_path / spec.file, spec, RuntimeConfig(threads=1))
    for size in ((480, 640), (211, 123)):
        image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
        actual = torch.from_numpy(session.run({"image": image})["image_embedding"])
        with torch.inference_mode():
            assert relative(actual, ImageEncoder(sam)(torch.from_numpy(image))) <= 1e-4

    graph = onnx.load(tmp_path / spec.file).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}  # folded into the convolutions
    # The attention biases are gathered before the export, a matrix of pairs a head and block.
    biases = [(HEADS[layer], *2 * (OFFSETS[layer],)) for layer in (1, 2, 3) for _ in range(BLOCKS[layer])]
    shapes = [tuple(tensor.dims) for tensor in graph.initializer]
    assert [shape for shape in shapes if shape in biases] == biases
