"""Why a mask was chosen, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from risengine.language.expression import Description

__all__ = ["ChosenReference", "Explanation", "Signs"]


@dataclass(frozen=True)
class Signs:
    """What tells a right answer from a wrong one, and a present object from an absent one.

    Attributes:
        looks: Cosine of the best mask and the target's phrase.
        worst_looks: The lowest of the best cosines of all phrases: a reference that is not there counts too.
        share: Softmax share of the best mask among all, in (0, 1].
    """

    looks: float
    worst_looks: float
    share: float


@dataclass(frozen=True, eq=False)
class ChosenReference:
    """An object that speaks for the answer.

    Attributes:
        words: The relation and its reference, as they were read.
        index: Position of its mask among the image's proposals.
        mask: (H, W) bool.
        box: (4,) float32, half-open xyxy in pixels.
    """

    words: str
    index: int
    mask: NDArray[np.bool_] = field(repr=False)
    box: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a mask got its score.

    Attributes:
        strategy: Name of the strategy.
        description: What was read in the expression; its words that were not understood are in ``unread``.
        terms: What adds up to the score.
        references: The objects that the relations were measured from, for this mask.
        margin: Score less the next one's in the ranking; None where nothing follows.
        confidence: Calibrated probability in [0, 1] that the best answer is the object meant; None where
            the bundle has no calibration.
        signs: What the confidence is computed from; of ``spatial`` only.
    """

    strategy: str
    description: Description
    terms: dict[str, float]
    references: tuple[ChosenReference, ...]
    margin: float | None
    confidence: float | None
    signs: Signs | None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON-ready values, without the masks."""
        return {
            "strategy": self.strategy,
            "parse": self.description.to_dict(),
            "terms": self.terms,
            "references": [
                {"words": item.words, "index": item.index, "box_xyxy": [float(value) for value in item.box]}
                for item in self.references
            ],
            "margin": self.margin,
            "confidence": self.confidence,
        }
