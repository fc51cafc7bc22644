"""Boxes and token weights against hand-worked cases and torch's own interpolation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench_samples import CLEAN

from risbench.reference.preprocess import crop_masks, mask_box, normalise, squash, token_weights

TIGHT = dataclasses.replace(
    CLEAN, image_size_px=14, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2), fill=(1.0, 2.0, 3.0), resize="bilinear"
)
CENTROID = dataclasses.replace(TIGHT, box_rule="centroid", mask_pooling="point")


def _mask(rows: list[int], columns: list[int], size: tuple[int, int] = (12, 20)) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
    return mask


@pytest.mark.parametrize(
    ("rows", "columns", "tight", "centroid"),
    [
        # solid, rows 3..6, columns 5..9: centres 4.5 and 7, halves 2 and 2.5
        ([3, 4, 5, 6], [5, 6, 7, 8, 9], (5, 3, 10, 7), (4, 2, 9, 6)),
        # two columns far apart: centre (2 + 16) / 2 = 9, half 1
        ([4, 5], [2, 16], (2, 4, 17, 6), (8, 3, 10, 5)),
        # columns 1, 2, 12: centre 5, half 1.5 -> 3.5 .. 6.5
        ([8, 9, 10], [1, 2, 12], (1, 8, 13, 11), (3, 7, 6, 10)),
        # at the origin: -0.5 .. 3.5 truncates towards zero
        ([0, 1, 2, 3], [0, 1, 2, 3], (0, 0, 4, 4), (0, 0, 3, 3)),
        # one pixel at the origin: -0.5 .. 0.5 would be empty
        ([0], [0], (0, 0, 1, 1), (0, 0, 1, 1)),
        ([11], [19], (19, 11, 20, 12), (18, 10, 19, 11)),
    ],
)
def test_boxes(
    rows: list[int], columns: list[int], tight: tuple[int, int, int, int], centroid: tuple[int, int, int, int]
) -> None:
    mask = _mask(rows, columns)
    assert mask_box(mask, TIGHT) == tight
    assert mask_box(mask, CENTROID) == centroid


def test_centroid_counts_occupancy_not_pixels() -> None:
    mask = _mask([2, 3, 4, 5], [4, 5])
    mask[2, 4:10] = True  # a long first row weighs no more than the others
    assert mask_box(mask, CENTROID) == (3, 1, 9, 5)


def test_boxes_lie_in_the_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        mask = torch.from_numpy(rng.random((9, 7)) < rng.choice([0.02, 0.3, 0.9]))
        if mask.any():
            for method in (TIGHT, CENTROID):
                left, top, right, bottom = mask_box(mask, method)
                assert 0 <= left < right <= 7
                assert 0 <= top < bottom <= 9


@pytest.mark.parametrize("size", [(37, 61), (5, 3), (240, 320)])
def test_point_pooling_equals_interpolate(size: tuple[int, int]) -> None:
    masks = torch.rand(4, *size, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = F.interpolate(masks[:, None].float(), (7, 7), mode="bilinear", align_corners=False)
    actual = token_weights(masks, (7, 7), CENTROID)
    torch.testing.assert_close(actual, expected.flatten(1), rtol=0, atol=0)


def test_point_pooling_can_miss_a_small_object_and_area_pooling_cannot() -> None:
    masks = torch.zeros(1, 70, 70, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    assert token_weights(masks, (7, 7), CENTROID).max() == 0
    assert token_weights(masks, (7, 7), TIGHT)[0, 0] == pytest.approx(4 / 100)


@pytest.mark.parametrize("size", [(37, 61), (5, 3), (14, 14)])
def test_area_pooling_averages_exact_cells(size: tuple[int, int]) -> None:
    masks = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) < 0.4
    fine = masks.float().repeat_interleave(7, 1).repeat_interleave(7, 2)  # cells hold whole numbers of fine pixels
    expected = F.avg_pool2d(fine[:, None], size).flatten(1)
    actual = token_weights(masks, (7, 7), TIGHT)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(actual.mean(1), masks.float().mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_normalise_and_squash() -> None:
    image = np.full((10, 20, 3), 51, np.uint8)  # 0.2
    pixels = normalise(image, TIGHT, torch.device("cpu"))
    assert pixels.shape == (1, 3, 10, 20)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([0.2, 0.0, -0.5]), rtol=1e-5, atol=1e-6)
    assert squash(pixels, TIGHT).shape == (1, 3, 14, 14)


def test_squash_filters() -> None:
    stripes = torch.arange(140).remainder(2).float().expand(1, 3, 28, 140)
    smooth = squash(stripes, dataclasses.replace(TIGHT, resize="antialias"))
    torch.testing.assert_close(smooth, torch.full_like(smooth, 0.5), rtol=0, atol=0.03)
    two_taps = squash(stripes, TIGHT)  # centres lie at 4.5 px + 10 i, between an even and an odd column
    assert torch.equal(two_taps, torch.full_like(two_taps, 0.5))
    assert squash(stripes[..., :126], TIGHT).std() > 0.3  # 9 px apart: columns 4, 13, 22 ... alternate


def test_crops_are_filled_outside_the_mask() -> None:
    image = torch.zeros(1, 3, 12, 20)
    mask = _mask([4, 5, 6, 7], [6, 7, 8, 9])
    mask[4:6, 6:8] = False
    mask[4, 9] = True
    crop = crop_masks(image, mask[None], TIGHT)
    assert crop.shape == (1, 3, 14, 14)
    torch.testing.assert_close(crop[0, :, 0, 0], torch.tensor(TIGHT.fill), rtol=0, atol=0)
    torch.testing.assert_close(crop[0, :, -1, -1], torch.zeros(3), rtol=0, atol=0)
