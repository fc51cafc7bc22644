"""What both plain computations of features do to pixels and masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from risengine.method import Method

__all__ = ["pooled", "square"]


def square(pixels: Tensor, method: Method) -> Tensor:
    """Squashes pixels (3, H, W) to (1, 3, S, S)."""
    size = (method.image_size_px, method.image_size_px)
    antialias = method.resize == "antialias"
    return F.interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=antialias)


def pooled(masks: Tensor, grid: tuple[int, int], method: Method) -> Tensor:
    """Pools masks (N, H, W), 0 or 1 in floating point, to weights of the tokens (N, rows, columns)."""
    soft = masks[:, None]
    if method.mask_pooling == "point":
        return F.interpolate(soft, grid, mode="bilinear", align_corners=False)[:, 0]
    # Repeating every pixel makes the cells' borders fall between pixels, where the average needs no fractions.
    fine = soft.repeat_interleave(grid[0], 2).repeat_interleave(grid[1], 3)
    return F.avg_pool2d(fine, (masks.shape[1], masks.shape[2]))[:, 0]
