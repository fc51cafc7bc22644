"""Pixels that masks have in common: by their runs and drawn, against counting them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risengine.scoring import geometry, overlap
from risengine.types import Proposals


def counted(masks: np.ndarray) -> np.ndarray:
    flat = masks.reshape(len(masks), -1).astype(float)
    common, areas = flat @ flat.T, flat.sum(axis=1)
    shared = common / np.maximum(np.minimum(areas[:, None], areas[None, :]), 1)
    np.fill_diagonal(shared, 1)
    return shared


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.tuples(st.integers(1, 23), st.integers(1, 23)),
    st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.98, 1.0]),
    st.sampled_from([1, 7, 64, 1 << 24]),
)
@settings(max_examples=150, deadline=None)
def test_both_ways_count_the_same(seed: int, count: int, size: tuple[int, int], filled: float, strip: int) -> None:
    masks = np.random.default_rng(seed).random((count, *size)) < filled
    proposals = Proposals.from_masks(masks)
    edges = [geometry._edges(counts) for counts in proposals.counts]
    for runs_a_pixel in (-1.0, np.inf):  # drawn, by runs
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(overlap, "_RUNS_A_PIXEL", runs_a_pixel)
            patch.setattr(overlap, "_STRIP_PIXELS", strip)
            shared = overlap.shared_shares(edges, proposals.boxes.astype(np.float64), size[0] * size[1])
        np.testing.assert_array_equal(shared, counted(masks))


def test_noisy_masks_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    in_strips = overlap._common_drawn
    monkeypatch.setattr(
        overlap, "_common_drawn", lambda edges, pixels: drawn.append(len(edges)) or in_strips(edges, pixels)
    )
    rng = np.random.default_rng(0)
    smooth = np.zeros((12, 60, 80), np.bool_)
    smooth[:, 10:40, 20:60] = True
    geometry.measure_geometry(Proposals.from_masks(smooth))
    assert not drawn
    noisy = smooth ^ (rng.random(smooth.shape) < 0.1)
    np.testing.assert_allclose(geometry.measure_geometry(Proposals.from_masks(noisy)).shared, counted(noisy))
    assert drawn == [12]


def test_no_masks() -> None:
    assert overlap.shared_shares([], np.zeros((0, 4)), 12).shape == (0, 0)
