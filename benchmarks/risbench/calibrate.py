"""Fits the confidence of a bundle: ``python -m risbench.calibrate tabletop --refer VALIDATION --split val``.

The set must be one that nothing is tested on. The weights go to ``risengine/bundles/calibrations.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

import risengine.scoring.confidence
from risbench.data.refer import load_refer
from risbench.quality.absence import Observation, absent_phrases, observe
from risengine import load
from risengine.output import write_atomically
from risengine.scoring.confidence import Calibration

__all__ = ["fit", "main"]

_ITERATIONS = 30
_RIDGE = 1e-3


def fit(observations: list[Observation]) -> Calibration:
    """Fits the logistic model to whether answers were right, by Newton's steps with a small ridge."""
    signs = [
        (answer.explanation.signs, item.right)
        for item in observations
        if (answer := item.answer) is not None and answer.explanation is not None
    ]
    rows = np.array([[1, s.looks, s.worst_looks, s.share] for s, _ in signs if s is not None], np.float64)
    right = np.array([r for s, r in signs if s is not None], np.float64)
    weights = _logistic(rows, right)
    return Calibration(*(round(float(weight), 4) for weight in weights))


def _logistic(rows: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.zeros(rows.shape[1])
    for _ in range(_ITERATIONS):
        share = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (right - share) - _RIDGE * weights
        curvature = (rows * (share * (1 - share))[:, None]).T @ rows + _RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, slope)
    return weights


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="risbench.calibrate", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--refer", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    with load(options.bundle) as engine:
        observations = observe(
            engine, load_refer(options.refer, "tabletop"), options.split, absent_phrases(options.refer, 0, 12)
        )
        path = risengine.scoring.confidence.CALIBRATIONS
        stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Calibration]) if path.is_file() else {}
        stored[engine.bundle_id] = fit(observations)
    data = msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n"
    write_atomically(path, lambda file: file.write(data))


if __name__ == "__main__":
    main()
