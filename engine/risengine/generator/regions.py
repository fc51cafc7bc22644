"""Small holes and islands of masks, found and removed in their run lengths.

Regions are those of segment-anything's ``remove_small_regions``: pixels that touch at a side or a corner belong
together, in the object as in the background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["remove_small_regions"]


def remove_small_regions(
    runs: NDArray[np.int64], size: tuple[int, int], min_area: int
) -> tuple[NDArray[np.int64], bool]:
    """Fills small holes of a mask, then removes its small islands.

    Any region of the background counts as a hole. Where every island is small the largest stays.

    Args:
        runs: (R,) int64 run lengths down the columns, background first.
        size: (H, W) in pixels.
        min_area: Regions of fewer pixels are small.

    Returns:
        Run lengths, and whether there was a small region: then the mask differs, or it is one small island.
    """
    starts, stops, inside = _pieces(runs, size[0])
    outside = np.flatnonzero(~inside)
    region, areas = _regions(starts[outside], stops[outside], size[0])
    filled = outside[areas[region] < min_area]
    inside[filled] = True
    starts, stops, inside = _pieces(_joined(starts, stops, inside), size[0])
    islands = np.flatnonzero(inside)
    region, areas = _regions(starts[islands], stops[islands], size[0])
    small = areas < min_area
    found = bool(len(filled) or small.any())
    if len(areas) and small.all():
        small[_largest(region, areas, starts[islands], size)] = False
    inside[islands[small[region]]] = False
    return _joined(starts, stops, inside), found


def _pieces(runs: NDArray[np.int64], height: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Cuts runs at the ends of the columns; returns their first pixel, the one past their last, and their value."""
    ends = np.cumsum(runs)
    edges = np.union1d(ends[runs > 0], np.arange(0, ends[-1] + 1, height))
    value = np.searchsorted(ends, edges[:-1], side="right") % 2 == 1
    return edges[:-1], edges[1:], value


def _joined(starts: NDArray[np.int64], stops: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the run lengths of pieces that cover the image in order."""
    changes = np.flatnonzero(np.diff(inside, prepend=False))
    runs: NDArray[np.int64] = np.diff(starts[changes], prepend=0, append=stops[-1])
    return runs


def _regions(
    starts: NDArray[np.int64], stops: NDArray[np.int64], height: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels the connected regions of pieces; returns each piece's region and each region's area."""
    column, top = np.divmod(starts, height)
    bottom = top + stops - starts
    # The pieces of a column lie in order and apart, so those of the next one that touch a piece are a range.
    stride = height + 2
    first = np.searchsorted(column * stride + bottom, (column + 1) * stride + top)
    counts = np.searchsorted(column * stride + top, (column + 1) * stride + bottom, side="right") - first
    a = np.repeat(np.arange(len(starts)), counts)
    b = np.arange(len(a)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    root = np.arange(len(starts))
    while True:  # every root takes the lowest root beside it, until none is beside another
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            break
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(root, root[root]):
            root = root[root]
    _, region = np.unique(root, return_inverse=True)
    return region, np.bincount(region, weights=stops - starts).astype(np.int64)


def _largest(
    region: NDArray[np.int64], areas: NDArray[np.int64], starts: NDArray[np.int64], size: tuple[int, int]
) -> int:
    """Returns the largest region; of equal ones the first that OpenCV meets, which walks 2 x 2 blocks row by row."""
    column, row = np.divmod(starts, size[0])
    block = row // 2 * size[1] + column // 2
    first = np.full(len(areas), np.iinfo(np.int64).max)
    np.minimum.at(first, region, block)
    return int(np.lexsort((first, -areas))[0])
