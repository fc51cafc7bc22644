"""How masks are scored against an expression: four training-free strategies behind one interface.

All are pure functions of the same evidence. ``global_local`` is the paper's; the others use what is parsed too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from risengine.config import StrategyName
from risengine.language.expression import Description
from risengine.method import Method
from risengine.scoring.geometry import Geometry
from risengine.scoring.score import similarity
from risengine.scoring.spatial import SHARPNESS, describe_masks, overlaid
from risengine.text import Expression
from risengine.types import EncodedImage

__all__ = ["STRATEGIES", "Evidence", "Scores", "Strategy", "texts_of"]

CONTRAST = 0.7
"""Share of the other nouns' score that is taken off (TAS)."""
CANDIDATES, REFERENCES = 3, 6
"""Masks that HybridGL ranks anew, and masks that it takes for references: its k1 and k2."""
RELATION_SHARE = 0.4
"""Share of the relation in HybridGL's final score."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a strategy may look at.

    Attributes:
        encoded: The image, with N >= 1 masks.
        texts: (E,) float32 text features by string; those of :func:`texts_of`.
        expression: The expression, parsed.
        method: The method in force.
    """

    encoded: EncodedImage
    texts: Mapping[str, NDArray[np.float32]]
    expression: Expression
    method: Method

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, E), as the bundle compares them."""
        return self.encoded.features

    @property
    def geometry(self) -> Geometry:
        """The masks' measures, taken when a strategy first asks for them."""
        return self.encoded.geometry

    def compare(self, text: str) -> NDArray[np.float32]:
        """Returns the (N,) similarity of every mask to one string."""
        return similarity(self.features, self.texts[text], self.method.similarity)


@dataclass(frozen=True, eq=False)
class Scores:
    """The answer of a strategy.

    Attributes:
        values: (N,) float32, in the unit of the bundle's similarity; the highest is chosen.
        terms: (N,) each, in the same unit; they add up to the values.
        references: By the words of a relation: (N, R) int64, the masks that speak most for each mask.
    """

    values: NDArray[np.float32]
    terms: Mapping[str, NDArray[np.float64]]
    references: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


Strategy = Callable[[Evidence], Scores]


def texts_of(expression: Expression, strategy: StrategyName) -> list[str]:
    """Lists every string that a strategy compares masks with, so that they are encoded in one batch."""
    if strategy == "global_local":
        return list(dict.fromkeys([expression.sentence, expression.phrase]))
    parts = [text for part in expression.description.walk() for text in (part.phrase, *part.excluded)]
    return list(dict.fromkeys([expression.sentence, expression.phrase, *parts]))


def _mixed(evidence: Evidence) -> NDArray[np.float32]:
    """T = r e(sentence) + (1 - r) e(phrase), the graph's features mixed as they are (Yu, Seo, Son 2023)."""
    share, expression = evidence.method.sentence_weight, evidence.expression
    sentence, phrase = evidence.texts[expression.sentence], evidence.texts[expression.phrase]
    text = np.float32(share) * sentence + np.float32(1 - share) * phrase
    return similarity(evidence.features, text, evidence.method.similarity)


def _global_local(evidence: Evidence) -> Scores:
    """The paper's score."""
    values = _mixed(evidence)
    return Scores(values, {"sentence and phrase": values.astype(np.float64)})


def _spatial(evidence: Evidence) -> Scores:
    """:mod:`risengine.scoring.spatial`; the paper's looks where the expression says nothing that needs geometry."""
    description = evidence.expression.description
    if not description.needs_geometry:
        terms = {"sentence and phrase": _mixed(evidence).astype(np.float64)}
        terms.update({name: term / SHARPNESS for name, term in overlaid(evidence.geometry).items()})
        return Scores(np.sum(list(terms.values()), axis=0).astype(np.float32), terms)
    wanted = {text for part in description.walk() for text in (part.phrase, *part.excluded)}
    cosines = {text: evidence.compare(text).astype(np.float64) for text in wanted}
    part = describe_masks(description, evidence.geometry, cosines)
    return Scores(
        (part.logits / SHARPNESS).astype(np.float32),
        {name: term / SHARPNESS for name, term in part.terms.items()},
        dict(part.references),
    )


def _contrast(evidence: Evidence) -> Scores:
    """The paper's score less the mean score of the other nouns (TAS, Suo et al. 2023, without its captions)."""
    terms = {"sentence and phrase": _mixed(evidence).astype(np.float64)}
    others = _other_phrases(evidence.expression.description)
    if others:
        mean = np.mean([evidence.compare(text) for text in others], axis=0)
        terms[f"less {', '.join(others)}"] = -CONTRAST * mean.astype(np.float64)
    return Scores(np.sum(list(terms.values()), axis=0).astype(np.float32), terms)


def _hybridgl(evidence: Evidence) -> Scores:
    """HybridGL's spatial guidance (Liu, Li, CVPR 2025), over whatever features; its encoder is a bundle's ``fusion``.

    Position words multiply the scores, scaled to [0, 1], by a ramp over the image, in all four directions; then the
    three best are ranked anew by the best of six references. No setting changes from one image to the next.

    The paper's position words multiply a map of relevance to the text (GEM, another pass of CLIP). That map is not
    computed: here each mask has one value, its score, and one place, its centroid. The published code's faults are in
    ``risbench.quality.hybridgl``.
    """
    description = evidence.expression.description
    scores = _unit_range(_contrast(evidence).values.astype(np.float64))
    sides = tuple(place for place in description.places if place not in ("middle", "corner"))
    if sides:
        scores = scores * _unit_range(evidence.geometry.along(sides))
    terms = {"contrast and position": (1 - RELATION_SHARE) * scores}
    references = {}
    single = [relation for relation in description.relations if relation.kind != "between" and not relation.negated]
    for relation in single:
        likely = np.argsort(-evidence.compare(relation.references[0].phrase), kind="stable")[:REFERENCES]
        held = evidence.geometry.related(relation.kind)
        np.fill_diagonal(held, 0)
        name = relation.name_beside(terms)
        best = np.zeros(len(scores))
        leading = np.argsort(-scores, kind="stable")[:CANDIDATES]
        best[leading] = held[leading][:, likely].max(axis=1)
        terms[name] = RELATION_SHARE * best / len(single)
        references[name] = likely[held[:, likely].argmax(axis=1)][:, None]
    return Scores(np.sum(list(terms.values()), axis=0).astype(np.float32), terms, references)


def _other_phrases(description: Description) -> list[str]:
    parts = [part.phrase for part in description.walk()][1:]
    return list(dict.fromkeys([*parts, *(text for part in description.walk() for text in part.excluded)]))


def _unit_range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.ones_like(values)


STRATEGIES: Mapping[StrategyName, Strategy] = MappingProxyType(
    {"spatial": _spatial, "global_local": _global_local, "hybridgl": _hybridgl, "contrast": _contrast}
)
"""By name."""
