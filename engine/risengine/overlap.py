"""How much masks cover each other, from their run lengths, without drawing them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["shared_shares"]

Array = NDArray[np.float64]


def shared_shares(edges: list[NDArray[np.int64]], boxes: Array) -> Array:
    """Measures the share of the smaller mask of every pair that the two have in common.

    Args:
        edges: Of N masks, (2 K,) int64 each: the first pixel of a run and the one past its last, in turn, in pixels
            down the columns; rising.
        boxes: (N, 4) xyxy around the masks, half-open, in any unit; pairs whose boxes lie apart are not looked at.

    Returns:
        (N, N) in [0, 1]; 1 for a mask with itself, 0 for an empty one with any other.
    """
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
    common = np.maximum(common, common.T)
    areas = np.diag(common)
    shared: Array = common / np.maximum(np.minimum(areas[:, None], areas[None, :]), 1)
    np.fill_diagonal(shared, 1)
    return shared
