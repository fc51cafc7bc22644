"""One question to one encoded image: scores, and answers that say why they were chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from risengine.config import StrategyName
from risengine.explanation import ChosenReference, Explanation
from risengine.scoring.confidence import Calibration, read_signs
from risengine.scoring.strategies import STRATEGIES, Evidence, Scores
from risengine.types import EncodedImage, Segmentation

__all__ = ["Question"]


@dataclass(frozen=True, eq=False)
class Question:
    """An expression asked of an image with N >= 1 masks.

    Attributes:
        evidence: The expression and what it is compared with.
        strategy: How to score.
        calibration: The bundle's, for the confidence.
    """

    evidence: Evidence
    strategy: StrategyName
    calibration: Calibration | None

    def score(self) -> Scores:
        """Scores every mask."""
        return STRATEGIES[self.strategy](self.evidence)

    def best(self, scores: Scores, top_k: int) -> list[Segmentation]:
        """Returns the masks that score best, at most ``top_k``, best first; ``timings_ms`` is empty."""
        return _best_answers(self, scores, top_k)


def _best_answers(question: Question, scores: Scores, top_k: int) -> list[Segmentation]:
    evidence, strategy, encoded = question.evidence, question.strategy, question.evidence.encoded
    calibration = question.calibration
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
