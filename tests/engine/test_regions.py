from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from segment_anything.utils.amg import remove_small_regions as stock

from risengine.generator.regions import remove_small_regions
from risengine.masks import box_from_runs, mask_boxes, mask_from_runs, runs_from_window


def check(mask: np.ndarray, min_area: int) -> None:
    runs, changed = remove_small_regions(runs_from_window(mask, (0, 0), mask.shape), mask.shape, min_area)
    expected, filled = stock(mask, min_area, "holes")
    expected, removed = stock(expected, min_area, "islands")
    cleaned = mask_from_runs(runs, mask.shape)
    np.testing.assert_array_equal(cleaned, expected)
    assert changed == (filled or removed)
    np.testing.assert_array_equal(box_from_runs(runs, mask.shape), mask_boxes(cleaned[None])[0])


@settings(max_examples=150, deadline=None)
@given(
    npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()),
    st.integers(0, 40),
)
def test_regions_are_opencvs(mask: np.ndarray, min_area: int) -> None:
    check(mask, min_area)


def test_noise_of_many_densities(rng: np.random.Generator) -> None:
    for density in np.linspace(0.05, 0.95, 19):
        height, width = rng.integers(20, 150, 2)
        check(rng.random((height, width)) < density, int(rng.integers(1, 100)))
