"""Boxes of masks, and cutting boxes out of batches of images with the filter of the exported graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from risexport import resample


def cut_boxes(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts one box out of every image and resizes it, antialiased.

    Args:
        images: (N, C, H, W) float.
        boxes: (N, 4) int64 half-open xyxy px, inside the image.
        size: Output (height, width), px.

    Returns:
        (N, C, *size) float32.
    """
    start, length = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    rows = resample.resize_weights(start[:, 1], length[:, 1], size[0], images.shape[2], "antialias")
    columns = resample.resize_weights(start[:, 0], length[:, 0], size[1], images.shape[3], "antialias")
    return resample.resize(images.float(), rows[:, None], columns[:, None])


def full_boxes(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Gives the box of a whole image, `count` times.

    Args:
        count: Number of boxes.
        size: Image size (H, W), px.
        device: Where the result is made.

    Returns:
        (count, 4) int64 xyxy px.
    """
    return torch.tensor([0, 0, size[1], size[0]], device=device).expand(count, 4)


def tight_boxes(masks: Tensor) -> Tensor:
    """Finds the tight box of every mask; an empty mask gets the whole image, so that resizing stays defined.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) int64 xyxy px.
    """
    height, width = masks.shape[1:]
    rows, columns = masks.any(2).byte(), masks.any(1).byte()
    top, left = rows.argmax(1), columns.argmax(1)
    bottom, right = height - rows.flip(1).argmax(1), width - columns.flip(1).argmax(1)
    return torch.stack([left, top, right, bottom], 1)
