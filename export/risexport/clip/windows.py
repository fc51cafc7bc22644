"""Windows around masks: a product with a resize matrix costs what it reads, and most masks are small.

Masks are drawn in groups, each from windows of one size, so that few matrix products serve all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Boxes", "Window", "by_window", "window_at"]

_WINDOWS = (4, 2, 1)
"""Fractions of the image's sides, smallest window first."""


@dataclass(frozen=True)
class Boxes:
    """Boxes as (N,) int64 starts and lengths along both axes."""

    top: Tensor
    rows: Tensor
    left: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Window:
    """N windows of one size, h x w, in an image.

    Attributes:
        top: (N,) int64.
        left: (N,) int64.
        rows: (N, h) int64, the image's rows.
        columns: (N, w) int64.
        pixels: (N, h, w) int64, places in the flattened image.
    """

    top: Tensor
    left: Tensor
    rows: Tensor
    columns: Tensor
    pixels: Tensor

    def cut(self, plane: Tensor) -> Tensor:
        """Returns the windows (N, h, w) of a plane (H, W)."""
        return plane.flatten().index_select(0, self.pixels.flatten()).reshape(self.pixels.shape)

    def cut_masks(self, masks: Tensor, chosen: Tensor) -> Tensor:
        """Returns each window (N, h, w) float32 of its own mask, of those chosen by (N,) int64 among (M, H, W) bool."""
        pixels = self.pixels + chosen[:, None, None] * (masks.shape[1] * masks.shape[2])
        return masks.flatten().index_select(0, pixels.flatten()).reshape(pixels.shape).float()


def window_at(boxes: Boxes, size: tuple[int, int], masks: Tensor) -> Window:
    """Puts windows of one size around boxes that fit into them, moved inside the image of the masks (N, H, W)."""
    height, width = masks.shape[1:]
    top, left = boxes.top.clamp(max=height - size[0]), boxes.left.clamp(max=width - size[1])
    rows = top[:, None] + torch.arange(size[0], device=masks.device)
    columns = left[:, None] + torch.arange(size[1], device=masks.device)
    return Window(top, left, rows, columns, rows[:, :, None] * width + columns[:, None])


def by_window(
    masks: Tensor, boxes: Boxes, draw: Callable[[Tensor, Boxes, tuple[int, int] | None], Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Has masks drawn in groups, each with the smallest window that its boxes fit into.

    Args:
        masks: (N, H, W) bool.
        boxes: Those of the masks.
        draw: Called with the indices of a group (n,) int64, its boxes, and the size of its windows, or None for the
            whole image.

    Returns:
        What was drawn, and (N,) int64, where each mask's lies in the concatenation.
    """
    height, width = masks.shape[1:]
    waiting = torch.ones_like(boxes.top, dtype=torch.bool)
    order, placed = torch.zeros_like(boxes.top), torch.zeros_like(boxes.top[:1])
    drawn = []
    for fraction in _WINDOWS:
        size = (height + fraction - 1) // fraction, (width + fraction - 1) // fraction
        fits = waiting & (boxes.rows <= size[0]) & (boxes.columns <= size[1])
        chosen = torch.nonzero(fits, as_tuple=True)[0]
        edges = (boxes.top, boxes.rows, boxes.left, boxes.columns)
        drawn.append(
            draw(chosen, Boxes(*(edge.index_select(0, chosen) for edge in edges)), size if fraction > 1 else None)
        )
        order = torch.where(fits, placed + fits.long().cumsum(0) - 1, order)
        placed = placed + fits.long().sum()
        waiting = waiting & ~fits
    return drawn, order
