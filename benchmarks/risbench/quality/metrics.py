"""Mask IoU and what is reported of it: mean IoU, overall IoU, precision, oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISION_AT", "Overlap", "Overlaps", "Summary", "mask_overlaps", "summarise"]

PRECISION_AT = (0.5, 0.7, 0.9)
"""IoU thresholds at which precision is reported."""


@dataclass(frozen=True)
class Overlap:
    """Two masks laid over each other: pixels in both and pixels in either."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union in [0, 1]; 0 for two empty masks."""
        return self.intersection / self.union if self.union else 0.0


@dataclass(frozen=True)
class Overlaps:
    """Every proposal of an image laid over every object in it.

    Attributes:
        intersections: (N, G) int64, pixels in both.
        unions: (N, G) int64, pixels in either.
        areas: (G,) int64, pixels of each object.
    """

    intersections: NDArray[np.int64]
    unions: NDArray[np.int64]
    areas: NDArray[np.int64]

    @property
    def ious(self) -> NDArray[np.float64]:
        """(N, G) float64 in [0, 1]."""
        return self.intersections / np.maximum(self.unions, 1)

    def at(self, proposal: int | None, target: int) -> Overlap:
        """Returns the overlap of a proposal and an object; without a proposal nothing is covered."""
        if proposal is None:
            return Overlap(0, int(self.areas[target]))
        return Overlap(int(self.intersections[proposal, target]), int(self.unions[proposal, target]))

    def best(self, target: int) -> int | None:
        """Returns the proposal with the highest IoU with an object; None where nothing is proposed."""
        return int(self.ious[:, target].argmax()) if len(self.unions) else None


def mask_overlaps(proposals: NDArray[np.bool_], targets: NDArray[np.bool_]) -> Overlaps:
    """Counts common pixels of all pairs.

    Args:
        proposals: (N, H, W) bool.
        targets: (G, H, W) bool.
    """
    flat = proposals.reshape(len(proposals), targets[0].size)
    intersections = np.stack([np.count_nonzero(flat & target.ravel(), axis=1) for target in targets], axis=1)
    areas = np.count_nonzero(targets, axis=(1, 2)).astype(np.int64)
    unions = np.count_nonzero(flat, axis=1)[:, None] + areas - intersections
    return Overlaps(intersections.astype(np.int64), unions.astype(np.int64), areas)


@dataclass(frozen=True)
class Summary:
    """Figures over a set of answers, all in [0, 1].

    Attributes:
        count: Number of answers.
        miou: Mean IoU.
        oiou: Sum of intersections over sum of unions.
        precision: Share of answers with at least the IoU of each of :data:`PRECISION_AT`.
    """

    count: int
    miou: float
    oiou: float
    precision: dict[str, float]


def summarise(answers: Sequence[Overlap]) -> Summary:
    """Summarises answers, at least one.

    An answer that could not be given, because nothing was proposed, belongs in as an overlap of 0: the authors' code
    leaves it out, which flatters a generator that proposes little.
    """
    ious = np.array([answer.iou for answer in answers])
    union = sum(answer.union for answer in answers)
    return Summary(
        count=len(answers),
        miou=float(ious.mean()),
        oiou=sum(answer.intersection for answer in answers) / union if union else 0.0,
        precision={f"{threshold:g}": float((ious >= threshold).mean()) for threshold in PRECISION_AT},
    )
