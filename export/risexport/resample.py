"""Resizing as matrix products: every crop, squash, pooling and blur in the graphs is ``rows @ image @ columns.T``.

The weight matrices are built inside the graph from boxes and sizes, so that one graph serves every image size and every
box, and needs no resize operator whose conventions differ between runtimes. Sample positions are ratios of integers and
are kept as whole part and remainder: single precision stays exact far from the origin, where ``float32`` coordinates
would not be.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["ResizeKind", "blur", "resize", "resize_weights"]

ResizeKind: TypeAlias = Literal["antialias", "bilinear", "area"]

_REACH_PX = 7
_SIGMA_PX = 2.6
"""A 15 x 15 kernel, and the deviation that OpenCV gives one of that size: 0.3 * ((15 - 1) / 2 - 1) + 0.8."""


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


def blur(images: Tensor) -> Tensor:
    """Blurs with a 15 x 15 Gaussian, pixels mirrored about those at the edge, as OpenCV does (but for its rounding).

    Written as products of matrices, not as a convolution: what comes after the first learned operator may be rounded to
    half precision (:mod:`risexport.half.precision`), and a convolution is taken for one.

    Args:
        images: (C, H, W) float32, of any size.

    Returns:
        (C, H, W) float32.
    """
    height, width = images.shape[1:]
    padded = images.index_select(1, _mirrored(images, 1)).index_select(2, _mirrored(images, 2))
    return resize(padded, _gaussian(images, height), _gaussian(images, width))


def _mirrored(images: Tensor, axis: int) -> Tensor:
    """Returns the places along an axis from ``-_REACH_PX`` on, mirrored into the image as often as needed, int64."""
    size = images.shape[axis]
    places = torch.arange(size + 2 * _REACH_PX, device=images.device) - _REACH_PX
    period = (torch.zeros_like(places[:1]) + 2 * (size - 1)).clamp(min=1)
    folded = places.abs() % period
    return torch.minimum(folded, period - folded)


def _gaussian(images: Tensor, size: int) -> Tensor:
    """Returns the band matrix (size, size + 2 * _REACH_PX) float32 of one axis; its rows sum to one."""
    centres = torch.arange(size, device=images.device) + _REACH_PX
    away = (torch.arange(size + 2 * _REACH_PX, device=images.device) - centres[:, None]).float()
    total = sum(math.exp(-((offset / _SIGMA_PX) ** 2) / 2) for offset in range(-_REACH_PX, _REACH_PX + 1))
    return (away * away * (-0.5 / _SIGMA_PX**2)).exp() * (away.abs() <= _REACH_PX).float() * (1 / total)


def _divide(numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a ratio of nonnegative int64 tensors into whole part (int64) and remainder (float32 in [0, 1))."""
    whole = numerator // denominator
    return whole, (numerator - whole * denominator) / denominator


def _offsets(whole: Tensor, pixels: Tensor) -> Tensor:
    """Returns ``whole - pixel`` as float32 (B, samples, pixels); exact, being small integers."""
    return whole.float()[..., None] - pixels.float()
