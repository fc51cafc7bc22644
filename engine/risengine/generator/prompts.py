"""Prompts for SAM: where the automatic generator asks, and what a caller asks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from risengine.errors import InputError
from risengine.method import ProposalSettings

__all__ = ["Crop", "Prompts", "generator_crops", "point_grid", "read_prompts"]

_FOREGROUND, _CORNER, _OTHER_CORNER, _PADDING = 1, 2, 3, -1  # segment-anything's labels


@dataclass(frozen=True, eq=False)
class Prompts:
    """P prompts of K points each.

    Attributes:
        points: (P, K, 2) float32 xy in pixels.
        labels: (P, K) int64: 1 foreground, 0 background, 2 and 3 a box's corners, -1 padding.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]

    @staticmethod
    def at_points(points: NDArray[np.float32]) -> Prompts:
        """Returns prompts of one foreground point each.

        Args:
            points: (P, 2) float32 xy in pixels.
        """
        return _padded(points[:, None], np.full((len(points), 1), _FOREGROUND))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Prompts:
        return Prompts(self.points[index], self.labels[index])


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of the image that is prompted by itself.

    Attributes:
        box: x0, y0, x1, y1 in pixels, half-open.
        grid: (P, 2) float32 xy as shares of the crop's width and height.
    """

    box: tuple[int, int, int, int]
    grid: NDArray[np.float32]

    @property
    def area_px(self) -> int:
        """Number of pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def generator_crops(settings: ProposalSettings, size: tuple[int, int]) -> list[Crop]:
    """Returns the parts of an image that the automatic generator prompts, the whole image first.

    Args:
        settings: Grids and crops.
        size: (H, W) of the image in pixels; where it is too small for a layer, crops without a pixel are left out.
    """
    height, width = size
    crops = []
    for layer in range(settings.crop_n_layers + 1):
        if settings.point_grids is None:
            grid = point_grid(settings.points_per_side // settings.crop_n_points_downscale_factor**layer)
        else:
            grid = np.array(settings.point_grids[layer], np.float32).reshape(-1, 2)
        count = 2**layer
        overlap = int(settings.crop_overlap_ratio * min(size) * (2 / count)) if layer else 0
        crop_width, crop_height = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for column, row in itertools.product(range(count), repeat=2):
            x0, y0 = column * (crop_width - overlap), row * (crop_height - overlap)
            box = x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)
            if box[0] < box[2] and box[1] < box[3]:
                crops.append(Crop(box, grid))
    return crops


def point_grid(points_per_side: int) -> NDArray[np.float32]:
    """Returns a regular grid of points in the unit square, row by row.

    Returns:
        (points_per_side ** 2, 2) float32, xy in (0, 1), half a cell away from the edges.
    """
    ticks = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(ticks, ticks)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def read_prompts(
    points: ArrayLike | None, labels: ArrayLike | None, boxes: ArrayLike | None, size: tuple[int, int]
) -> Prompts:
    """Checks a caller's prompts.

    Args:
        points: (P, 2) xy in pixels, a prompt of one foreground point each, or (P, K, 2), prompts of K points.
        labels: (P, K) for points of that shape: 1 on the object, 0 off it; 1 when left out.
        boxes: (P, 4) xyxy in pixels; with points, each box belongs to the points of the same row.
        size: (H, W) of the image in pixels.

    Raises:
        InputError: There is no prompt, a shape or a number does not fit, or a point or box lies beyond the image.
    """
    if points is None and labels is not None:
        raise InputError("labels are given without points; expected both. A box needs no label.")
    if points is None and boxes is None:
        raise InputError("there is no prompt; expected points, boxes or both. Leave all three out to propose freely.")
    if points is None:
        corners = _read_boxes(boxes, size)
        return Prompts(corners, _corner_labels(len(corners)))
    placed = _numbers(points, "points")
    if placed.ndim == 2 and placed.shape[1] == 2:
        placed = placed[:, None]
    if placed.ndim != 3 or placed.shape[2] != 2 or placed.shape[1] == 0:
        raise InputError(f"points have shape {placed.shape}; expected (P, 2) or (P, K, 2). Put x and y last.")
    _check_inside(placed, "points", size)
    meant = np.ones(placed.shape[:2]) if labels is None else _numbers(labels, "labels")
    if meant.shape != placed.shape[:2] or not np.isin(meant, (0, 1)).all():
        raise InputError(
            f"labels have shape {meant.shape}; expected {placed.shape[:2]} of 1 (on the object) and 0 (off it). "
            "Give every point one."
        )
    if boxes is None:
        return _padded(placed, meant.astype(np.int64))
    corners = _read_boxes(boxes, size)
    if len(corners) != len(placed):
        raise InputError(
            f"there are {len(corners)} boxes and {len(placed)} prompts of points; expected as many. Ask for them in "
            "two calls where they do not belong together."
        )
    return Prompts(
        np.concatenate([placed, corners], axis=1),
        np.concatenate([meant.astype(np.int64), _corner_labels(len(corners))], axis=1),
    )


def _padded(points: NDArray[np.float32], labels: NDArray[np.int64]) -> Prompts:
    """segment-anything pads a prompt without a box with a point of label -1."""
    padding = np.zeros((len(points), 1, 2), np.float32)
    return Prompts(
        np.concatenate([points, padding], axis=1),
        np.concatenate([labels, np.full((len(labels), 1), _PADDING)], axis=1),
    )


def _read_boxes(boxes: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns the corners of boxes, (P, 2, 2) float32 xy."""
    corners = _numbers(boxes, "boxes")
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise InputError(f"boxes have shape {corners.shape}; expected (P, 4). Give x0, y0, x1, y1 of each.")
    corners = corners.reshape(-1, 2, 2)
    _check_inside(corners, "boxes", size)
    flat = np.flatnonzero((corners[:, 1] <= corners[:, 0]).any(axis=1))
    if len(flat):
        raise InputError(
            f"boxes {flat.tolist()} have no area; expected x0 < x1 and y0 < y1. Convert boxes given as x, y, w, h."
        )
    return corners


def _corner_labels(count: int) -> NDArray[np.int64]:
    return np.tile(np.array([_CORNER, _OTHER_CORNER], np.int64), (count, 1))


def _numbers(values: Any, name: str) -> NDArray[np.float32]:
    try:
        numbers = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} are no array of numbers ({error}). Give every row as many numbers.") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} hold NaN or an infinite number; expected pixels. Leave those rows out.")
    return numbers


def _check_inside(points: NDArray[np.float32], name: str, size: tuple[int, int]) -> None:
    limits = np.array([size[1], size[0]], np.float32)
    beyond = np.flatnonzero(((points < 0) | (points > limits)).any(axis=(1, 2)))
    if len(beyond):
        raise InputError(
            f"{name} {beyond[:20].tolist()} lie beyond the image; expected x in [0, {size[1]}] and y in "
            f"[0, {size[0]}], in pixels. Clip them, or scale them to this image."
        )
