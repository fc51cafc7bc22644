"""Resizing as matrix products: every crop, squash and pooling in the graphs is ``rows @ image @ columns.T``.

The weight matrices are built inside the graph from boxes and sizes, so that one graph serves every image size and every
box, and needs no resize operator whose conventions differ between runtimes. Sample positions are ratios of integers and
are kept as whole part and remainder: single precision stays exact far from the origin, where ``float32`` coordinates
would not be.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["ResizeKind", "resize", "resize_weights"]

ResizeKind: TypeAlias = Literal["antialias", "bilinear", "area"]


def resize_weights(
    start: Tensor, length: Tensor, out_size: int, in_size: int, kind: ResizeKind, out_length: Tensor | None = None
) -> Tensor:
    """Builds, for one axis, the matrices that resize the interval ``[start, start + length)`` to ``out_size`` samples.

    Pixel centres lie at half-integers and nothing outside the interval is read, as in ``F.interpolate`` of a crop:
    ``antialias`` is its ``mode="bilinear", antialias=True`` (a triangle filter, widened when shrinking), ``bilinear``
    the same without antialiasing (two taps, clamped at the interval's edge), ``area`` the average over the exact,
    fractional overlap of pixels and cells. Rows sum to one.

    Args:
        start: (B,) int64, first pixel of each interval, in ``[0, in_size)``.
        length: (B,) int64, pixels of each interval, at least 1 and within the axis.
        out_size: Rows of each matrix.
        in_size: Pixels of the axis; may be symbolic during export.
        kind: The filter.
        out_length: (B,) int64 in ``[1, out_size]``: samples the interval is resized to, when these are fewer than
            ``out_size``; the remaining rows are zero, which pads the result on its right or bottom side.

    Returns:
        (B, out_size, in_size) float32, nonnegative.
    """
    samples = torch.arange(out_size, device=start.device)
    pixels = torch.arange(in_size, device=start.device)
    start, length = start[:, None], length[:, None]
    count = torch.full_like(length, out_size) if out_length is None else out_length[:, None]
    if kind == "area":
        edges = torch.arange(out_size + 1, device=start.device)
        whole, part = _divide(length * edges, count)
        # Part of each pixel that lies before each edge; a cell's share of a pixel is a difference of two of them.
        covered = (_offsets(start + whole, pixels) + part[..., None]).clamp(0.0, 1.0)
        weights = (covered[:, 1:] - covered[:, :-1]) * (count / length)[..., None]
    elif kind == "bilinear":
        position = length * (2 * samples + 1) - count  # in units of 1 / (2 * count), of pixel centres
        position = torch.minimum(position.clamp(min=0), 2 * count * (length - 1))
        whole, part = _divide(position, 2 * count)
        weights = (1.0 - (_offsets(start + whole, pixels) + part[..., None]).abs()).clamp(min=0.0)
    else:
        whole, part = _divide(length * (2 * samples + 1), 2 * count)
        distance = (_offsets(start + whole, pixels) + (part - 0.5)[..., None]).abs()
        shrink = (count / length).clamp(max=1.0)
        inside = (pixels >= start) & (pixels < start + length)
        weights = (1.0 - distance * shrink[..., None]).clamp(min=0.0) * inside[:, None].float()
        # A sample lies half a pixel or less from some centre, so that only rows past out_length sum to less than 0.5.
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=0.5)
    if out_length is not None:
        weights = weights * (samples < count)[..., None].float()
    return weights


def resize(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Applies the matrices of both axes.

    Args:
        images: (..., H, W) float32.
        rows: (..., h, H) float32 from :func:`resize_weights`, batch dimensions broadcast.
        columns: (..., w, W) float32, likewise.

    Returns:
        (..., h, w) float32.
    """
    return rows @ (images @ columns.transpose(-1, -2))


def _divide(numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a ratio of nonnegative int64 tensors into whole part (int64) and remainder (float32 in [0, 1))."""
    whole = numerator // denominator
    return whole, (numerator - whole * denominator) / denominator


def _offsets(whole: Tensor, pixels: Tensor) -> Tensor:
    """Returns ``whole - pixel`` as float32 (B, samples, pixels); exact, being small integers."""
    return whole.float()[..., None] - pixels.float()
