"""From an image and masks to the encoder's square inputs and token weights, inside the exported graph."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from risengine.method import Method
from risexport.clip.blocks import Layout
from risexport.clip.windows import Boxes, by_window, window_at
from risexport.resample import ResizeKind, resize, resize_weights

__all__ = ["BoxRule", "mask_boxes", "mask_spans", "normalised_planes", "square_views", "token_weights"]

BoxRule: TypeAlias = Literal["tight", "centroid"]


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
    boxes = mask_boxes(masks, method.box_rule)
    planes = normalised_planes(image, method)
    origin = torch.zeros_like(boxes.top[:1])
    whole = Boxes(origin, origin + height, origin, origin + width)
    views = [_resized(planes, torch.ones(1, 1, 1, device=image.device), whole, method)]
    if layout == "dense":
        return torch.cat([*views, _resized(planes, masks.float(), boxes, method)])

    def draw(chosen: Tensor, boxes: Boxes, size: tuple[int, int] | None) -> Tensor:
        if size is None:
            return _resized(planes, masks.index_select(0, chosen).float(), boxes, method)
        window = window_at(boxes, size, masks)
        inside = Boxes(boxes.top - window.top, boxes.rows, boxes.left - window.left, boxes.columns)
        return _resized([window.cut(plane) for plane in planes], window.cut_masks(masks, chosen), inside, method)

    crops, order = by_window(masks, boxes, draw)
    return torch.cat([*views, *crops]).index_select(0, torch.cat([origin, order + 1]))


def mask_boxes(masks: Tensor, rule: BoxRule) -> Boxes:
    """Returns the boxes of masks (N, H, W) bool; see :func:`mask_spans`."""
    occupied = masks.to(torch.uint8)
    return Boxes(*mask_spans(occupied.amax(2).long(), rule), *mask_spans(occupied.amax(1).long(), rule))


def normalised_planes(image: Tensor, method: Method) -> list[Tensor]:
    """Returns the channels (H, W), normalised, as differences from the fill: what is masked out becomes zero."""
    planes = []
    for channel, (mean, std, fill) in enumerate(zip(method.mean, method.std, method.fill, strict=True)):
        planes.append(image[..., channel].float() * (1.0 / (255.0 * std)) - (mean / std + fill))
    return planes


def _resized(planes: list[Tensor], visible: Tensor, boxes: Boxes, method: Method) -> Tensor:
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
