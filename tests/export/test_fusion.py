"""HybridGL's encoder against the plain computation, mask by mask; the graph, its blur, its values and its build."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from encoder_samples import (
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

import risengine
from risengine.bundle import open_bundle
from risengine.cli import main
from risengine.errors import InputError
from risengine.method import Fusion, Method
from risengine.overrides import apply_overrides
from risexport.build import build
from risexport.checks.plain_fusion import blurred
from risexport.clip.blocks import Layout
from risexport.clip.fusion import FusedProposalEncoder
from risexport.config import BuildConfig
from risexport.presets import MethodOptions, Preset, method_for
from risexport.resample import blur

FUSIONS: tuple[Fusion, ...] = ("g2l", "l2g", "both")


def _method(fusion: Fusion, preset: Preset = "clean") -> Method:
    return method_for(preset, clip_facts(40), MethodOptions(fusion=fusion))


@pytest.mark.parametrize("layout", ["packed", "dense"])
@pytest.mark.parametrize("preset", ["clean", "reference"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_equals_plain_computation(fusion: Fusion, preset: Preset, layout: Layout) -> None:
    method = _method(fusion, preset)
    for count, height, width in [(1, 33, 70), (7, 61, 44), (64, 48, 97)]:
        tower = random_tower(count)
        image, masks = make_inputs(count, height, width)
        actual = run_module(FusedProposalEncoder(tower, method, layout), image, masks, method.global_weight)
        assert_close(actual, plainly(tower, method, image, masks), 1e-5)


@pytest.mark.parametrize("masked_blocks", [1, 4])
def test_any_number_of_masked_blocks(masked_blocks: int) -> None:
    method = replace(_method("both"), masked_blocks=masked_blocks, global_weight=0.3)
    tower = random_tower()
    image, masks = make_inputs(6, 50, 36)
    actual = run_module(FusedProposalEncoder(tower, method), image, masks, 0.3)
    assert_close(actual, plainly(tower, method, image, masks), 1e-5)


def test_both_is_the_sum_of_the_two() -> None:
    tower = random_tower()
    image, masks = make_inputs(6, 50, 36)
    method = {fusion: _method(fusion) for fusion in FUSIONS}
    to_local, to_global, both = (
        run_module(FusedProposalEncoder(tower, method[fusion]), image, masks, method[fusion].global_weight)
        for fusion in FUSIONS
    )
    assert_close(both, [to_global[0], to_local[0], F.normalize(to_global[0] + to_local[0], dim=-1)], 1e-5)


def test_a_full_mask_leaves_nothing_to_blur() -> None:
    """Both inputs are the image then, and one masked block takes thrice its tokens, whichever is added to which."""
    image, _ = make_inputs(1, 40, 40)
    full = torch.ones(1, 40, 40, dtype=torch.bool)
    encoder = FusedProposalEncoder(random_tower(), replace(_method("both"), masked_blocks=1))
    to_global, to_local, _ = run_module(encoder, image, full, 0.5)
    torch.testing.assert_close(to_global, to_local, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7), (40, 61)])
def test_blur(size: tuple[int, int]) -> None:
    values = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blur(values), blurred(values), rtol=0, atol=1e-6)
    torch.testing.assert_close(blur(torch.ones(3, *size)), torch.ones(3, *size))


def test_blur_of_a_point_is_the_kernel() -> None:
    """OpenCV's getGaussianKernel(15, 0), to 5 digits; away from the edge the blur is its outer product."""
    half = [0.15401, 0.14303, 0.11457, 0.07915, 0.04716, 0.02424, 0.01074, 0.00411]
    kernel = torch.tensor([*half[:0:-1], *half])
    point = torch.zeros(1, 21, 31)
    point[0, 10, 15] = 1
    expected = torch.zeros(1, 21, 31)
    expected[0, 3:18, 8:23] = kernel[:, None] * kernel
    torch.testing.assert_close(blur(point), expected, rtol=0, atol=1e-5)


def test_one_graph_serves_all_sizes(tmp_path: Path) -> None:
    encoder = FusedProposalEncoder(random_tower(layers=2), replace(_method("both"), masked_blocks=2))
    export_encoder(encoder, tmp_path / "graph.onnx")
    assert_serves_all_sizes(open_session(tmp_path / "graph.onnx"), encoder)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node)
    assert operators["Softmax"] == 2  # all masks and inputs of a block in one call
    assert not {"GatherND", "Loop", "If", "Scan"} & set(operators)


def test_values_of_the_published_code() -> None:
    method = _method("g2l", "reference")
    assert method.mean == (0.485, 0.456, 0.406)
    assert method.fill == (0.48145466, 0.4578275, 0.40821073)
    assert [_method(fusion).global_weight for fusion in FUSIONS] == [0, 1, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MethodOptions(fusion="g2l", global_weight=0.5), "expected 0 with fusion g2l.*--fusion both"),
        (MethodOptions(fusion="l2g", global_weight=0.5), "expected 1 with fusion l2g"),
        (MethodOptions(fusion="sum"), "fusion = 'sum'; expected one of none, g2l, l2g, both"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_fused_is_refused(options: MethodOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        method_for("clean", clip_facts(40), options)


def test_a_resnet_is_refused() -> None:
    with pytest.raises(InputError, match="expected none for a ResNet tower"):
        method_for("clean", clip_facts(40, "resnet"), MethodOptions(fusion="g2l"))


def test_nothing_to_mix_is_refused_when_loading() -> None:
    manifest = open_bundle("tabletop").manifest
    fused = replace(manifest, method=replace(manifest.method, fusion="g2l", global_weight=0.0))
    with pytest.raises(InputError, match="expected 0 with fusion g2l"):
        apply_overrides(fused, {"global_weight": 0.5})


@pytest.mark.slow
def test_build(tiny_config: BuildConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The build's own parity and verification hold, rounded too; the bundle says what it is, and answers."""
    config = replace(tiny_config, out=tmp_path / "fused", precision="fp16", method=MethodOptions(fusion="both"))
    bundle = open_bundle(build(config))
    assert bundle.manifest.method.fusion == "both"
    figures = [figure for figure in bundle.manifest.parity if figure.role == "proposal_encoder"]
    assert {figure.tensor for figure in figures} == {"global_features", "local_features", "features"}
    assert {figure.rounded for figure in figures} == {False, True}
    assert main(["inspect", str(bundle.path)]) == 0
    assert re.search(r"fusion +both\n", capsys.readouterr().out)
    image, masks = (value.numpy() for value in make_inputs(6, 50, 36))
    with risengine.load(bundle.path, global_weight=0.2) as engine:
        features = engine.encode_image(image, masks=masks[4:]).features
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-3)


def test_bundles_of_before_have_no_fusion() -> None:
    assert open_bundle("tabletop").manifest.method.fusion == "none"
