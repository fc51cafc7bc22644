"""The graph that measures and draws masks on GPUs, against NumPy's way and segment-anything's, on the CPU provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
from torch.nn.functional import interpolate

from risengine.backends.onnx_session import OnnxSession
from risengine.config import RuntimeConfig
from risengine.errors import BackendError
from risengine.generator.device_drawing import MASKS_PER_CALL
from risengine.generator.placement import axis_taps, axis_weights, tap_feeds
from risengine.generator.upsample import Upsampler
from risengine.manifest import ShapeProfile
from risengine.masks import mask_boxes
from risexport.checks.parity import TOLERANCES, ParityError
from risexport.config import EngineOptions
from risexport.graphs import measurer_graph
from risexport.native.engine_layers import Layer
from risexport.native.engines import EngineBuilder
from risexport.sam.mask_measurer import measure_masks

LOW, SQUARE = 16, 64


@pytest.fixture(scope="module")
def measurer(tmp_path_factory: pytest.TempPathFactory) -> OnnxSession:
    folder = tmp_path_factory.mktemp("measurer")
    spec = measurer_graph((LOW, LOW)).export(folder)
    return OnnxSession(folder / spec.file, spec, RuntimeConfig(threads=1))


def measured(session: OnnxSession, logits: np.ndarray, size: tuple[int, int], offset: float) -> dict[str, np.ndarray]:
    taps = tap_feeds(*(axis_taps(side, max(size), LOW, SQUARE) for side in size))
    return session.run({"logits": logits, **taps, "stability_score_offset": np.array(offset, np.float32)})


def stock(logits: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    inner = [max(1, int(side * SQUARE / max(size) + 0.5)) for side in size]
    full = interpolate(torch.from_numpy(logits)[None], (SQUARE, SQUARE), mode="bilinear", align_corners=False)
    return interpolate(full[..., : inner[0], : inner[1]], size, mode="bilinear", align_corners=False)[0]


def random_logits(seed: int, masks: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(8 * rng.normal(size=(1, masks, 5, 5)).astype(np.float32))
    logits = interpolate(coarse, (LOW, LOW), mode="bicubic")[0].numpy()
    logits[: masks // 3] = 8 * rng.normal(size=(masks // 3, LOW, LOW))
    logits[0], logits[-1] = -9, 9  # no pixel, every pixel
    return logits


@pytest.mark.parametrize(
    "size", [(48, 64), (64, 48), (64, 64), (1, 1), (1, 400), (300, 2), (17, 31), (97, 33), (540, 960), (1001, 777)]
)
@pytest.mark.parametrize("offset", [1.0, 0.0, -0.5])
def test_masks_boxes_and_areas_are_segment_anythings(
    measurer: OnnxSession, size: tuple[int, int], offset: float
) -> None:
    logits = random_logits(size[0], 9)
    outputs = measured(measurer, logits, size, offset)
    expected = stock(logits, size)
    wrong = outputs["masks"] != (expected > 0).numpy()
    assert np.abs(expected.numpy()[wrong]).max(initial=0) < 1e-4  # rounding at the cut-off only
    with np.errstate(invalid="ignore", divide="ignore"):
        stability = outputs["areas"][:, 0] / outputs["areas"][:, 1]
    np.testing.assert_allclose(stability, calculate_stability_score(expected, 0.0, offset), atol=2e-3)
    inclusive = batched_mask_to_box(torch.from_numpy(outputs["masks"])).numpy()
    filled = outputs["masks"].any(axis=(1, 2))
    np.testing.assert_array_equal(outputs["boxes"][filled], (inclusive + np.array([0, 0, 1, 1]))[filled])
    np.testing.assert_array_equal(outputs["boxes"][~filled], 0)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.integers(3, 9),
    st.integers(0, 99),
    st.floats(-1, 3, width=32),
)
def test_any_image_is_measured_as_on_the_host(
    measurer: OnnxSession, size: tuple[int, int], masks: int, seed: int, offset: float
) -> None:
    logits = random_logits(seed, masks)
    outputs = measured(measurer, logits, size, offset)
    host = Upsampler(size, (LOW, LOW), SQUARE)
    values = np.stack([axis_weights(size[0], max(size), LOW, SQUARE) @ one for one in logits])
    values = values @ axis_weights(size[1], max(size), LOW, SQUARE).T
    unsure = np.abs(values) < 1e-5
    assert not ((outputs["masks"] != np.stack(list(host.masks(logits)))) & ~unsure).any()
    np.testing.assert_array_equal(outputs["boxes"], mask_boxes(outputs["masks"]))
    for column, cut in enumerate((offset, -offset)):
        unsure_px = (np.abs(values - np.float32(cut)) < 1e-5).sum(axis=(1, 2))
        difference = np.abs(outputs["areas"][:, column] - (values > np.float32(cut)).sum(axis=(1, 2)))
        assert (difference <= unsure_px).all()


def test_an_engine_of_true_size_is_in_single_precision(tmp_path: Path) -> None:
    spec = measurer_graph((256, 256)).export(tmp_path)
    builder = EngineBuilder("tensorrt-rtx", EngineOptions(("8.6", "8.9")))
    (tmp_path / "out").mkdir()
    engine = builder.compile("mask_measurer", spec, tmp_path, tmp_path / "out", lambda stage: None).engine
    assert engine is not None
    assert engine.profiles == {
        "logits": ShapeProfile((1, 256, 256), (16, 256, 256), (MASKS_PER_CALL, 256, 256)),
        "row_starts": ShapeProfile((1,), (480,), (1080,)),
        "row_weights": ShapeProfile((1, 3), (480, 3), (1080, 3)),
        "column_starts": ShapeProfile((1,), (640,), (1920,)),
        "column_weights": ShapeProfile((1, 3), (640, 3), (1920, 3)),
    }
    layers = msgspec.json.decode((tmp_path / "out" / engine.layers.file).read_bytes(), type=tuple[Layer, ...])
    operands = {operand for layer in layers for operand in layer.operands}
    assert "Float" in operands
    assert "Half" not in operands
    assert not [layer for layer in layers if layer.kind == "gemm"]
    (kernel,) = (layer for layer in layers if "node_index_select" in layer.nodes)
    assert {"node_sum_1", "node_sum_3"} <= set(kernel.nodes)  # both resizes and the counts, without logits between


def test_taps_are_all_of_the_weights() -> None:
    for side, longest in [(1, 1), (7, 300), (480, 640), (1920, 1920), (1080, 1920)]:
        taps, weights = (made(side, longest, 256, 1024) for made in (axis_taps, axis_weights))
        dense = np.zeros_like(weights)
        np.put_along_axis(dense, taps.starts[:, None] + np.arange(3), taps.weights, axis=1)
        np.testing.assert_array_equal(dense, weights)
    with pytest.raises(BackendError, match=r"256 logits on SAM's input of 64 px: .*expected 3 at most\. Build"):
        axis_taps(100, 100, 256, 64)


def test_the_build_notices_what_is_wrong(measurer: OnnxSession) -> None:
    reference: Any = SimpleNamespace(
        decodings=[SimpleNamespace(logits=random_logits(seed, 12)) for seed in (1, 2)],
        image=np.zeros((70, 90, 3), np.uint8),
    )

    def wrong(name: str, change: Any) -> Any:
        def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            outputs = measurer.run(feeds)
            return {**outputs, name: change(outputs[name])}

        return SimpleNamespace(run=run)

    rows = measure_masks(measurer, reference, SQUARE, TOLERANCES["fp32"])
    assert [(row.tensor, row.passed) for row in rows] == [("masks", True), ("areas", True), ("boxes", True)]
    for name, change in (
        ("masks", lambda masks: np.roll(masks, 1, axis=2)),
        ("areas", lambda areas: areas + areas // 500),
        ("areas", lambda areas: areas[:, :1].repeat(2, axis=1)),
        ("boxes", lambda boxes: boxes + np.float32([0, 0, 1, 0])),
    ):
        with pytest.raises(ParityError, match=f"mask_measurer: .* of {name} "):
            measure_masks(wrong(name, change), reference, SQUARE, TOLERANCES["fp32"])
