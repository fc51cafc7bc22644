from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco

from risengine.errors import InputError
from risengine.masks import (
    area_from_runs,
    box_from_runs,
    decode_rle,
    encode_rle,
    mask_boxes,
    pack_runs,
    runs_from_window,
    unpack_runs,
)

any_mask = npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans())


@settings(deadline=None)
@given(any_mask)
def test_rle_round_trip_and_agreement_with_pycocotools(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(coco.decode(rle).astype(bool), mask)


def test_large_masks_use_long_counts() -> None:
    mask = np.zeros((700, 900), np.bool_)
    mask[100:400, 50:800] = True
    np.testing.assert_array_equal(coco.decode(encode_rle(mask)).astype(bool), mask)


def test_plain_counts_and_bytes_are_read() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.bool_)
    np.testing.assert_array_equal(decode_rle({"size": [2, 3], "counts": [2, 1, 1, 2]}), mask)
    rle = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle({"size": rle["size"], "counts": rle["counts"].encode()}), mask)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 2]},
        {"size": [2], "counts": [4]},
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": "zzz"},
        {"size": [-2, -2], "counts": [4]},
        {"size": [2, 2], "counts": [[2, 2]]},
        {"size": [2, 2], "counts": [8, -4]},
        {"size": [4, 5], "counts": [2**62] * 4 + [20]},  # 20 in 64 bits
        {"size": [2**40, 0], "counts": []},
        {"size": [2, 2], "counts": [1.5, 2.5]},
        {"size": [2, 2], "counts": "o" * 40 + "0"},
    ],
)
def test_broken_run_lengths_are_refused(rle: dict[str, object]) -> None:
    with pytest.raises(InputError):
        decode_rle(rle)


def test_wrong_mask_is_refused() -> None:
    with pytest.raises(InputError, match="expected bool"):
        encode_rle(np.zeros((3, 3), np.uint8))  # type: ignore[arg-type]


@settings(deadline=None)
@given(any_mask)
def test_boxes_are_tight_and_half_open(mask: np.ndarray) -> None:
    x0, y0, x1, y1 = mask_boxes(mask[None])[0].astype(int)
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    if mask.any():
        inner = mask[y0:y1, x0:x1]
        assert inner[0].any()
        assert inner[-1].any()
        assert inner[:, 0].any()
        assert inner[:, -1].any()
    else:
        assert (x0, y0, x1, y1) == (0, 0, 0, 0)


@settings(deadline=None)
@given(any_mask, st.tuples(st.integers(0, 3), st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_runs_of_a_window(mask: np.ndarray, corner: tuple[int, int], margin: tuple[int, int]) -> None:
    whole = np.pad(mask, list(zip(corner, margin, strict=True)))
    runs = runs_from_window(mask, corner, whole.shape)
    assert pack_runs(runs) == encode_rle(whole)["counts"]
    assert area_from_runs(runs) == mask.sum()
    np.testing.assert_array_equal(box_from_runs(runs, whole.shape), mask_boxes(whole[None])[0])


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_any_runs_survive_the_text(runs: list[int]) -> None:
    np.testing.assert_array_equal(unpack_runs(pack_runs(np.array(runs))), runs)
