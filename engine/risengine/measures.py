"""How far two results of one graph are apart: the figures of parity, at build time and in ``risengine verify``.

All take the worst row, and return NaN where a value is NaN, which is within no tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STABILITY_OFFSET", "lowest_cosine", "lowest_mask_iou", "relative_error"]

Array = NDArray[Any]

STABILITY_OFFSET = 1.0
"""Of logits, at which the areas of ``mask_measurer`` are compared: at 0 its two areas would be one."""


def relative_error(actual: Array, expected: Array) -> float:
    """Returns the greatest relative error of a row, |a - e| / |e| in Euclidean norm.

    Args:
        actual: (N, ...) float.
        expected: The same shape, no row zero.
    """
    a, e = (value.astype(np.float64).reshape(len(value), -1) for value in (actual, expected))
    return float((np.linalg.norm(a - e, axis=1) / np.linalg.norm(e, axis=1)).max())


def lowest_cosine(actual: Array, expected: Array) -> float:
    """Returns the lowest cosine of two rows, in [-1, 1].

    Args:
        actual: (N, E) float.
        expected: The same shape, no row zero.
    """
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    return float(((a * e).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(e, axis=1))).min())


def lowest_mask_iou(actual: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Returns the lowest IoU of two masks, in [0, 1]; 1 where both are empty.

    Args:
        actual: (N, H, W) bool.
        expected: The same shape.
    """
    intersection = (actual & expected).sum((1, 2))
    union = (actual | expected).sum((1, 2))
    return float(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)).min())
