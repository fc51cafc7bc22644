"""Facts and encodings of binary masks: boxes, COCO run lengths."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.errors import InputError

__all__ = ["decode_rle", "encode_rle", "mask_boxes"]


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns the tight box of every mask.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32, half-open xyxy in pixels; an empty mask has the box (0, 0, 0, 0).
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for axis, (low, high) in ((1, (0, 2)), (2, (1, 3))):  # over rows: x edges; over columns: y edges
        occupied: NDArray[np.bool_] = np.any(masks, axis=axis)
        filled: NDArray[np.bool_] = np.any(occupied, axis=1)
        boxes[filled, low] = occupied[filled].argmax(axis=1)
        boxes[filled, high] = occupied.shape[1] - occupied[filled][:, ::-1].argmax(axis=1)
    return boxes


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encodes a mask as COCO compressed run lengths, readable by ``pycocotools.mask.decode``.

    Args:
        mask: (H, W) bool.

    Returns:
        ``{"size": [H, W], "counts": str}``; runs go down columns and begin with the background.

    Raises:
        InputError: The mask is not a two-dimensional bool array.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(f"mask is {mask.dtype} of shape {mask.shape}; expected bool (H, W).")
    flat = np.concatenate(([False], mask.ravel(order="F")))
    starts = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate(([0], starts, [mask.size])))
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": _pack(counts.tolist())}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decodes COCO run lengths, compressed (str or bytes) or plain (list of int).

    Args:
        rle: ``{"size": [H, W], "counts": ...}``.

    Returns:
        (H, W) bool.

    Raises:
        InputError: Keys are missing, or the runs do not add up to H x W pixels.
    """
    try:
        height, width = (int(value) for value in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        runs = np.asarray(_unpack(counts) if isinstance(counts, str) else [operator.index(run) for run in counts])
        if min(height, width) < 0:
            raise ValueError("negative size")
        runs = runs.astype(np.int64)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"not COCO run lengths ({error!r}); expected {{'size': [H, W], 'counts': ...}}.") from error
    if (runs < 0).any() or runs.sum() != height * width:
        raise InputError(f"run lengths cover {int(runs.sum())} pixels; expected {height} x {width}.")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((width, height)).T.copy()


def _pack(counts: list[int]) -> str:
    """COCO's variable-length text: 5 bits a character, each count from the third on as a difference two back."""
    text = bytearray()
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append((bits | 0x20 if more else bits) + 48)
    return text.decode("ascii")


def _unpack(text: str) -> list[int]:
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[position]) - 48
            value |= (bits & 0x1F) << shift
            shift += 5
            position += 1
            more = bool(bits & 0x20)
            if not more and bits & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
