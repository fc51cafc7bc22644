"""HybridGL's spatial guidance written plainly, with the faults of its published code where they are asked for.

The engine's strategy ``hybridgl`` has none of them, and keeps nothing from one image to the next. What the faults cost
is measured with this, never with the engine. Geometry and the reading of expressions are the engine's on both sides;
neither computes the paper's map of relevance (GEM), for which the masks' scores stand: see the engine's strategy.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from risengine.bundle import Bundle
from risengine.engine import Engine
from risengine.errors import InputError
from risengine.language.expression import Description, Place, Relation
from risengine.scoring.score import similarity
from risengine.scoring.strategies import Evidence, texts_of
from risengine.text import TextEncoder, parse_expression
from risengine.types import EncodedImage

__all__ = ["FAULTS", "Fault", "PublishedGuidance", "PublishedHybridgl"]

Fault: TypeAlias = Literal["right", "shrinking", "vertical"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_Scores = NDArray[np.float64]
_LEVEL: tuple[Place, ...] = ("left", "right")
_UPRIGHT: tuple[Place, ...] = ("top", "bottom", "front", "back")


class PublishedGuidance:
    """Scores the masks of one image after the other.

    Attributes:
        faults: ``right``: "to the right of" is never taken for a relation. ``shrinking``: an image with fewer masks
            than candidates or references lowers these numbers for all images after it. ``vertical``: places along
            the image's height change nothing.
        candidates: Masks ranked anew, k1.
        references: Masks that a relation's noun may mean, k2.
    """

    def __init__(self, faults: Collection[Fault] = FAULTS) -> None:
        """Starts as if no image had been seen.

        Raises:
            InputError: A fault is unknown.
        """
        for fault in faults:
            if fault not in FAULTS:
                raise InputError(f"fault {fault!r} is unknown; expected some of {', '.join(FAULTS)}.")
        self.faults = frozenset(faults)
        self.candidates, self.references = 3, 6

    def score(self, evidence: Evidence) -> _Scores:
        """Returns (N,), the highest of which is chosen: 0.6 of looks and places, 0.4 of relations (Liu, Li, 2025)."""
        if "shrinking" in self.faults:
            count = len(evidence.features)
            self.candidates, self.references = min(self.candidates, count), min(self.references, count)
        looks = self._looks(evidence)
        relations = [one for one in evidence.expression.description.relations if self._is_seen(one)]
        held = np.zeros(len(looks))
        for relation in relations:
            held += self._held(relation, looks, evidence) / len(relations)
        return 0.6 * looks + 0.4 * held

    def _is_seen(self, relation: Relation) -> bool:
        missed = relation.kind == "right" and "right" in self.faults
        return relation.kind != "between" and not relation.negated and not missed

    def _looks(self, evidence: Evidence) -> _Scores:
        """The paper's score less 0.7 of the other nouns', under a ramp from one side of the image to the other."""
        expression, method, texts = evidence.expression, evidence.method, evidence.texts
        share = np.float32(method.sentence_weight)
        text = share * texts[expression.sentence] + (1 - share) * texts[expression.phrase]
        score = similarity(evidence.features, text, method.similarity).astype(np.float64)
        others = _others(expression.description)
        if others:
            score -= 0.7 * np.mean([evidence.compare(other) for other in others], axis=0).astype(np.float64)
        score = _stretched(score)
        ramped = _LEVEL if "vertical" in self.faults else (*_LEVEL, *_UPRIGHT)
        said = [place for place in expression.description.places if place in ramped]
        if said:
            (x, y), base = evidence.geometry.centre.T, evidence.geometry.base
            towards = {"left": -x, "right": x, "top": -y, "bottom": y, "front": base, "back": -base}
            score = score * _stretched(np.sum([towards[place] for place in said], axis=0))
        return score

    def _held(self, relation: Relation, looks: _Scores, evidence: Evidence) -> _Scores:
        """How well each of the best masks stands in a relation to the best of its references; 0 for the other masks."""
        ranked = np.argsort(-evidence.compare(relation.references[0].phrase), kind="stable")
        related = evidence.geometry.related(relation.kind)
        held = np.zeros(len(looks))
        for mask in np.argsort(-looks, kind="stable")[: self.candidates]:
            for other in ranked[: self.references]:
                if other != mask:
                    held[mask] = max(held[mask], related[mask, other])
        return held


class PublishedHybridgl:
    """Answers with :class:`PublishedGuidance`, on the features of an engine."""

    def __init__(self, engine: Engine, bundle: Bundle, faults: Collection[Fault]) -> None:
        """Takes an engine and the bundle it was loaded from.

        Raises:
            InputError: A fault is unknown.
        """
        self.guidance = PublishedGuidance(faults)
        self._method = engine.method
        self._text = TextEncoder(
            engine.sessions["text_encoder"], bundle.tokenizer_path, bundle.manifest.text.context_length
        )

    def choose(self, encoded: EncodedImage, text: str) -> int:
        """Returns the index of the mask that an expression refers to, of an image with N >= 1."""
        expression = parse_expression(text, self._method)
        strings = texts_of(expression, "hybridgl")
        texts = dict(zip(strings, self._text.encode(strings), strict=True))
        return int(self.guidance.score(Evidence(encoded, texts, expression, self._method)).argmax())


def _others(description: Description) -> list[str]:
    """Every other noun phrase, and every one that must not fit, once."""
    parts = list(description.walk())
    excluded = [text for part in parts for text in part.excluded]
    return list(dict.fromkeys([part.phrase for part in parts[1:]] + excluded))


def _stretched(values: _Scores) -> _Scores:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)
