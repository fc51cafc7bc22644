"""Masks that a caller brings in place of SAM's: bool arrays, COCO run lengths, polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from risengine.errors import InputError
from risengine.masks import mask_from_runs, read_rle
from risengine.types import Proposals

__all__ = ["MasksLike", "polygon_mask", "read_masks"]

MasksLike: TypeAlias = "NDArray[np.bool_] | Proposals | Sequence[NDArray[np.bool_] | Mapping[str, Any] | Sequence[Any]]"
"""(N, H, W) bool, proposals, or a sequence in which each mask is (H, W) bool, COCO run lengths (compressed or not) or a
list of polygons, each a flat list x0, y0, x1, y1 ... as in COCO or (n, 2) xy, in pixels."""

_KINDS = "a bool array, COCO run lengths or a list of polygons"


def read_masks(masks: MasksLike, size: tuple[int, int]) -> Proposals:
    """Checks a caller's masks.

    Masks of numbers are refused, because 0.5, 1 and 255 have been used for the same thing.

    Args:
        masks: See :data:`MasksLike`; for polygons see :func:`polygon_mask`.
        size: (H, W) of the image in pixels.

    Raises:
        InputError: Another dtype, shape or size than the image asks for, something that is no mask, or a mask without
            a pixel.
    """
    if isinstance(masks, Proposals):
        if masks.size != size:
            raise InputError(
                f"proposals are of an image of {masks.size}; expected {size}. Propose masks in this image."
            )
        proposals = masks
    elif isinstance(masks, np.ndarray):
        if masks.dtype != np.bool_ or masks.shape[1:] != size:
            raise InputError(f"masks: {_misfit(f'{masks.dtype} {masks.shape}', ('N', *size))}")
        proposals = Proposals.from_masks(masks)
    elif isinstance(masks, Sequence) and not isinstance(masks, str | bytes):
        parts = [Proposals.from_masks(_read(mask, f"mask {index}", size)[None]) for index, mask in enumerate(masks)]
        proposals = Proposals.joined([Proposals.from_masks(np.zeros((0, *size), np.bool_)), *parts])
    else:
        raise InputError(
            f"masks are a {type(masks).__name__}; expected a bool array (N, {size[0]}, {size[1]}) or a list of masks. "
            "Put a single mask in a list."
        )
    empty = np.flatnonzero(~proposals.boxes.any(axis=1))
    if empty.size:
        raise InputError(f"masks {empty.tolist()} are empty; expected at least one pixel each. Leave them out.")
    return proposals


def polygon_mask(polygons: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns the union of polygons: the pixels whose centre lies inside one, by the even-odd rule.

    Args:
        polygons: Each a flat list x0, y0, x1, y1 ... or (n, 2) xy, n >= 3, in pixels; the first pixel's centre is at
            (0.5, 0.5). What lies beyond the image is cut off.
        size: (H, W) in pixels.

    Returns:
        (H, W) bool.

    Raises:
        InputError: Something is no polygon.
    """
    mask = np.zeros(size, np.bool_)
    for polygon in polygons:
        corners = _corners(polygon)
        low, high = corners.min(axis=0), corners.max(axis=0)
        x0, y0 = np.clip(np.floor(low), 0, size[::-1]).astype(int)
        x1, y1 = np.clip(np.ceil(high), 0, size[::-1]).astype(int)
        if x0 < x1 and y0 < y1:
            mask[y0:y1, x0:x1] |= _inside(corners - (x0, y0), (y1 - y0, x1 - x0))
    return mask


def _read(mask: Any, name: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        if isinstance(mask, np.ndarray):
            if mask.dtype != np.bool_ or mask.shape != size:
                raise InputError(_misfit(f"{mask.dtype} {mask.shape}", size))
            return mask
        if isinstance(mask, Mapping):
            runs, own_size = read_rle(mask)
            if own_size != size:  # before anything of that size is made
                raise InputError(_misfit(f"bool {own_size}", size))
            return mask_from_runs(runs, size)
        if isinstance(mask, Sequence) and not isinstance(mask, str | bytes):
            return polygon_mask(mask, size)
        raise InputError(f"a {type(mask).__name__}; expected {_KINDS}. Convert it.")
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _misfit(found: str, expected: tuple[int | str, ...]) -> str:
    return (
        f"{found}; expected bool ({', '.join(map(str, expected))}). Compare numbers with a cut-off: masks > 0. Resize "
        "masks of another size."
    )


def _corners(polygon: Any) -> NDArray[np.float64]:
    try:
        corners = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a polygon holds something else than numbers ({error}). Give x0, y0, x1, y1 ...") from error
    if corners.ndim == 1 and len(corners) % 2 == 0:
        corners = corners.reshape(-1, 2)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise InputError(
            f"a polygon has shape {corners.shape}; expected x0, y0, x1, y1 ... of at least 3 corners, all finite. Give "
            "each mask as a list of polygons, even if it has but one."
        )
    return corners


def _inside(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tells which pixel centres of a window lie inside a polygon: those right of an odd number of its edges."""
    height, width = size
    ends = np.roll(corners, -1, axis=0)
    top, bottom = np.minimum(corners[:, 1], ends[:, 1]), np.maximum(corners[:, 1], ends[:, 1])
    first, past = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (top, bottom))
    edge = np.repeat(np.arange(len(corners)), past - first)
    row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(past - first) - (past - first)), past - first)
    slope = (ends[edge, 0] - corners[edge, 0]) / (ends[edge, 1] - corners[edge, 1])
    x = corners[edge, 0] + (row + 0.5 - corners[edge, 1]) * slope
    crossings = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(crossings, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = np.bitwise_xor.accumulate(crossings, axis=1)[:, :width].view(np.bool_)
    return inside
