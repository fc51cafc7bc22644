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
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order] - np.array([0, 0, 1, 1], np.float32)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.arange(len(order))  # not yet judged
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        overlap_px = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        intersection = overlap_px.clip(0).prod(axis=1)
        with np.errstate(invalid="ignore"):  # two boxes without area: 0 / 0 suppresses nothing
            iou = intersection / (areas[best] + areas[left] - intersection)
        left = left[~(iou.astype(np.float64) > iou_thresh)]
    return order[np.array(kept, np.int64)]
