"""Resizing as matrix products: the arithmetic the exported graphs use, batched for training.

Every resize is `R_y @ X @ R_x^T`; the filters differ only in how the weight matrices are filled. Boxes are half-open
xyxy pixels throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor


def triangle_weights(low: Tensor, high: Tensor, cells: int, length: int) -> Tensor:
    """Builds antialiased bilinear weights that map an interval of an axis to `cells` samples.

    The filter is the one of Pillow and of `torch.nn.functional.interpolate(antialias=True)`: a triangle as wide as
    the down-scaling, cut off at the interval's ends and normalised.

    Args:
        low: (N,) float, first pixel edge of each interval, px.
        high: (N,) float, last pixel edge of each interval, px, at least `low + 1`.
        cells: Number of output samples.
        length: Length of the axis, px.

    Returns:
        (N, cells, length) float32 weights; every row sums to 1.
    """
    low, high = low.float(), high.float()
    scale = (high - low) / cells
    support = scale.clamp(min=1.0)[:, None, None]
    steps = torch.arange(cells, device=low.device) + 0.5
    centre = low[:, None] + steps[None] * scale[:, None]
    pixel = torch.arange(length, device=low.device) + 0.5
    weights = (1.0 - (pixel[None, None] - centre[:, :, None]).abs() / support).clamp(min=0.0)
    inside = (pixel[None] > low[:, None]) & (pixel[None] < high[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def area_weights(length: int, cells: int, device: torch.device) -> Tensor:
    """Builds the weights that average an axis over `cells` equal intervals, by exact overlap.

    Args:
        length: Length of the axis, px.
        cells: Number of intervals.
        device: Where the result is made.

    Returns:
        (cells, length) float32 weights; every row sums to 1.
    """
    edges = torch.arange(cells + 1, device=device) * (length / cells)
    pixel = torch.arange(length, device=device)
    overlap = torch.minimum(edges[1:, None], pixel[None] + 1) - torch.maximum(edges[:-1, None], pixel[None])
    return overlap.clamp(min=0.0) * (cells / length)


def resize(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts one box out of every image and squashes it to `size`, antialiased.

    Args:
        images: (N, C, H, W) float.
        boxes: (N, 4) float or integer xyxy px.
        size: Output (height, width), px.

    Returns:
        (N, C, *size), the dtype of `images`.
    """
    count, channels, height, width = images.shape
    across = triangle_weights(boxes[:, 0], boxes[:, 2], size[1], width).to(images.dtype)
    down = triangle_weights(boxes[:, 1], boxes[:, 3], size[0], height).to(images.dtype)
    rows = images.reshape(count, channels * height, width) @ across.transpose(1, 2)
    return down[:, None] @ rows.view(count, channels, height, size[1])


def full_boxes(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Gives the box of a whole image, `count` times.

    Args:
        count: Number of boxes.
        size: Image size (H, W), px.
        device: Where the result is made.

    Returns:
        (count, 4) float32 xyxy px.
    """
    box = torch.tensor([0.0, 0.0, float(size[1]), float(size[0])], device=device)
    return box.expand(count, 4)


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


def pool_masks(masks: Tensor, cells: tuple[int, int]) -> Tensor:
    """Averages masks over the cells of a token grid.

    Args:
        masks: (N, H, W) float, values 0 to 1.
        cells: Grid (rows, columns).

    Returns:
        (N, rows * columns), the dtype of `masks`, values 0 to 1.
    """
    height, width = masks.shape[1:]
    down = area_weights(height, cells[0], masks.device).to(masks.dtype)
    across = area_weights(width, cells[1], masks.device).to(masks.dtype)
    return (down @ (masks @ across.T)).flatten(1)
