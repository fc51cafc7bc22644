from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
from torch.nn.functional import interpolate

from risengine.generator.placement import nearest_logits
from risengine.generator.upsample import Upsampler

SQUARE = 64


def stock(logits: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    inner = [max(1, int(side * SQUARE / max(size) + 0.5)) for side in size]
    full = interpolate(torch.from_numpy(logits)[None], (SQUARE, SQUARE), mode="bilinear", align_corners=False)
    return interpolate(full[..., : inner[0], : inner[1]], size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", [(30, 41), (64, 64), (200, 3), (1, 400), (90, 77), (1, 1), (130, 300)])
@pytest.mark.parametrize("smooth", [False, True])
def test_masks_boxes_and_stability_are_segment_anythings(
    rng: np.random.Generator, size: tuple[int, int], smooth: bool
) -> None:
    logits = rng.normal(size=(12, 4 if smooth else 16, 4 if smooth else 16)).astype(np.float32)
    logits = (8 * interpolate(torch.from_numpy(logits)[None], (16, 16), mode="bicubic")[0]).numpy()
    logits[0], logits[1] = -9, 9  # no pixel, every pixel
    expected = stock(logits, size)
    upsampler = Upsampler(size, (16, 16), SQUARE)
    masks = np.stack(list(upsampler.masks(logits)))
    wrong = masks != (expected > 0).numpy()
    assert np.abs(expected.numpy()[wrong]).max(initial=0) < 1e-3  # rounding at the cut-off only
    stability, boxes = upsampler.measure(logits, 1.0)
    np.testing.assert_allclose(stability, calculate_stability_score(expected, 0.0, 1.0), atol=2e-3)
    inclusive = batched_mask_to_box(torch.from_numpy(masks)).numpy()
    filled = masks.any(axis=(1, 2))
    np.testing.assert_array_equal(boxes[filled], (inclusive + np.array([0, 0, 1, 1]))[filled])
    np.testing.assert_array_equal(boxes[~filled], 0)


@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.3])
def test_any_offset(rng: np.random.Generator, offset: float) -> None:
    logits = rng.normal(size=(5, 16, 16)).astype(np.float32)
    stability, _ = Upsampler((70, 50), (16, 16), SQUARE).measure(logits, offset)
    expected = calculate_stability_score(stock(logits, (70, 50)), 0.0, offset)
    np.testing.assert_allclose(stability, expected, atol=2e-3)


def test_no_mask_at_all() -> None:
    upsampler = Upsampler((70, 50), (16, 16), SQUARE)
    stability, boxes = upsampler.measure(np.zeros((0, 16, 16), np.float32), 1.0)
    assert (stability.shape, boxes.shape) == ((0,), (0, 4))
    assert list(upsampler.masks(np.zeros((0, 16, 16), np.float32))) == []


def test_tiles_of_a_mask_may_come_in_pieces(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = (8 * rng.normal(size=(5, 16, 16))).astype(np.float32)
    upsampler = Upsampler((130, 300), (16, 16), SQUARE)
    whole = np.stack(list(upsampler.masks(logits)))
    stability, boxes = upsampler.measure(logits, 1.0)
    monkeypatch.setattr("risengine.generator.upsample._EVALUATED_PIXELS", 5 * 48**2)
    np.testing.assert_array_equal(np.stack(list(upsampler.masks(logits))), whole)
    for actual, expected in zip(upsampler.measure(logits, 1.0), (stability, boxes), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("low", [16, 80, 112])
def test_the_nearest_logit_lies_inside_the_image(low: int) -> None:
    """Also where a side's share of the logits is no binary fraction."""
    for side in range(1, 400):
        corners = np.array([[0, 0], [1 + side // 3, side]], np.float32)
        rows, columns = nearest_logits(corners, (side, 1 + side // 3), (low, low))
        assert rows.tolist() == [0, low - 1]
        assert columns[0] == 0
        assert columns[1] <= (1 + side // 3) * low / side
