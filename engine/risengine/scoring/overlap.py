"""How much masks cover each other, from their run lengths: smooth masks run by run, noisy ones drawn in strips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["shared_shares"]

Array = NDArray[np.float64]

_RUNS_A_PIXEL = 0.4  # of all masks together; with more, drawing them takes less time than comparing runs does
_STRIP_PIXELS = 1 << 24  # of all masks together: 64 MB of float32


def shared_shares(edges: list[NDArray[np.int64]], boxes: Array, pixels: int) -> Array:
    """Measures the share of the smaller mask of every pair that the two have in common.

    Args:
        edges: Of N masks, (2 K,) int64 each: the first pixel of a run and the one past its last, in turn, in pixels
            down the columns; rising, none twice.
        boxes: (N, 4) xyxy around the masks, half-open, in any unit; pairs whose boxes lie apart are not looked at.
        pixels: Of the image.

    Returns:
        (N, N) in [0, 1]; 1 for a mask with itself, 0 for an empty one with any other.
    """
    runs = sum(len(edge) // 2 for edge in edges)
    common = _common_drawn(edges, pixels) if runs > _RUNS_A_PIXEL * pixels else _common_runs(edges, boxes)
    areas = np.diag(common)
    shared: Array = common / np.maximum(np.minimum(areas[:, None], areas[None, :]), 1)
    np.fill_diagonal(shared, 1)
    return shared


def _common_runs(edges: list[NDArray[np.int64]], boxes: Array) -> Array:
    """(N, N) pixels that two masks have in common, in time that grows with their runs."""
    owner = np.repeat(np.arange(len(edges)), [len(edge) // 2 for edge in edges])
    starts, stops = (np.concatenate([edge[first::2] for edge in edges]) if edges else owner for first in (0, 1))
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    meet: NDArray[np.bool_] = np.all(high > low, axis=2)
    common: Array = np.zeros((len(edges), len(edges)))
    for index, own in enumerate(edges):
        if not len(own):
            continue
        # Pixels of this mask before a place in the image: linear between the edges of its runs.
        before = np.concatenate([[0], np.repeat(np.cumsum(own[1::2] - own[::2]), 2)[:-1]])
        near = (owner >= index) & meet[owner, index]
        held = np.interp(stops[near], own, before) - np.interp(starts[near], own, before)
        common[:, index] = np.bincount(owner[near], held, minlength=len(edges))
    return np.maximum(common, common.T)


def _common_drawn(edges: list[NDArray[np.int64]], pixels: int) -> Array:
    """(N, N) pixels that two masks have in common, in time that grows with the image."""
    common: Array = np.zeros((len(edges), len(edges)))
    width = max(1, _STRIP_PIXELS // len(edges))  # few enough for exact sums in float32
    for first in range(0, pixels, width):
        drawn = np.empty((len(edges), min(width, pixels - first)), np.float32)
        for row, edge in zip(drawn, edges, strict=True):
            begin, end = np.searchsorted(edge, (first, first + len(row)))
            turns = np.zeros(len(row), np.int8)
            turns[edge[begin:end] - first] = 1
            turns[0] ^= begin & 1  # inside a run of the strip before
            row[:] = np.bitwise_xor.accumulate(turns)
        common += drawn @ drawn.T
    return common
