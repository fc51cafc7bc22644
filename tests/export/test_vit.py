"""The fused proposal encoder against the plain computation of the method, in torch and through ONNX Runtime."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from risengine.bundle import Bundle
from risengine.errors import InputError
from risengine.manifest import Method
from risexport.clip_checkpoints import load_clip
from risexport.config import BuildConfig
from risexport.crops import BoxRule, mask_spans
from risexport.onnx_export import ExportRequest, export_graph
from risexport.plain import plain_features
from risexport.presets import ClipFacts, Preset, method_for
from risexport.vit import VitProposalEncoder

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _facts(image_size: int) -> ClipFacts:
    return ClipFacts("test", "random", "", "vit", image_size, 64, 77, CLIP_MEAN, CLIP_STD)


def _tower(seed: int = 0, quick_gelu: bool = False, **overrides: object) -> open_clip.transformer.VisionTransformer:
    torch.manual_seed(seed)
    vision = {"layers": 4, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 40, **overrides}
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(32, vision, text, quick_gelu=quick_gelu).eval()
    return _perturbed(model.visual, seed)


def _perturbed(tower: nn.Module, seed: int) -> nn.Module:
    """Moves biases and norms off their initial zeros and ones, which would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
            elif "ln_" in name:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    return tower.requires_grad_(False)


def _inputs(count: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random image and rectangles, ellipses, specks; among several masks one is empty, one full, one a pixel."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), bool)
    for index in range(count):
        y, x = rng.integers(height), rng.integers(width)
        h, w = 1 + rng.integers(height - y), 1 + rng.integers(width - x)
        if index % 2:
            masks[index, y : y + h, x : x + w] = True
        else:
            masks[index] = ((rows - y) / h) ** 2 + ((columns - x) / w) ** 2 <= 0.3
    if count > 4:
        masks[1], masks[2] = False, True
        masks[3] = False
        masks[3, height // 3, 0] = True
    return torch.from_numpy(image), torch.from_numpy(masks)


def _plain(tower: nn.Module, method: Method, image: Tensor, masks: Tensor) -> list[Tensor]:
    """Global, local and mixed features of the plain computation in float64."""
    global_features, local_features = plain_features(deepcopy(tower).double(), method, image, masks)
    features = method.global_weight * global_features + (1 - method.global_weight) * local_features
    if method.similarity == "cosine":
        features = F.normalize(features, dim=-1)
    return [global_features, local_features, features]


def _assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, e in zip(("global", "local", "mix"), actual, expected, strict=True):
        error = ((a.double() - e.double()).norm(dim=-1) / e.double().norm(dim=-1)).max()
        assert error <= tolerance, f"{name}: relative error {error:.2e}"


def _run(encoder: nn.Module, image: Tensor, masks: Tensor, weight: float) -> list[Tensor]:
    with torch.inference_mode():
        return list(encoder(image, masks, torch.tensor(weight)))


@pytest.mark.parametrize("preset", ["clean", "reference"])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 33, 70), (7, 61, 44), (64, 48, 97)])
def test_equals_plain_computation(preset: Preset, count: int, height: int, width: int) -> None:
    method = method_for(preset, _facts(40), global_weight=0.7)
    tower = _tower(count)
    image, masks = _inputs(count, height, width)
    actual = _run(VitProposalEncoder(tower, method), image, masks, 0.7)
    _assert_close(actual, _plain(tower, method, image, masks), 1e-5)


def _export(encoder: VitProposalEncoder, path: Path) -> Path:
    image, masks = _inputs(5, 30, 41)
    request = ExportRequest(
        path=path,
        inputs={"image": image, "masks": masks, "global_weight": torch.tensor(0.95)},
        outputs=("global_features", "local_features", "features"),
        dynamic={"image": {0: "H", 1: "W"}, "masks": {0: "N", 1: "H", 2: "W"}},
    )
    export_graph(encoder, request)
    return path


def _session(path: Path, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run_onnx(session: ort.InferenceSession, image: Tensor, masks: Tensor, weight: float) -> list[Tensor]:
    feeds = {"image": image.numpy(), "masks": masks.numpy(), "global_weight": np.array(weight, np.float32)}
    return [torch.from_numpy(value) for value in session.run(None, feeds)]


def _assert_serves_all_sizes(session: ort.InferenceSession, encoder: nn.Module) -> None:
    for count, height, width in [(1, 33, 70), (7, 61, 44), (64, 48, 97), (2, 1, 200), (3, 40, 40)]:
        image, masks = _inputs(count, height, width, seed=count)
        _assert_close(_run_onnx(session, image, masks, 0.3), _run(encoder, image, masks, 0.3), 1e-4)
    image, _ = _inputs(1, 20, 30)
    nothing = torch.zeros(1, 20, 30, dtype=torch.bool)
    for masks in (nothing, ~nothing):  # only the sink beside the class token; and no sink at all
        _assert_close(_run_onnx(session, image, masks, 1.0), _run(encoder, image, masks, 1.0), 1e-4)


def test_one_reference_graph_serves_all_sizes(tmp_path: Path) -> None:
    method = replace(method_for("reference", _facts(40)), masked_blocks=2)
    encoder = VitProposalEncoder(_tower(layers=3), method)
    _assert_serves_all_sizes(_session(_export(encoder, tmp_path / "graph.onnx")), encoder)


@pytest.fixture(scope="module")
def clean_encoder(tiny_bundle: Bundle, tiny_config: BuildConfig) -> VitProposalEncoder:
    """What the tiny bundle's graph was exported from."""
    clip, _ = load_clip(tiny_config.clip)
    return VitProposalEncoder(clip.visual, tiny_bundle.manifest.method)


def test_one_clean_graph_serves_all_sizes(tiny_bundle: Bundle, clean_encoder: VitProposalEncoder) -> None:
    _assert_serves_all_sizes(_session(tiny_bundle.graph_path("proposal_encoder")), clean_encoder)


def test_graph_is_compact(tiny_bundle: Bundle, clean_encoder: VitProposalEncoder) -> None:
    """Fused operators survive the export, and every weight is stored once: nothing depends on sizes of the example."""
    encoder = clean_encoder
    graph = onnx.load(tiny_bundle.graph_path("proposal_encoder")).graph
    operators = [node.op_type for node in graph.node]
    calls = 4 + encoder.method.masked_blocks  # of blocks: the trunk's once, the masked ones for crops and for masks
    assert operators.count("LayerNormalization") == 2 * calls + 3
    assert operators.count("Gelu") == operators.count("Softmax") == calls
    assert not {"GatherND", "Loop", "If", "Scan"} & set(operators)
    stored = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    weights = sum(value.numel() for value in encoder.state_dict().values())
    assert stored - weights < 200  # scalars, axes, shapes, and the sample positions of the encoder's own grid


@pytest.mark.parametrize(
    "options",
    [
        {"quick_gelu": True},
        {"no_ln_pre": True, "ls_init_value": 0.3},
        {"final_ln_after_pool": True, "norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}},
    ],
)
def test_tower_variants(options: dict[str, object]) -> None:
    tower = _tower(**options)
    method = method_for("clean", _facts(40))
    image, masks = _inputs(5, 50, 36)
    actual = _run(VitProposalEncoder(tower, method), image, masks, method.global_weight)
    _assert_close(actual, _plain(tower, method, image, masks), 1e-5)


@pytest.mark.parametrize("masked_blocks", [1, 4])
def test_any_number_of_masked_blocks(masked_blocks: int) -> None:
    tower = _tower()
    method = replace(method_for("clean", _facts(40)), masked_blocks=masked_blocks, similarity="dot")
    image, masks = _inputs(6, 50, 36)
    actual = _run(VitProposalEncoder(tower, method), image, masks, method.global_weight)
    _assert_close(actual, _plain(tower, method, image, masks), 1e-5)


def test_full_mask_gives_the_ordinary_image_feature() -> None:
    tower = _tower()
    method = method_for("clean", _facts(40))
    image, _ = _inputs(1, 40, 40)
    views = (image.permute(2, 0, 1)[None] / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[
        :, None, None
    ]
    full = torch.ones(1, 40, 40, dtype=torch.bool)
    actual = _run(VitProposalEncoder(tower, method), image, full, 0.5)
    ordinary = tower(views)
    _assert_close(actual, [ordinary, ordinary, F.normalize(ordinary, dim=-1)], 1e-5)


@pytest.mark.parametrize(
    ("mask", "rule", "expected"),
    [
        ("0011100", "tight", (2, 3)),
        ("0011100", "centroid", (1, 3)),
        ("1110000", "centroid", (0, 2)),
        ("1000000", "centroid", (0, 1)),
        ("0100000", "centroid", (0, 1)),
        ("1000001", "tight", (0, 7)),
        ("1000001", "centroid", (2, 2)),
        ("0000000", "tight", (6, 1)),
        ("0000000", "centroid", (0, 1)),
        ("0000001", "tight", (6, 1)),
    ],
)
def test_mask_spans(mask: str, rule: BoxRule, expected: tuple[int, int]) -> None:
    start, length = mask_spans(torch.tensor([[int(character) for character in mask]]), rule)
    assert (int(start), int(length)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attentional_pool": True}, "attentional pooling"),
        ({"pool_type": "avg"}, "pools by 'avg'"),
        ({"qk_norm": True}, "image tower has blocks"),
        ({"image_size": 44}, "44 x 44"),
        ({"image_size": (40, 48)}, "40 x 48"),
        ({"layers": 2}, "expected 1 to 2"),
    ],
)
def test_other_vits_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VitProposalEncoder(_tower(**options), method_for("clean", _facts(40)))


def test_other_towers_are_refused() -> None:
    method = method_for("clean", _facts(40))
    with pytest.raises(InputError, match="Identity"):
        VitProposalEncoder(nn.Identity(), method)
    resnet = ModifiedResNet([1, 1, 1, 1], output_dim=8, heads=2, image_size=32, width=8)
    with pytest.raises(InputError, match=r"ResNet support is not built yet. Use a plain CLIP ViT such as ViT-B-32"):
        VitProposalEncoder(resnet, method)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "preset"), [("ViT-B-32", "reference"), ("ViT-B-16", "clean")])
def test_true_size(name: str, preset: Preset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    tower = _perturbed(open_clip.CLIP(**open_clip.get_model_config(name)).eval().visual, seed=1)
    method = method_for(preset, _facts(224))
    encoder = VitProposalEncoder(tower, method)
    path = _export(encoder, tmp_path / "graph.onnx")
    session = _session(path)
    for count, height, width in [(1, 120, 200), (7, 333, 222)]:
        image, masks = _inputs(count, height, width, seed=count)
        actual = _run(encoder, image, masks, method.global_weight)
        _assert_close(actual, _plain(tower, method, image, masks), 1e-5)
        _assert_close(_run_onnx(session, image, masks, method.global_weight), actual, 1e-4)
