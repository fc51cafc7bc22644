"""Where the logits of a mask lie on the image: they cover SAM's padded square, the image its upper left part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from risengine.errors import BackendError

__all__ = ["TAPS", "Taps", "axis_taps", "axis_weights", "nearest_logits", "tap_feeds"]

TAPS = 3
"""Logits in a row that a pixel is a mean of, along an axis: two neighbours in SAM's square input touch no more."""


@dataclass(frozen=True, eq=False)
class Taps:
    """What makes the pixels of one axis, n of them, of its logits.

    Attributes:
        starts: (n,) int64, the first of :data:`TAPS` logits.
        weights: (n, TAPS) float32.
    """

    starts: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.starts)


def axis_weights(side: int, longest: int, low: int, square: int) -> NDArray[np.float32]:
    """Returns what brings one axis of the logits to the image's size.

    Args:
        side: The image's pixels along the axis.
        longest: Pixels of its longest side.
        low: Logits along the axis, which cover the padded square.
        square: Side of SAM's square input.

    Returns:
        (side, low) float32; the size without padding is rounded in integers as in ``image_encoder``.
    """
    inner = max(1, (2 * side * square + longest) // (2 * longest))
    return _bilinear_matrix(side, inner) @ _bilinear_matrix(square, low)[:inner]


def axis_taps(side: int, longest: int, low: int, square: int) -> Taps:
    """Returns the weights of :func:`axis_weights` that are not zero.

    Raises:
        BackendError: A pixel has more than :data:`TAPS`.
    """
    weights = axis_weights(side, longest, low, square)
    used = weights != 0
    starts = np.minimum(used.argmax(axis=1), low - TAPS)
    widest = (low - used[:, ::-1].argmax(axis=1) - starts).max()
    if low < TAPS or widest > TAPS:
        raise BackendError(
            f"{low} logits on SAM's input of {square} px: a pixel is a mean of {widest} along an axis; expected {TAPS} "
            "at most. Build this model with --target cpu."
        )
    return Taps(starts, np.take_along_axis(weights, starts[:, None] + np.arange(TAPS), axis=1))


def tap_feeds(rows: Taps, columns: Taps) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
    """Returns the inputs of ``mask_measurer`` that are the same for all masks of an image."""
    return {
        "row_starts": rows.starts,
        "row_weights": rows.weights,
        "column_starts": columns.starts,
        "column_weights": columns.weights,
    }


def nearest_logits(
    points: NDArray[np.float32], size: tuple[int, int], logits_size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns row and column, (P,) int64 each, of the logits nearest to points.

    Args:
        points: (P, 2) float32 xy in pixels of the image.
        size: (H, W) of the image in pixels.
        logits_size: (h, w) of the logits, which cover the padded square.
    """
    # Beyond the image is padding. In integers: a rounded product could point past the logits.
    longest, logits_xy = max(size), logits_size[::-1]
    limits = [-(-side * logits // longest) - 1 for side, logits in zip(size[::-1], logits_xy, strict=True)]
    places = points * (np.array(logits_xy) / longest)
    columns, rows = np.minimum(places.astype(np.int64), limits).T
    return rows, columns


def _bilinear_matrix(out_size: int, in_size: int) -> NDArray[np.float32]:
    """(out, in) weights of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` along one axis."""
    centre = np.clip((np.arange(out_size) + 0.5) * (in_size / out_size) - 0.5, 0, in_size - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, in_size - 1)
    matrix = np.zeros((out_size, in_size), np.float32)
    rows = np.arange(out_size)
    matrix[rows, low] += (1 - (centre - low)).astype(np.float32)
    matrix[rows, high] += (centre - low).astype(np.float32)
    return matrix
