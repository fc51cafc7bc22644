"""What answers are worth that need no understanding: expected values in closed form, not samples."""

from __future__ import annotations

from collections.abc import Sequence

from risbench.quality.metrics import Overlaps

__all__ = ["guess_fitting_object", "guess_fitting_proposal", "guess_proposal"]


def guess_proposal(overlaps: Overlaps, target: int) -> float:
    """Expected IoU of a proposal drawn evenly from all: their mean IoU with the target, 0 where there is none."""
    ious = overlaps.ious[:, target]
    return float(ious.mean()) if len(ious) else 0.0


def guess_fitting_object(fits: Sequence[int], target: int) -> float:
    """Expected share of right choices when an object is drawn evenly from those that fit the noun phrase.

    Args:
        fits: Columns of the objects that fit the noun phrase.
        target: Column of the object that is meant.
    """
    return 1 / len(fits) if target in fits else 0.0


def guess_fitting_proposal(overlaps: Overlaps, fits: Sequence[int], target: int) -> float:
    """Expected IoU with the target when an object is drawn evenly from those that fit, and its best proposal answered.

    Args:
        overlaps: Every proposal over every object.
        fits: Columns of the objects that fit the noun phrase.
        target: Column of the object that is meant.
    """
    if not fits:
        return 0.0
    return sum(overlaps.at(overlaps.best(column), target).iou for column in fits) / len(fits)
