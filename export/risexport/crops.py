"""From an image and masks to the encoder's square inputs and token weights, inside the exported graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from risengine.manifest import Method
from risexport.blocks import Layout
from risexport.resample import ResizeKind, resize, resize_weights

__all__ = ["BoxRule", "mask_spans", "square_views", "token_weights"]

BoxRule: TypeAlias = Literal["tight", "centroid"]

_WINDOWS = (4, 2, 1)
"""Fractions of the image's sides, smallest window first."""


def mask_spans(occupied: Tensor, rule: BoxRule) -> tuple[Tensor, Tensor]:
    """Returns the extent of masks along one axis.

    ``tight`` spans the first to the last occupied position. ``centroid`` is the authors' rule: the mean occupied
    position plus and minus half the number of occupied positions, both ends truncated; for a solid mask it is the tight
    span shifted back by one. A span that would be empty (no mask, or the authors' rule at the first position) has one
    pixel, where the authors' code would fail.

    Args:
        occupied: (N, L) int64, 1 where any pixel of the mask's row or column is set, else 0.
        rule: How the extent is defined.

    Returns:
        First positions (N,) int64 in [0, L) and lengths (N,) int64 of at least 1; a span never leaves the axis.
    """
    size = occupied.shape[1]
    positions = torch.arange(size, device=occupied.device)
    if rule == "tight":
        start = torch.where(occupied > 0, positions, size - 1).amin(1)
        end = (occupied * (positions + 1)).amax(1)
    else:
        # mean -+ count / 2 as the ratio (2 sum -+ count^2) / (2 count), so that truncation meets no rounding error
        count = occupied.sum(1)
        twice_sum = 2 * (occupied * positions).sum(1)
        divisor = 2 * count.clamp(min=1)
        start = (twice_sum - count * count).clamp(min=0) // divisor
        end = (twice_sum + count * count) // divisor
    return start, (end - start).clamp(min=1)


def square_views(image: Tensor, masks: Tensor, method: Method, layout: Layout) -> Tensor:
    """Builds the normalised encoder inputs: the whole image, squashed, then every mask's filled and squashed crop.

    A product with a resize matrix costs the same for a small box as for a large one, and most masks are small. Those
    whose box fits into a quarter or half of the image's sides are therefore taken from windows of that size, in the
    packed layout.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool.
        method: Image size, normalisation, fill, filter and box rule.
        layout: Whether windows are used.

    Returns:
        (1 + N, 3, S, S) float32; item 0 is the image.
    """
    height, width = masks.shape[1:]
    occupied = masks.to(torch.uint8)
    top, rows = mask_spans(occupied.amax(2).long(), method.box_rule)
    left, columns = mask_spans(occupied.amax(1).long(), method.box_rule)
    planes = _planes(image, method)
    origin = torch.zeros_like(top[:1])
    whole = _Boxes(origin, origin + height, origin, origin + width)
    views = [_resized(planes, torch.ones(1, 1, 1, device=image.device), whole, method)]
    if layout == "dense":
        return torch.cat([*views, _resized(planes, masks.float(), _Boxes(top, rows, left, columns), method)])
    waiting = torch.ones_like(top, dtype=torch.bool)
    order, placed = torch.zeros_like(top), torch.ones_like(origin)
    for fraction in _WINDOWS:
        size = (height + fraction - 1) // fraction, (width + fraction - 1) // fraction
        fits = waiting & (rows <= size[0]) & (columns <= size[1])
        chosen = torch.nonzero(fits, as_tuple=True)[0]
        boxes = _Boxes(*(edges.index_select(0, chosen) for edges in (top, rows, left, columns)))
        if fraction == 1:
            views.append(_resized(planes, masks.index_select(0, chosen).float(), boxes, method))
        else:
            views.append(_window_views(planes, masks, chosen, boxes, size, method))
        order = torch.where(fits, placed + fits.long().cumsum(0) - 1, order)
        placed = placed + fits.long().sum()
        waiting = waiting & ~fits
    return torch.cat(views).index_select(0, torch.cat([origin, order]))


@dataclass(frozen=True)
class _Boxes:
    """Boxes as (N,) int64 starts and lengths along both axes."""

    top: Tensor
    rows: Tensor
    left: Tensor
    columns: Tensor


def _planes(image: Tensor, method: Method) -> list[Tensor]:
    """Returns the channels (H, W), normalised, as differences from the fill: what is masked out becomes zero."""
    planes = []
    for channel, (mean, std, fill) in enumerate(zip(method.mean, method.std, method.fill, strict=True)):
        planes.append(image[..., channel].float() * (1.0 / (255.0 * std)) - (mean / std + fill))
    return planes


def _window_views(
    planes: list[Tensor], masks: Tensor, chosen: Tensor, boxes: _Boxes, size: tuple[int, int], method: Method
) -> Tensor:
    """Cuts a window of one size around the boxes of the chosen masks and resizes what lies in the boxes."""
    height, width = masks.shape[1:]
    top, left = boxes.top.clamp(max=height - size[0]), boxes.left.clamp(max=width - size[1])
    pixel_rows = top[:, None] + torch.arange(size[0], device=masks.device)
    pixel_columns = left[:, None] + torch.arange(size[1], device=masks.device)
    pixels = pixel_rows[:, :, None] * width + pixel_columns[:, None]
    visible = masks.flatten().index_select(0, (pixels + chosen[:, None, None] * (height * width)).flatten())
    windows = [plane.flatten().index_select(0, pixels.flatten()).reshape(pixels.shape) for plane in planes]
    inside = _Boxes(boxes.top - top, boxes.rows, boxes.left - left, boxes.columns)
    return _resized(windows, visible.reshape(pixels.shape).float(), inside, method)


def _resized(planes: list[Tensor], visible: Tensor, boxes: _Boxes, method: Method) -> Tensor:
    rows = resize_weights(boxes.top, boxes.rows, method.image_size_px, planes[0].shape[-2], method.resize)
    columns = resize_weights(boxes.left, boxes.columns, method.image_size_px, planes[0].shape[-1], method.resize)
    # One channel at a time: the largest intermediate is (N, H, W) rather than three times that.
    views = [resize(visible * plane, rows, columns) + fill for plane, fill in zip(planes, method.fill, strict=True)]
    return torch.stack(views, dim=1)


def token_weights(masks: Tensor, grid: int, method: Method) -> Tensor:
    """Reduces masks to one weight per token of the squashed image.

    Args:
        masks: (N, H, W) bool.
        grid: Tokens g along each side.
        method: The pooling rule.

    Returns:
        (N, g * g) float32 in [0, 1], row by row; exactly 0 where a token does not meet the mask.
    """
    kind: ResizeKind = "area" if method.mask_pooling == "area" else "bilinear"
    start = torch.zeros(1, dtype=torch.int64, device=masks.device)
    rows, columns = (resize_weights(start, start + size, grid, size, kind)[0] for size in masks.shape[1:])
    return resize(masks.float(), rows, columns).flatten(1)
