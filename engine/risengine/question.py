"""One question to one encoded image: scores by a strategy, and answers that say why."""

from __future__ import annotations

import numpy as np

from risengine.confidence import Calibration, read_signs
from risengine.config import StrategyName
from risengine.explanation import ChosenReference, Explanation
from risengine.strategies import STRATEGIES, Evidence, Scores
from risengine.types import EncodedImage, Segmentation

__all__ = ["answer_question"]


def answer_question(
    evidence: Evidence, strategy: StrategyName, encoded: EncodedImage, calibration: Calibration | None, top_k: int
) -> list[Segmentation]:
    """Ranks the masks of an image, N >= 1.

    Args:
        evidence: The question and the features.
        strategy: How to score.
        encoded: The image that ``evidence`` was taken from.
        calibration: The bundle's, for the confidence.
        top_k: Most answers.

    Returns:
        Best first; ``timings_ms`` is empty.
    """
    scores = STRATEGIES[strategy](evidence)
    order = np.argsort(-scores.values, kind="stable")
    signs = read_signs(evidence, scores) if strategy == "spatial" else None
    sure = calibration.confidence(signs) if calibration is not None and signs is not None else None
    expression, proposals = evidence.expression, encoded.proposals
    answers = []
    for place, row in enumerate(order[:top_k]):
        index = int(row)
        following = order[place + 1] if place + 1 < len(order) else None
        margin = None if following is None else float(scores.values[index] - scores.values[following])
        why = Explanation(
            strategy,
            expression.description,
            {name: float(term[index]) for name, term in scores.terms.items()},
            _references(scores, index, encoded),
            margin,
            sure,
            signs,
        )
        answers.append(
            Segmentation(
                mask=proposals.mask(index),
                box=proposals.boxes[index].copy(),
                score=float(scores.values[index]),
                index=index,
                text=expression.text,
                phrase=expression.phrase,
                timings_ms={},
                image=encoded.image,
                explanation=why,
            )
        )
    return answers


def _references(scores: Scores, index: int, encoded: EncodedImage) -> tuple[ChosenReference, ...]:
    proposals = encoded.proposals
    return tuple(
        ChosenReference(words, int(mask), proposals.mask(int(mask)), proposals.boxes[mask].copy())
        for words, rows in scores.references.items()
        for mask in rows[index]
    )
