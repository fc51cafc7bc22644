"""Greedy non-maximum suppression of boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["non_maximum_suppression"]


def non_maximum_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_thresh: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression of the masks' boxes, as segment-anything does it with torchvision's ``nms``.

    segment-anything measures boxes between pixel centres, so a mask one pixel wide has a box without an area.

    Args:
        boxes: (N, 4) float32, half-open xyxy in pixels.
        scores: (N,) float32.
        iou_thresh: A box is dropped when its IoU with a better one is greater than this.

    Returns:
        (K,) int64 indexes of the boxes kept, by falling score; equal scores in the order given.
    """
    left = np.argsort(-scores, kind="stable")  # not yet judged
    x0, y0, x1, y1 = (boxes[left] - np.array([0, 0, 1, 1], np.float32)).T
    columns = np.stack([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)])
    kept = []
    while len(left):
        kept.append(left[0])
        best, left, columns = columns[:, 0], left[1:], columns[:, 1:]
        width, height = (
            (np.minimum(columns[end], best[end]) - np.maximum(columns[start], best[start])).clip(0)
            for start, end in ((0, 2), (1, 3))
        )
        intersection = width * height
        with np.errstate(invalid="ignore"):  # two boxes without area: 0 / 0 suppresses nothing
            iou = intersection / (best[4] + columns[4] - intersection)
        dropped = iou.astype(np.float64) > iou_thresh
        if dropped.any():
            left, columns = left[~dropped], columns[:, ~dropped]
    return np.array(kept, np.int64)
