from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from risengine.caller_masks import polygon_mask, read_masks
from risengine.errors import InputError
from risengine.masks import encode_rle

SIZE = (4, 5)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[1:3, 2:4] = True
    return mask


def test_every_form_is_the_same_mask(mask: np.ndarray) -> None:
    plain = {"size": [4, 5], "counts": [9, 2, 2, 2, 5]}
    forms = [mask, encode_rle(mask), plain, [[2, 1, 4, 1, 4, 3, 2, 3]], [[[2, 1], [4, 1], [4, 3], [2, 3]]]]
    proposals = read_masks(forms, SIZE)
    np.testing.assert_array_equal(proposals.masks, np.stack([mask] * 5))
    np.testing.assert_array_equal(proposals.boxes, [[2, 1, 4, 3]] * 5)
    assert read_masks(np.stack([mask] * 5), SIZE) == proposals
    assert read_masks(proposals, SIZE) == proposals
    assert len(read_masks([], SIZE)) == len(read_masks(np.zeros((0, *SIZE), np.bool_), SIZE)) == 0


def test_the_result_is_a_copy(mask: np.ndarray) -> None:
    masks = np.stack([mask, mask])
    proposals = read_masks(masks, SIZE)
    masks[:] = False
    assert proposals.mask(1).any()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((2, 4, 5), np.bool_), r"masks \[0, 1\] are empty"),
        (np.ones((2, 5, 4), np.bool_), r"expected bool \(N, 4, 5\)"),
        (np.ones((4, 5), np.bool_), r"expected bool \(N, 4, 5\)"),
        (np.full((1, 4, 5), 255, np.uint8), r"uint8 \(1, 4, 5\); expected bool .* masks > 0"),
        ([np.ones((4, 5), np.uint8)], r"mask 0: uint8 \(4, 5\); expected bool \(4, 5\)"),
        ([np.ones((5, 4), np.bool_)], r"mask 0: bool \(5, 4\)"),
        ([{"size": [5, 4], "counts": [0, 20]}], r"mask 0: bool \(5, 4\); expected bool \(4, 5\)"),
        ([{"size": [10**6, 10**6], "counts": [0, 10**12]}], r"mask 0: bool \(1000000, 1000000\); expected"),
        ([{"size": [4, 5], "counts": [3]}], "mask 0: run lengths cover 3 pixels"),
        ([[1, 1, 3, 1, 3, 3]], r"mask 0: a polygon has shape \(\)"),
        ([[[1, 1, 3, 1, 3]]], r"mask 0: a polygon has shape \(5,\)"),
        ([[[1, 1, 3, "x", 3, 3]]], "mask 0: a polygon holds something else than numbers"),
        ([[[20, 20, 30, 20, 30, 30]]], r"masks \[0\] are empty"),
        (["mask.png"], "mask 0: a str; expected a bool array"),
        ({"size": [4, 5], "counts": [0, 20]}, "masks are a dict; expected a bool array"),
    ],
)
def test_masks_that_are_refused(masks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_masks(masks, SIZE)


def test_proposals_of_another_image_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"of an image of \(4, 5\); expected \(5, 4\)"):
        read_masks(read_masks([mask], SIZE), (5, 4))


coordinates = st.integers(-40, 160).map(lambda value: value / 4 + 0.1)


@settings(deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8))
def test_a_pixel_belongs_to_a_polygon_that_holds_its_centre(corners: list[tuple[float, float]]) -> None:
    y, x = np.mgrid[:20, :30] + 0.5
    crossings, clear = np.zeros((20, 30), np.int64), np.ones((20, 30), np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            edge = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            crossings += ((y0 <= y) != (y1 <= y)) & (x > edge)
            clear &= np.abs(x - edge) > 1e-9
    flat = [value for corner in corners for value in corner]
    np.testing.assert_array_equal(polygon_mask([flat], (20, 30))[clear], (crossings % 2 == 1)[clear])


def test_polygons_agree_with_pycocotools_up_to_the_border(rng: np.random.Generator) -> None:
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    radii = rng.uniform(40, 90, 40)
    polygon = np.stack([150 + radii * np.cos(angles), 110 + radii * np.sin(angles)], axis=1).ravel().tolist()
    found = polygon_mask([polygon], (220, 300))
    theirs = coco.decode(coco.merge(coco.frPyObjects([polygon], 220, 300))).astype(bool)
    assert (found & theirs).sum() / (found | theirs).sum() > 0.97


def test_polygons_of_a_mask_are_united() -> None:
    square, other = [0, 0, 3, 0, 3, 3, 0, 3], [2, 2, 5, 2, 5, 4, 2, 4]
    united = polygon_mask([square, other], SIZE)
    np.testing.assert_array_equal(united, polygon_mask([square], SIZE) | polygon_mask([other], SIZE))
    assert united[2, 2]
