"""Image and masks to what CLIP reads: the squashed image, a crop of every mask, and token weights.

The presets differ only in the values of :class:`risengine.method.Method`.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from risengine.method import Method

__all__ = ["crop_masks", "mask_box", "normalise", "squash", "token_weights"]


def normalise(image: NDArray[np.uint8], method: Method, device: torch.device) -> Tensor:
    """Scales an image to [0, 1] and normalises it per channel.

    Args:
        image: (H, W, 3) uint8 RGB.
        method: Gives mean and standard deviation.
        device: Where the result is made.

    Returns:
        (1, 3, H, W) float32.
    """
    pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255.0
    return (pixels - _per_channel(method.mean, device)) / _per_channel(method.std, device)


def squash(images: Tensor, method: Method) -> Tensor:
    """Resizes to CLIP's square input without keeping the aspect.

    Args:
        images: (B, 3, h, w) float32.
        method: Gives the side and the filter.

    Returns:
        (B, 3, S, S) float32.
    """
    side = method.image_size_px
    antialias = method.resize == "antialias"
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=antialias)


def crop_masks(image: Tensor, masks: Tensor, method: Method) -> Tensor:
    """Fills what lies outside each mask, cuts the mask's box out and squashes it.

    Args:
        image: (1, 3, H, W) float32, normalised.
        masks: (N, H, W) bool, at least one, none empty.
        method: Gives fill value, box rule, side and filter.

    Returns:
        (N, 3, S, S) float32.
    """
    fill = _per_channel(method.fill, image.device)
    crops = []
    for mask in masks:
        left, top, right, bottom = mask_box(mask, method)
        window = (..., slice(top, bottom), slice(left, right))
        crops.append(squash(torch.where(mask[window], image[window], fill), method))
    return torch.cat(crops)


def mask_box(mask: Tensor, method: Method) -> tuple[int, int, int, int]:
    """Returns the box that is cropped for a mask, half-open xyxy in pixels.

    ``tight`` encloses the mask. ``centroid`` is the box of the authors' proposal network: on each axis the mean
    position of the occupied rows or columns plus and minus half their number, truncated. For a solid mask that is the
    tight box shifted by one pixel towards the origin. Where truncation leaves no pixel at all, one is kept.

    Args:
        mask: (H, W) bool, not empty.
        method: Gives the box rule.
    """
    low, high = [], []
    for axis in (0, 1):  # x from the columns, y from the rows
        occupied = mask.any(axis).nonzero().flatten()
        if method.box_rule == "tight":
            low.append(int(occupied[0]))
            high.append(int(occupied[-1]) + 1)
        else:
            centre, half = Fraction(int(occupied.sum()), len(occupied)), Fraction(len(occupied), 2)
            low.append(math.trunc(centre - half))
            high.append(max(math.trunc(centre + half), low[-1] + 1))
    return low[0], low[1], high[0], high[1]


def token_weights(masks: Tensor, grid: tuple[int, int], method: Method) -> Tensor:
    """Reduces masks to the soft weight of every image token.

    Args:
        masks: (N, H, W) bool.
        grid: Rows and columns of the token grid.
        method: Gives the pooling: ``area`` average of each cell, fractions of pixels included, or ``point``, the
            bilinear sample at the cell's centre, which small objects can miss.

    Returns:
        (N, rows * columns) float32 in [0, 1].
    """
    soft = masks.float()
    if method.mask_pooling == "point":
        return F.interpolate(soft[:, None], grid, mode="bilinear", align_corners=False).flatten(1)
    rows = _cell_averages(soft.shape[1], grid[0]).to(soft)
    columns = _cell_averages(soft.shape[2], grid[1]).to(soft)
    return (rows @ soft @ columns.T).flatten(1)


def _cell_averages(length: int, cells: int) -> Tensor:
    """(cells, length) float64: the share of every pixel in every cell; rows sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * length / cells
    pixels = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0.0) * cells / length


def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, 3, 1, 1)
