from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import build_point_grid, calculate_stability_score
from torch.nn.functional import interpolate
from torchvision.ops import nms

from risengine.errors import InputError
from risengine.manifest import ProposalSettings
from risengine.proposals import (
    _filter_stable,
    non_maximum_suppression,
    point_grid,
    proposals_from_masks,
    upsample_logits,
)


@pytest.mark.parametrize("points_per_side", [1, 2, 7, 32])
def test_grid_is_segment_anythings(points_per_side: int) -> None:
    np.testing.assert_allclose(point_grid(points_per_side), build_point_grid(points_per_side), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_is_torchvisions(rng: np.random.Generator, count: int, threshold: float) -> None:
    corner = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 30, (count, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).numpy()
    np.testing.assert_array_equal(non_maximum_suppression(boxes, scores, threshold), expected)


@pytest.mark.parametrize("size", [(30, 41), (64, 64), (200, 3), (1, 400), (90, 77)])
def test_upsampling_is_segment_anythings_two_steps(rng: np.random.Generator, size: tuple[int, int]) -> None:
    logits = rng.normal(size=(3, 16, 16)).astype(np.float32)
    square = 64
    scale = square / max(size)
    inner = [max(1, int(side * scale + 0.5)) for side in size]
    full = interpolate(torch.from_numpy(logits)[None], (square, square), mode="bilinear", align_corners=False)
    expected = interpolate(full[..., : inner[0], : inner[1]], size, mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(upsample_logits(logits, size, square), expected, rtol=1e-4, atol=1e-5)


def test_stability_filter_is_segment_anythings(rng: np.random.Generator) -> None:
    smooth = interpolate(torch.from_numpy(rng.normal(size=(1, 40, 5, 5)).astype(np.float32)), (50, 60), mode="bicubic")
    logits = 8 * smooth[0].numpy()
    logits[0] = -9  # no pixel at all
    settings = ProposalSettings(stability_score_thresh=0.8)
    stability = calculate_stability_score(torch.from_numpy(logits), 0.0, settings.stability_score_offset).numpy()
    expected = np.flatnonzero(stability >= settings.stability_score_thresh)
    assert 3 < len(expected) < 37
    scores = np.arange(40, dtype=np.float32)
    candidates = _filter_stable(logits, scores, settings)
    np.testing.assert_array_equal(candidates.scores, scores[expected])
    masks = np.unpackbits(candidates.packed, axis=2, count=60).astype(bool)
    np.testing.assert_array_equal(masks, logits[expected] > 0)


def test_masks_of_the_caller_are_checked() -> None:
    masks = np.zeros((2, 4, 5), np.bool_)
    masks[:, 1:3, 2:4] = True
    proposals = proposals_from_masks(masks, (4, 5))
    np.testing.assert_array_equal(proposals.boxes, [[2, 1, 4, 3]] * 2)
    masks[1] = False
    assert proposals.masks[1].any()  # a copy
    with pytest.raises(InputError, match=r"masks \[1\] are empty"):
        proposals_from_masks(masks, (4, 5))
    with pytest.raises(InputError, match=r"expected bool \(N, 5, 4\)"):
        proposals_from_masks(masks, (5, 4))
    with pytest.raises(InputError, match="masks are a list"):
        proposals_from_masks([masks[0]], (4, 5))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="uint8"):
        proposals_from_masks(masks.astype(np.uint8), (4, 5))  # type: ignore[arg-type]
