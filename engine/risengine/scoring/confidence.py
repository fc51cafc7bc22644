"""How sure an answer is: a logistic model of three figures, fitted per bundle on its validation scenes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from risengine.explanation import Signs
from risengine.scoring.spatial import SHARPNESS
from risengine.scoring.strategies import Evidence, Scores

__all__ = ["CALIBRATIONS", "Calibration", "calibration_of", "read_signs"]

CALIBRATIONS = Path(__file__).parents[1] / "bundles" / "calibrations.json"
"""Weights by bundle id; ``python -m risbench.calibrate`` writes it."""


@dataclass(frozen=True)
class Calibration:
    """Weights of the logistic model for one bundle and the strategy ``spatial``."""

    bias: float
    looks: float
    worst_looks: float
    share: float

    def confidence(self, signs: Signs) -> float:
        """Returns the probability in [0, 1] that the best mask is the object meant."""
        logit = self.bias + self.looks * signs.looks + self.worst_looks * signs.worst_looks + self.share * signs.share
        return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))


def read_signs(evidence: Evidence, scores: Scores) -> Signs:
    """Returns the signs of one question's answer by ``spatial``."""
    best = int(scores.values.argmax())
    logits = SHARPNESS * (scores.values.astype(np.float64) - float(scores.values[best]))
    parts = list(evidence.expression.description.walk(denied=False))  # what is not to be there need not look like it
    looks = float(evidence.compare(parts[0].phrase)[best])
    others = [float(evidence.compare(part.phrase).max()) for part in parts[1:]]
    return Signs(looks, min([looks, *others]), float(1 / np.exp(logits).sum()))


@functools.lru_cache(maxsize=8)
def calibration_of(bundle_id: str) -> Calibration | None:
    """Returns the calibration that comes with risengine for a bundle, by its id; None where there is none."""
    if not CALIBRATIONS.is_file():
        return None
    return msgspec.json.decode(CALIBRATIONS.read_bytes(), type=dict[str, Calibration]).get(bundle_id)
