"""Where masks lie, measured once an image from their run lengths, and how well pairs of them stand in a relation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from risengine.language.expression import COMPARISONS, Ordinal, Place, RelationKind, Size
from risengine.masks import unpack_runs
from risengine.scoring.overlap import shared_shares
from risengine.types import Proposals

__all__ = ["SIZE_EDGE", "Geometry", "measure_geometry"]

Array = NDArray[np.float64]

SIZE_EDGE = 0.06
"""Difference in the logarithm of extents over which one thing gradually comes to be bigger than another."""
EDGE = 0.02
"""Image widths over which one thing gradually comes to lie left of, or behind, another."""
CONE = 1.06
"""Tangent of the angle off a direction at which a relation holds with a share of exp(-0.5)."""
FORESHORTENING = 1.2
"""How much longer a step in depth is than it looks, against one aside: a camera looks down at a table at a slant."""
REACH = 0.5
"""Gap, in mean extents of both, at which "next to" holds with a share of exp(-1)."""
FADE = 1.5
"""Image widths over which a directed relation fades: of two things left of the box, the nearer is meant."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Measures of N masks in image widths, x to the right and y down.

    Attributes:
        centre: (N, 2) xy of the mask's centroid.
        base: (N,) y of the lower edge: what stands on the same ground nearer to the camera has a lower one.
        box: (N, 4) xyxy, half-open.
        area: (N,) in squared image widths.
        shared: (N, N) in [0, 1], the share of the smaller mask of a pair that both cover; 1 on the diagonal.
        quality: (N,) predicted IoU of the masks.
    """

    centre: Array
    base: Array
    box: Array
    area: Array
    shared: Array
    quality: Array

    @property
    def extent(self) -> Array:
        """(N, 2) width and height of the boxes."""
        extent: Array = self.box[:, 2:] - self.box[:, :2]
        return extent

    def along(self, places: tuple[Place, ...]) -> Array:
        """Returns (N,), higher for what is more at one place, or at two that are said together ("bottom right")."""
        x, y = self.centre.T
        values = {"left": -x, "right": x, "top": -y, "bottom": y, "front": self.base, "back": -self.base}
        total: Array = np.zeros(len(x))
        for place in places:
            total += values.get(place, 0.0)
        return total

    def in_row(self, ordinal: Ordinal) -> Array:
        """Returns (N,), higher for what comes first when things are counted from a side, or from the biggest."""
        if isinstance(ordinal.side, Size):
            return self.size(ordinal.side)
        return self.along(("left",) if ordinal.side in ("middle", "corner") else (ordinal.side,))

    def size(self, size: Size) -> Array:
        """Returns (N,), the logarithm of what a size word compares; higher fits better."""
        width, height = self.extent.T
        measure = {"big": np.sqrt(self.area), "small": np.sqrt(self.area), "tall": height, "short": height}
        value: Array = np.log(np.maximum(measure.get(size.kind, width), 1e-6))
        sign = -1.0 if size.kind in ("small", "short", "narrow") else 1.0
        signed: Array = sign * value
        return signed

    def related(self, kind: RelationKind) -> Array:
        """Returns (N, N) in [0, 1]: how well mask i (row) stands in a relation to mask j (column)."""
        if kind in ("left", "right", "front", "behind", "above", "below"):
            return self._directed(kind)
        if kind in ("inside", "on", "with"):
            return self._contact(kind)
        if kind in COMPARISONS:
            extent = self.size(Size(COMPARISONS[kind], compared=True))
            return _sigmoid((extent[:, None] - extent[None, :]) / SIZE_EDGE)
        near: Array = np.exp(-self._gap() / REACH)
        far: Array = 1 - near
        return near if kind == "next" else far

    def between(self, a: int, b: int) -> Array:
        """Returns (N,) in [0, 1]: how well each mask lies between masks a and b."""
        feet = np.stack([self.centre[:, 0], FORESHORTENING * self.centre[:, 1]], axis=1)
        line = feet[b] - feet[a]
        length = max(float(np.hypot(*line)), 1e-6)
        offset = feet - feet[a]
        share = offset @ line / length**2
        aside = np.abs(offset @ np.array([-line[1], line[0]])) / length**2
        held: Array = np.exp(-0.5 * (aside / 0.35) ** 2) * _sigmoid((share - 0.05) / 0.08)
        held = held * _sigmoid((0.95 - share) / 0.08)
        held[[a, b]] = 0
        return held

    def _directed(self, kind: RelationKind) -> Array:
        x, y = self.centre.T
        depth = y if kind in ("above", "below") else self.base
        aside = x[:, None] - x[None, :]
        # Feet are compared for depth, but a thing hidden behind another shows its top: both are heard.
        down = FORESHORTENING * (depth[:, None] - depth[None, :] + y[:, None] - y[None, :]) / 2
        toward, across = {
            "left": (-aside, down),
            "right": (aside, down),
            "front": (down, aside),
            "below": (down, aside),
            "behind": (-down, aside),
            "above": (-down, aside),
        }[kind]
        slope = np.abs(across) / np.maximum(toward, EDGE)
        distance = np.hypot(aside, down)
        held: Array = _sigmoid(toward / EDGE) * np.exp(-0.5 * (slope / CONE) ** 2 - distance / FADE)
        return held

    def _contact(self, kind: RelationKind) -> Array:
        low = np.maximum(self.box[:, None, :2], self.box[None, :, :2])
        high = np.minimum(self.box[:, None, 2:], self.box[None, :, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=2)
        within = common / np.maximum(np.prod(self.extent, axis=1), 1e-9)[:, None]
        near = np.exp(-self._gap() / REACH)
        if kind == "inside":
            held: Array = 0.9 * within + 0.1 * near
        elif kind == "with":
            held = 0.6 * within.T + 0.4 * near
        else:
            held = self._directed("above") * near
        return held

    def _gap(self) -> Array:
        """(N, N): distance of the boxes in mean extents of both, plus a little for the centroids' own distance."""
        low = np.maximum(self.box[:, None, :2], self.box[None, :, :2])
        high = np.minimum(self.box[:, None, 2:], self.box[None, :, 2:])
        apart = np.maximum(low - high, 0)
        size = np.sqrt(self.area)
        scale = np.maximum((size[:, None] + size[None, :]) / 2, 1e-6)
        centres = self.centre[:, None] - self.centre[None, :]
        gap: Array = np.hypot(apart[..., 0], FORESHORTENING * apart[..., 1]) / scale
        gap = gap + 0.2 * np.hypot(centres[..., 0], FORESHORTENING * centres[..., 1]) / scale
        return gap


def measure_geometry(proposals: Proposals) -> Geometry:
    """Measures masks from their run lengths, without drawing them. An empty mask is a point at the origin."""
    height, width = proposals.size
    centres, areas = np.zeros((len(proposals), 2)), np.zeros(len(proposals))
    edges = [_edges(counts) for counts in proposals.counts]
    for index, own in enumerate(edges):
        if not len(own):
            continue
        column, row = np.divmod(own, height)
        # Sums of the columns and of the places of all pixels before an edge; a place is column * height + row.
        columns = height * (column * (column - 1) // 2) + column * row
        rows = own * (own - 1) // 2 - height * columns
        areas[index] = area = int((own[1::2] - own[::2]).sum())
        centres[index] = [(int((sums[1::2] - sums[::2]).sum()) + area / 2) / area for sums in (columns, rows)]
    box = proposals.boxes.astype(np.float64) / width
    shared = shared_shares(edges, box, height * width)
    return Geometry(centres / width, box[:, 3], box, areas / width**2, shared, proposals.scores.astype(np.float64))


def _edges(counts: str) -> NDArray[np.int64]:
    """(2 K,): the first pixel and the one past the last of the mask's K runs, in turn."""
    edges = np.cumsum(unpack_runs(counts))
    edges = edges[: len(edges) // 2 * 2].reshape(-1, 2)
    runs: NDArray[np.int64] = edges[edges[:, 1] > edges[:, 0]].ravel()
    return runs


def _sigmoid(value: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(value, -60, 60)))
    return result
