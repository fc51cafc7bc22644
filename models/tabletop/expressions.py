"""Referring expressions from a scene's facts: each names exactly one object, with a margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from tabletop.facts import Fact
from tabletop.vocabulary import ANY_NOUNS, COLOUR_WORDS, HELD_OUT_PAIRS, NOUNS, SIZE_WORDS, SIZES, nouns_of

Kind: TypeAlias = Literal["attribute", "place", "relation"]

SIDE_MARGIN = 0.07  # image widths
DEPTH_MARGIN_M = 0.07
LATERAL_LIMIT = 0.14  # image widths within which one object is "behind" another
SIDE_SLOPE_M = 2.0  # metres in depth for each image width aside beyond which "left of" would be "behind"
OFF_CENTRE = 0.06  # image widths from the middle line before a thing is "on the left" or "on the right"
SIZE_RATIO = 1.15  # of apparent extents, before a size word tells two objects apart
NEXT_TO_M = 0.07  # gap between footprints
NOT_NEXT_TO_M = 0.13


@dataclass(frozen=True)
class Words:
    """A noun phrase without its article, and the attributes it admits; None admits all."""

    text: str
    classes: tuple[str, ...] | None
    colour: str | None
    size: str | None

    def fits(self, facts: list[Fact]) -> list[int]:
        """Lists the objects that the words alone admit, by their index in the scene."""
        return [
            fact.index
            for fact in facts
            if (self.classes is None or fact.class_name in self.classes)
            and self.colour in (None, fact.colour)
            and self.size in (None, fact.size)
        ]


@dataclass(frozen=True)
class Expression:
    """A referring expression.

    Attributes:
        text: The expression.
        phrase: Its target noun phrase, as a parser should find it.
        kind: What singles the target out.
        target: Index of the object meant.
        fits: Indexes of the objects that the noun phrase's class, colour and size admit, the target included.
        spec: For attribute expressions the attributes that the whole expression asks for.
    """

    text: str
    phrase: str
    kind: Kind
    target: int
    fits: tuple[int, ...]
    spec: dict[str, Any] | None = None


def make_expressions(
    facts: list[Fact], counts: dict[Kind, int], rng: np.random.Generator, held_out_only: bool = False
) -> list[Expression]:
    """Writes unambiguous expressions about a scene.

    Args:
        facts: The scene's facts.
        counts: Most expressions of each kind.
        rng: Random source.
        held_out_only: Whether every target must be of a held-out (colour, class) pair.

    Returns:
        Different expressions, grouped by kind.
    """
    targets = [
        fact
        for fact in facts
        if fact.is_target and (not held_out_only or (fact.colour, fact.class_name) in HELD_OUT_PAIRS)
    ]
    makers: dict[Kind, Callable[[Fact, list[Fact], np.random.Generator], Expression | None]] = {
        "attribute": _attribute,
        "place": _place,
        "relation": _relation,
    }
    made: dict[str, Expression] = {}
    for kind, wanted in counts.items():
        found: dict[str, Expression] = {}
        for attempt in range(20 * wanted if targets else 0):
            if len(found) == wanted:
                break
            expression = makers[kind](targets[attempt % len(targets)], facts, rng)
            if expression is not None and expression.text not in made:
                found.setdefault(expression.text, expression)
        made.update(found)
    return list(made.values())


def _pick(rng: np.random.Generator, options: tuple[str, ...], first_share: float = 0.6) -> str:
    """Draws a word, the usual one (which stands first) more often."""
    if len(options) == 1 or rng.random() < first_share:
        return options[0]
    return str(options[1 + rng.integers(len(options) - 1)])


def _words(fact: Fact, parts: str, rng: np.random.Generator) -> Words:
    """Describes an object by some of its attributes: "s" size, "c" colour, "n" noun (any noun where it is left out)."""
    size = fact.size if "s" in parts else None
    colour = fact.colour if "c" in parts else None
    if "n" in parts:
        noun = _pick(rng, nouns_of(fact.class_name), 0.7)
        classes: tuple[str, ...] | None = NOUNS[noun]
    else:
        noun, classes = str(rng.choice(ANY_NOUNS)), None
    adjectives = [
        *([_pick(rng, SIZE_WORDS[size])] if size else []),
        *([_pick(rng, COLOUR_WORDS[colour], 0.8)] if colour else []),
    ]
    return Words(" ".join([*adjectives, noun]), classes, colour, size)


def _draw_words(fact: Fact, facts: list[Fact], rng: np.random.Generator, options: dict[str, float]) -> Words:
    """Draws a description; a size word only where it clearly rules out another object that the rest admits."""
    shares = np.array(list(options.values()))
    parts = str(rng.choice(list(options), p=shares / shares.sum()))
    words = _words(fact, parts, rng)
    if words.size is not None and not size_is_clear(fact, words, facts):
        words = _words(fact, parts.replace("s", ""), rng)
    return words


def size_is_clear(fact: Fact, words: Words, facts: list[Fact]) -> bool:
    """Tells whether a size word helps, and agrees by `SIZE_RATIO` with how large the objects look in the image.

    Args:
        fact: The object that the words describe.
        words: Its description with a size word.
        facts: All objects in sight.
    """
    rest = replace(words, size=None).fits(facts)
    others = [other for other in facts if other.index in rest and other.size != fact.size]
    order = list(SIZES)
    for other in others:
        small, large = sorted((fact, other), key=lambda f: order.index(f.size))
        if large.extent < SIZE_RATIO * small.extent:
            return False
    return bool(others)


def _attribute(fact: Fact, facts: list[Fact], rng: np.random.Generator) -> Expression | None:
    # Most size words are dropped again, for want of a clear contrast.
    options = {"cn": 0.14, "scn": 0.4, "n": 0.08, "sn": 0.22, "c": 0.06, "sc": 0.1}
    words = _draw_words(fact, facts, rng, options)
    if words.fits(facts) != [fact.index]:
        return None
    classes = list(words.classes) if words.classes is not None else None
    spec = {"classes": classes, "colour": words.colour, "size": words.size}
    if words.colour is not None and rng.random() < 0.08:
        bare = Words(" ".join(w for w in words.text.split() if w not in COLOUR_WORDS[words.colour]), words.classes,
                     None, words.size)  # fmt: skip
        phrase = f"the {bare.text}"
        text = f"{phrase} that is {_pick(rng, COLOUR_WORDS[words.colour], 0.8)}"
        return Expression(text, phrase, "attribute", fact.index, tuple(bare.fits(facts)), spec)
    article = _pick(rng, ("the ", "", "a ", "that "), 0.7)
    if article == "a " and words.text[0] in "aeiou":
        article = "an "
    text = article + words.text
    return Expression(text, text, "attribute", fact.index, (fact.index,), spec)


_PLACES: dict[str, tuple[str, ...]] = {
    "left": ("the leftmost {}", "the {} on the far left", "the {} furthest to the left", "the {} on the left"),
    "right": ("the rightmost {}", "the {} on the far right", "the {} furthest to the right", "the {} on the right"),
    "back": ("the {} at the back", "the farthest {}", "the rearmost {}", "the {} farthest away", "the back {}"),
    "front": ("the {} at the front", "the closest {}", "the nearest {}", "the frontmost {}", "the front {}"),
    "middle": ("the {} in the middle", "the middle {}"),
}


def _place(fact: Fact, facts: list[Fact], rng: np.random.Generator) -> Expression | None:
    words = _draw_words(fact, facts, rng, {"n": 0.45, "cn": 0.2, "c": 0.2, "sn": 0.05, "": 0.1})
    fits = words.fits(facts)
    others = [f for f in facts if f.index in fits and f.index != fact.index]
    if not others:
        return None
    holds = {
        "left": all(fact.x < f.x - SIDE_MARGIN for f in others),
        "right": all(fact.x > f.x + SIDE_MARGIN for f in others),
        "back": all(fact.depth_m > f.depth_m + DEPTH_MARGIN_M for f in others),
        "front": all(fact.depth_m < f.depth_m - DEPTH_MARGIN_M for f in others),
        "middle": len(others) == 2
        and min(f.x for f in others) + SIDE_MARGIN < fact.x < max(f.x for f in others) - SIDE_MARGIN,
    }
    places = [place for place, true in holds.items() if true]
    if not places:
        return None
    place = str(rng.choice(places))
    forms = _PLACES[place]
    if (place == "left" and fact.x > 0.5 - OFF_CENTRE) or (place == "right" and fact.x < 0.5 + OFF_CENTRE):
        forms = tuple(form for form in forms if " on the " not in form)
    text = _pick(rng, forms, 0.35).format(words.text)
    front, _, rear = text.partition(words.text)
    phrase = text if not rear else front + words.text
    return Expression(text, phrase, "place", fact.index, tuple(fits))


_RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "behind": ("behind",),
    "front": ("in front of",),
    "next": ("next to", "beside", "near", "by"),
}


def _relation(fact: Fact, facts: list[Fact], rng: np.random.Generator) -> Expression | None:
    words = _draw_words(fact, facts, rng, {"n": 0.45, "cn": 0.4, "c": 0.1, "sn": 0.05})
    fits = words.fits(facts)
    others = [f for f in facts if f.index in fits and f.index != fact.index]
    if not others and rng.random() < 0.6:
        return None  # mostly the relation should be needed
    candidates = [f for f in facts if f.is_target and f.index not in fits]
    if not candidates:
        return None
    reference = candidates[rng.integers(len(candidates))]
    reference_words = _draw_words(reference, facts, rng, {"cn": 0.6, "n": 0.4})
    if reference_words.fits(facts) != [reference.index]:
        return None
    relations = [
        name
        for name in _RELATIONS
        if _holds(name, fact, reference) is True and all(_holds(name, f, reference) is False for f in others)
    ]
    if not relations:
        return None
    phrase = f"the {words.text}"
    text = f"{phrase} {_pick(rng, _RELATIONS[str(rng.choice(relations))], 0.5)} the {reference_words.text}"
    return Expression(text, phrase, "relation", fact.index, tuple(fits))


def _holds(relation: str, fact: Fact, reference: Fact) -> bool | None:
    """Whether a relation clearly holds (True), clearly does not (False), or might be argued over (None)."""
    aside = fact.x - reference.x
    beyond = fact.depth_m - reference.depth_m
    if relation == "next":
        distance = float(np.hypot(*np.subtract(fact.ground_m, reference.ground_m)))
        gap = distance - fact.radius_m - reference.radius_m
        return True if gap < NEXT_TO_M else False if gap > NOT_NEXT_TO_M else None
    if relation in ("left", "right"):
        toward = -aside if relation == "left" else aside
        if toward > SIDE_MARGIN and abs(beyond) < SIDE_SLOPE_M * toward:
            return True
        return False if toward < 0 else None
    toward = beyond if relation == "behind" else -beyond
    if toward > DEPTH_MARGIN_M and abs(aside) < LATERAL_LIMIT:
        return True
    return False if toward < 0 or abs(aside) > 2 * LATERAL_LIMIT else None
