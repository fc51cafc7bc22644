"""Facts and encodings of binary masks: boxes, COCO run lengths.

Runs go down the columns and begin with the background, as in COCO. A mask is packed from its box alone and unpacked
column by column, so that both cost what the object covers and not what the image does.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.errors import InputError

__all__ = [
    "area_from_runs",
    "box_from_runs",
    "decode_rle",
    "encode_rle",
    "mask_boxes",
    "mask_from_runs",
    "pack_runs",
    "pack_window",
    "read_rle",
    "runs_from_window",
    "unpack_runs",
]


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
        raise InputError(f"mask is {mask.dtype} of shape {mask.shape}; expected bool (H, W). Compare it: mask > 0.")
    height, width = mask.shape
    counts = pack_window(mask, (0, 0), (height, width))
    return {"size": [height, width], "counts": counts}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decodes COCO run lengths, compressed (str or bytes) or plain (list of int).

    Args:
        rle: ``{"size": [H, W], "counts": ...}``.

    Returns:
        (H, W) bool.

    Raises:
        InputError: Keys are missing, or the runs do not add up to H x W pixels.
    """
    return mask_from_runs(*read_rle(rle))


def read_rle(rle: Mapping[str, Any]) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Reads COCO run lengths, compressed (str or bytes) or plain (list of int).

    Args:
        rle: ``{"size": [H, W], "counts": ...}``.

    Returns:
        (R,) int64 run lengths, and (H, W).

    Raises:
        InputError: As :func:`decode_rle`.
    """
    try:
        height, width = (int(value) for value in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        if isinstance(counts, str):
            runs = unpack_runs(counts)
        else:
            runs = np.asarray([operator.index(run) for run in counts]).astype(np.int64)
        if not all(0 <= side < 1 << 31 for side in (height, width)):
            raise ValueError("size out of range")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(
            f"not COCO run lengths ({error!r}); expected {{'size': [H, W], 'counts': ...}}. "
            "Write them with risengine.masks.encode_rle or pycocotools."
        ) from error
    total_px = sum(runs.tolist())  # of Python's integers, which do not wrap
    if (runs < 0).any() or total_px != height * width:
        raise InputError(
            f"run lengths cover {total_px} pixels, the least {runs.min(initial=0)}; expected {height} x {width}, none "
            "below 0. Check that the size is (H, W)."
        )
    return runs, (height, width)


def runs_from_window(window: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int64]:
    """Returns the run lengths of a mask of which only a window is given.

    Args:
        window: (h, w) bool; the mask is empty outside of it.
        corner: (y, x) of the window's first pixel in the mask.
        size: (H, W) of the mask.

    Returns:
        (R,) int64, down the columns, background first; every run but the first has at least one pixel.
    """
    height, width = window.shape
    if not window.size:
        return np.array([size[0] * size[1]])
    changes = np.empty((height + 1, width), np.bool_)
    changes[0], changes[height] = window[0], window[-1]
    np.not_equal(window[1:], window[:-1], out=changes[1:height])
    y, x = np.divmod(np.flatnonzero(changes), width)
    # Starts and ends alternate down a column. One that ends with its column and one that starts with the next meet.
    edges = np.sort((x + corner[1]) * size[0] + y + corner[0])
    meets = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * meets + 1, 2 * meets + 2]))
    runs = np.diff(edges, prepend=0, append=size[0] * size[1])
    return runs if len(runs) == 1 or runs[-1] else runs[:-1]


def mask_from_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns the mask of run lengths.

    Args:
        runs: (R,) int64 that add up to H x W.
        size: (H, W) in pixels.

    Returns:
        (H, W) bool.
    """
    height = size[0]
    mask = np.zeros(size, np.bool_)
    edges = np.cumsum(runs)
    if len(edges) < 2 or not height:
        return mask
    last = edges[len(edges) // 2 * 2 - 1]  # end of the last foreground run
    left, right = int(edges[0] // height), int(-(-last // height))
    lengths = np.diff(edges[: len(edges) // 2 * 2], prepend=left * height, append=right * height)
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(right - left, height)
    mask[:, left:right] = columns.T
    return mask


def area_from_runs(runs: NDArray[np.int64]) -> int:
    """Returns the number of pixels of the mask of (R,) int64 run lengths."""
    return int(runs[1::2].sum())


def box_from_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns the tight box of the mask of run lengths, as :func:`mask_boxes`.

    Args:
        runs: (R,) int64 that add up to H x W.
        size: (H, W) in pixels.

    Returns:
        (4,) float32, half-open xyxy in pixels; zeros for an empty mask.
    """
    edges = np.cumsum(runs)
    starts, lasts = edges[:-1:2], edges[1::2] - 1
    starts, lasts = starts[lasts >= starts], lasts[lasts >= starts]
    if not len(starts):
        return np.zeros(4, np.float32)
    left, top = np.divmod(starts, size[0])
    right, bottom = np.divmod(lasts, size[0])
    if (right > left).any():  # a run that goes on in the next column touches the bottom and the top
        top, bottom = np.array([0]), np.array([size[0] - 1])
    return np.array([left.min(), top.min(), right.max() + 1, bottom.max() + 1], np.float32)


def pack_window(window: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> str:
    """Writes the run lengths of a mask of which only a window is given; see :func:`runs_from_window`.

    Returns:
        COCO's variable-length text.
    """
    return pack_runs(runs_from_window(window, corner, size))


def pack_runs(runs: NDArray[np.int64]) -> str:
    """Writes run lengths in COCO's variable-length text.

    A number takes 5 bits a character, lowest first, with a sign; from the fourth on it is the difference to the one two
    before.

    Args:
        runs: (R,) int64, at least 0.
    """
    values = runs.copy()
    values[3:] -= runs[1:-2]
    # With its sign bit a number needs the smallest n of characters with -16 * 32**(n-1) <= number < 16 * 32**(n-1).
    magnitudes = np.where(values < 0, ~values, values)
    lengths = np.ones(len(values), np.int64)
    for bits in range(4, 63, 5):
        lengths += magnitudes >= 1 << bits
        if not (magnitudes >= 1 << bits).any():
            break
    owner = np.repeat(np.arange(len(values)), lengths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    characters = (values[owner] >> (5 * place)) & 0x1F
    characters += np.where(place < lengths[owner] - 1, 0x20 + 48, 48)
    return characters.astype(np.uint8).tobytes().decode("ascii")


def unpack_runs(text: str) -> NDArray[np.int64]:
    """Reads run lengths from COCO's variable-length text.

    Args:
        text: What :func:`pack_runs` writes.

    Returns:
        (R,) int64; broken text may give anything.

    Raises:
        ValueError: The text is not ASCII, ends within a number, or holds one of more than 60 bits.
    """
    characters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((characters & 0x20) == 0) + 1
    if (ends[-1] if len(ends) else 0) != len(characters):
        raise ValueError("counts end within a number")
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    if lengths.max() > 12:
        raise ValueError("counts hold a number of more than 60 bits")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((characters & 0x1F) << (5 * place), starts)
    values -= ((characters[ends - 1] & 0x10) >> 4) << (5 * lengths)  # the last character's top bit is the sign
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
