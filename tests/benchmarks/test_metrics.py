"""Metrics against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from risbench.quality.metrics import Overlap, mask_overlaps, summarise


def test_overlaps_of_every_pair() -> None:
    targets = np.zeros((2, 3, 4), np.bool_)
    targets[0, 0, :] = True  # 4 pixels
    targets[1, 1:, :2] = True  # 4 pixels
    proposals = np.zeros((3, 3, 4), np.bool_)
    proposals[0, 0, :2] = True  # half of the first
    proposals[1, :, :2] = True  # 2 of the first, all of the second, 6 pixels
    overlaps = mask_overlaps(proposals, targets)  # the third proposal is empty
    np.testing.assert_array_equal(overlaps.intersections, [[2, 0], [2, 4], [0, 0]])
    np.testing.assert_array_equal(overlaps.unions, [[4, 6], [8, 6], [4, 4]])
    np.testing.assert_allclose(overlaps.ious, [[1 / 2, 0], [1 / 4, 2 / 3], [0, 0]])
    assert overlaps.at(1, 1) == Overlap(4, 6)
    assert (overlaps.best(0), overlaps.best(1)) == (0, 1)


def test_nothing_proposed_covers_nothing() -> None:
    targets = np.ones((1, 3, 4), np.bool_)
    overlaps = mask_overlaps(np.zeros((0, 3, 4), np.bool_), targets)
    assert overlaps.best(0) is None
    assert overlaps.at(None, 0) == Overlap(0, 12)


def test_two_empty_masks_have_no_overlap() -> None:
    empty = np.zeros((1, 3, 4), np.bool_)
    assert mask_overlaps(empty, empty).at(0, 0).iou == 0
    assert mask_overlaps(empty, empty).ious[0, 0] == 0
    assert summarise([Overlap(0, 0)]).oiou == 0


def test_summary() -> None:
    summary = summarise([Overlap(9, 10), Overlap(1, 2), Overlap(0, 40), Overlap(60, 80)])
    assert summary.count == 4
    assert summary.miou == pytest.approx((0.9 + 0.5 + 0.0 + 0.75) / 4)
    assert summary.oiou == pytest.approx(70 / 132)
    assert summary.precision == {"0.5": 0.75, "0.7": 0.5, "0.9": 0.25}  # a threshold reached counts
