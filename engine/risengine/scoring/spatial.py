"""The ``spatial`` strategy: what features say of the nouns, combined softly with where the masks lie.

Every description gets a logit for each mask: its phrase's cosine, sharpened, plus the logarithms of the shares to which
its places, sizes, order, relations and exclusions hold. A relation's share is the expectation over the reference, which
is scored in the same way. SAM proposes some things twice, in parts, or two of them as one: a mask that a better one
covers loses a little, and masks that cover each other are not compared with each other. Nothing is trained; the
constants were set on the validation scenes of ``models/tabletop``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from risengine.language.expression import Description, Relation, Size
from risengine.scoring.geometry import SIZE_EDGE, Geometry

__all__ = ["SHARPNESS", "Part", "describe_masks", "overlaid"]

Array = NDArray[np.float64]

SHARPNESS = 10.0
"""Factor from a cosine to a logit."""
OVERLAID = 0.7
"""Logits that a mask loses when one of higher predicted IoU covers the whole of it, or lies in it as a whole."""
PLACE_EDGE = 0.02
"""Image widths by which one thing must be further left than another to be "the left" one with a share of 0.73."""
LEAST = 0.01
"""Least share to which anything can hold, so that one wrong word does not rule out the answer."""
FIT_EDGE = 2.5
"""Logits below the best fit at which a mask still counts half as one of those that are compared or counted."""
_PAIRED = 5  # likeliest references of "between" whose pairs are tried


@dataclass
class Part:
    """One description against N masks.

    Attributes:
        logits: (N,) sum of all terms.
        terms: By name, (N,) each.
        references: For each relation that holds of a mask, and is not denied, its name and (N, R) int64: the
            reference(s) that speak for mask n.
    """

    logits: Array
    terms: dict[str, Array]
    references: list[tuple[str, NDArray[np.int64]]] = field(default_factory=list)


def describe_masks(description: Description, geometry: Geometry, cosines: Mapping[str, Array]) -> Part:
    """Scores every mask against a description and all that hangs on it.

    Args:
        description: The parsed phrase.
        geometry: The N masks' measures, N >= 1.
        cosines: By phrase, (N,): those of the description, of its references and of what they exclude.

    Returns:
        Its logits, with the terms that add up to them.
    """
    terms = {"looks": SHARPNESS * cosines[description.phrase], **overlaid(geometry)}
    for phrase in description.excluded:
        excluded = _fitting(SHARPNESS * cosines[phrase])
        terms[f"not {phrase}"] = _log(1 - excluded)
    fitting = _fitting(np.sum(list(terms.values()), axis=0))
    part = Part(terms["looks"], terms)
    for relation in description.relations:
        held, chosen = _relate(relation, geometry, cosines, fitting)
        name = relation.name_beside(terms)
        terms[name] = _log(1 - held if relation.negated else held)
        if held.any() and not relation.negated:  # what is not there speaks for no mask
            part.references.append((name, chosen))
    # Superlatives compare what the looks and the relations leave: "the leftmost mug behind the box".
    fitting = _fitting(np.sum(list(terms.values()), axis=0))
    terms.update(_compare(description, geometry, fitting))
    part.logits = np.sum(list(terms.values()), axis=0)
    return part


def overlaid(geometry: Geometry) -> dict[str, Array]:
    """Returns the term of masks that share pixels with a better one, (N,) logits; none where no mask does."""
    better = geometry.quality[None, :] > geometry.quality[:, None]
    shared = (geometry.shared * better).max(axis=1)
    return {"overlaid by a better mask": -OVERLAID * shared} if shared.any() else {}


def _compare(description: Description, geometry: Geometry, fitting: Array) -> dict[str, Array]:
    terms = {}
    rivals = fitting[None, :] * (1 - geometry.shared)  # (N, N): the degree to which mask i is compared with mask j
    sides = tuple(place for place in description.places if place not in ("middle", "corner"))
    if sides:
        terms[" ".join(sides)] = _most(geometry.along(sides), rivals, PLACE_EDGE)
    if "corner" in description.places and not sides:
        x, y = geometry.centre.T
        terms["corner"] = _most(np.abs(x - 0.5) + np.abs(y - _middle(y)), rivals, PLACE_EDGE)
    if "middle" in description.places:
        terms["middle"] = _in_middle(geometry, fitting, rivals)
    for size in description.sizes:
        if size.compared:
            terms[f"{size.kind}, compared"] = _most(geometry.size(size), rivals, SIZE_EDGE)
    if description.ordinal:
        value = geometry.in_row(description.ordinal)
        number = description.ordinal.number
        edge = SIZE_EDGE if isinstance(description.ordinal.side, Size) else PLACE_EDGE
        rank = 1 + _beaten(value, rivals, edge).sum(axis=1)
        wanted = number if number > 0 else 2 + number + rivals.sum(axis=1)
        terms[description.ordinal.words] = np.maximum(-2 * (rank - wanted) ** 2, np.log(LEAST))
    return terms


def _middle(y: Array) -> float:
    return float((y.min() + y.max()) / 2)


def _in_middle(geometry: Geometry, fitting: Array, rivals: Array) -> Array:
    """Among things in a row the median; the distance from the middle of those that fit breaks ties."""
    x = geometry.centre[:, 0]
    behind = _beaten(x, rivals, PLACE_EDGE).sum(axis=1)
    ahead = _beaten(-x, rivals, PLACE_EDGE).sum(axis=1)
    middle = fitting @ geometry.centre / fitting.sum()
    distance = np.hypot(*(geometry.centre - middle).T)
    term: Array = np.maximum(-1.0 * (behind - ahead) ** 2 - 4 * distance, np.log(LEAST))
    return term


def _beaten(value: Array, rivals: Array, edge: float) -> Array:
    """(N, N): the share to which mask j is a rival of mask i and has a higher value."""
    shares: Array = rivals / (1 + np.exp(np.clip((value[:, None] - value[None, :]) / edge, -60, 60)))
    return shares


def _most(value: Array, rivals: Array, edge: float) -> Array:
    """(N,) logarithm of the share to which no rival has a higher value."""
    terms: Array = np.maximum(np.log(np.maximum(1 - _beaten(value, rivals, edge), 1e-12)).sum(axis=1), np.log(LEAST))
    return terms


def _relate(
    relation: Relation, geometry: Geometry, cosines: Mapping[str, Array], fitting: Array
) -> tuple[Array, NDArray[np.int64]]:
    shares = [_share(describe_masks(ref, geometry, cosines).logits) for ref in relation.references]
    if relation.kind == "between":
        return _relate_between(geometry, shares)
    weighted = geometry.related(relation.kind) * shares[0][None, :]
    np.fill_diagonal(weighted, 0)
    return weighted.sum(axis=1), weighted.argmax(axis=1)[:, None]


def _relate_between(geometry: Geometry, shares: list[Array]) -> tuple[Array, NDArray[np.int64]]:
    """The expectation over pairs of the likeliest references; of one plural reference, over pairs of its masks."""
    first, second = shares[0], shares[-1]
    count = len(first)
    held, best = np.zeros(count), np.full(count, -1.0)
    chosen = np.zeros((count, 2), np.int64)
    total = 0.0
    for a in np.argsort(-first)[:_PAIRED]:
        for b in np.argsort(-second)[:_PAIRED]:
            if a == b or (len(shares) == 1 and b < a):
                continue
            weight = float(first[a] * second[b])
            total += weight
            weighted = weight * geometry.between(int(a), int(b))
            held += weighted
            better = weighted > best
            better[[a, b]] = False  # nothing is told from itself
            best[better], chosen[better] = weighted[better], (a, b)
    return held / max(total, 1e-12), chosen


def _share(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    share: Array = weights / weights.sum()
    return share


def _fitting(logits: Array) -> Array:
    """(N,) in [0, 1]: the degree to which a mask is one of those that a phrase may mean; the best fits wholly."""
    fitting = 1 / (1 + np.exp(np.clip(logits.max() - logits - FIT_EDGE, -60, 60) * 1.5))
    relative: Array = fitting / fitting.max()
    return relative


def _log(share: Array) -> Array:
    logarithm: Array = np.log(np.clip(share, LEAST, 1))
    return logarithm
