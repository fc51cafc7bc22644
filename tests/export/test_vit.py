"""The fused proposal encoder against the plain computation of the method, in torch and through ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from encoder_samples import (
    CLIP_MEAN,
    CLIP_STD,
    assert_close,
    assert_serves_all_sizes,
    clip_facts,
    export_encoder,
    make_inputs,
    open_session,
    plainly,
    random_tower,
    run_module,
)
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from risengine.bundle import Bundle
from risengine.errors import InputError
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.clip.crops import BoxRule, Layout, mask_spans
from risexport.clip.vit import VitProposalEncoder
from risexport.config import BuildConfig
from risexport.presets import MethodOptions, Preset, method_for


@pytest.mark.parametrize("layout", ["packed", "dense"])
@pytest.mark.parametrize("preset", ["clean", "reference"])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 33, 70), (7, 61, 44), (64, 48, 97)])
def test_equals_plain_computation(preset: Preset, count: int, height: int, width: int, layout: Layout) -> None:
    method = method_for(preset, clip_facts(40), MethodOptions(global_weight=0.7))
    tower = random_tower(count)
    image, masks = make_inputs(count, height, width)
    actual = run_module(VitProposalEncoder(tower, method, layout), image, masks, 0.7)
    assert_close(actual, plainly(tower, method, image, masks), 1e-5)


def test_one_reference_graph_serves_all_sizes(tmp_path: Path) -> None:
    method = replace(method_for("reference", clip_facts(40)), masked_blocks=2)
    encoder = VitProposalEncoder(random_tower(layers=3), method)
    export_encoder(encoder, tmp_path / "graph.onnx")
    assert_serves_all_sizes(open_session(tmp_path / "graph.onnx"), encoder)


@pytest.fixture(scope="module")
def clean_encoder(tiny_bundle: Bundle, tiny_config: BuildConfig) -> VitProposalEncoder:
    """What the tiny bundle's graph was exported from."""
    clip, _ = load_clip(tiny_config.clip)
    return VitProposalEncoder(clip.visual, tiny_bundle.manifest.method)


def test_one_clean_graph_serves_all_sizes(tiny_bundle: Bundle, clean_encoder: VitProposalEncoder) -> None:
    assert_serves_all_sizes(open_session(tiny_bundle.graph_path("proposal_encoder")), clean_encoder)


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
    tower = random_tower(**options)
    method = method_for("clean", clip_facts(40))
    image, masks = make_inputs(5, 50, 36)
    actual = run_module(VitProposalEncoder(tower, method), image, masks, method.global_weight)
    assert_close(actual, plainly(tower, method, image, masks), 1e-5)


@pytest.mark.parametrize("masked_blocks", [1, 4])
def test_any_number_of_masked_blocks(masked_blocks: int) -> None:
    tower = random_tower()
    method = replace(method_for("clean", clip_facts(40)), masked_blocks=masked_blocks, similarity="dot")
    image, masks = make_inputs(6, 50, 36)
    actual = run_module(VitProposalEncoder(tower, method), image, masks, method.global_weight)
    assert_close(actual, plainly(tower, method, image, masks), 1e-5)


def test_full_mask_gives_the_ordinary_image_feature() -> None:
    tower = random_tower()
    method = method_for("clean", clip_facts(40))
    image, _ = make_inputs(1, 40, 40)
    views = (image.permute(2, 0, 1)[None] / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[
        :, None, None
    ]
    full = torch.ones(1, 40, 40, dtype=torch.bool)
    actual = run_module(VitProposalEncoder(tower, method), image, full, 0.5)
    ordinary = tower(views)
    assert_close(actual, [ordinary, ordinary, F.normalize(ordinary, dim=-1)], 1e-5)


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
        VitProposalEncoder(random_tower(**options), method_for("clean", clip_facts(40)))


def test_other_towers_are_refused() -> None:
    method = method_for("clean", clip_facts(40))
    with pytest.raises(InputError, match="Identity"):
        VitProposalEncoder(nn.Identity(), method)
    resnet = ModifiedResNet([1, 1, 1, 1], output_dim=8, heads=2, image_size=32, width=8)
    with pytest.raises(InputError, match=r"ModifiedResNet; expected .* Use a plain CLIP ViT such as ViT-B-32"):
        VitProposalEncoder(resnet, method)
