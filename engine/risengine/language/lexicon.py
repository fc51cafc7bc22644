"""The English words of space, size, order and negation that :mod:`risengine.language.parse` knows."""

from __future__ import annotations

from types import MappingProxyType

from risengine.language.expression import Place, RelationKind, SizeKind

__all__ = [
    "BEING", "COLOURS", "CUES", "DENIED_VERBS", "EVERYTHING", "FACING", "FILLERS", "FURNITURE", "GENERIC", "IDLE",
    "INVERSE", "IRREGULAR", "NEGATIONS", "ONLY_PLURAL", "ORDINALS", "OWN_SIDES", "PLACES", "POSTURES", "PRONOUNS",
    "REQUESTS", "SCENE", "SIDES", "SIZES", "SUPERLATIVES_OF_DISTANCE", "VIEWER",
]  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _cues() -> dict[tuple[str, ...], RelationKind]:
    spoken: dict[RelationKind, str] = {
        "left": "left of|to the left of|on the left of|on the left side of|to left of|at the left of|on left of|"
        "to the left side of|at the left side of|to the far left of|on the far left of",
        "right": "right of|to the right of|on the right of|on the right side of|to right of|at the right of|on right of"
        "|to the right side of|at the right side of|to the far right of|on the far right of",
        "front": "in front of|in the front of|ahead of|before|blocking|hiding|covering|obscuring",
        "behind": "behind|in back of|beyond|hidden by|blocked by|covered by",
        "above": "above|over",
        "on": "riding|on top of|atop|on|upon|onto",
        "below": "below|under|underneath|beneath|supporting|supports",
        "next": "next to|beside|besides|near|nearest|nearest to|closest|closest to|close to|near to|by|"
        "adjacent to|alongside|"
        "touching|touches|closer to|nearer|nearer to|at the side of|against|among|amongst|surrounded by",
        "far": "far from|away from|farthest from|furthest from|farther from|far away from",
        "inside": "inside|inside of|in|within",
        "with": "w/|full of|filled with|with|has|have|having|holding|carrying|containing|wearing|holds|carries|"
        "contains|wears|around|surrounding",
        "between": "between|in between|in the middle of",
        "bigger than": "bigger than|larger than",
        "smaller than": "smaller than|littler than|tinier than",
        "taller than": "taller than",
        "shorter than": "shorter than",
        "wider than": "wider than|longer than",
        "narrower than": "narrower than|thinner than",
    }
    return {tuple(cue.split()): kind for kind, cues in spoken.items() for cue in cues.split("|")}


CUES = MappingProxyType(_cues())
"""Words before a reference, and what they mean."""

INVERSE: MappingProxyType[RelationKind, RelationKind] = MappingProxyType({
    "left": "right", "right": "left", "front": "behind", "behind": "front", "above": "below", "below": "above",
    "on": "below", "with": "inside", "next": "next", "far": "far", "inside": "with", "bigger than": "smaller than",
    "smaller than": "bigger than", "taller than": "shorter than", "shorter than": "taller than",
    "wider than": "narrower than", "narrower than": "wider than",
})  # fmt: skip
"""How A stands to B where B is said to stand to A: "A with B behind it"."""

OWN_SIDES: MappingProxyType[str, RelationKind] = MappingProxyType({
    "left": "left", "right": "right", "front": "front", "back": "behind",
})  # fmt: skip
"""Where that is of which a thing is said to be "on its left"."""

PLACES: MappingProxyType[str, Place] = MappingProxyType({
    "left": "left", "leftmost": "left", "right": "right", "rightmost": "right", "top": "top", "upper": "top",
    "topmost": "top", "uppermost": "top", "highest": "top", "higher": "top", "bottom": "bottom", "lower": "bottom",
    "lowest": "bottom", "bottommost": "bottom", "front": "front", "frontmost": "front", "foremost": "front",
    "nearest": "front", "closest": "front", "nearer": "front", "closer": "front", "foreground": "front",
    "back": "back", "rear": "back", "rearmost": "back", "backmost": "back", "farthest": "back", "furthest": "back",
    "farther": "back", "further": "back", "background": "back", "middle": "middle", "center": "middle",
    "centre": "middle", "central": "middle", "centermost": "middle", "corner": "corner", "lefthand": "left",
    "righthand": "right",
})  # fmt: skip


def _sizes() -> dict[str, tuple[SizeKind, bool]]:
    spoken: dict[SizeKind, tuple[str, str]] = {
        "big": ("big large huge giant", "bigger biggest larger largest"),
        "small": ("small little tiny mini", "smaller smallest littlest tiniest tinier"),
        "tall": ("tall high", "taller tallest"),
        "short": ("short", "shorter shortest"),
        "wide": ("wide long thick", "wider widest longer longest thicker thickest"),
        "narrow": ("narrow thin", "narrower narrowest thinner thinnest"),
    }
    return {
        word: (kind, compared)
        for kind, sides in spoken.items()
        for compared, words in zip((False, True), sides, strict=True)
        for word in words.split()
    }


SIZES = MappingProxyType(_sizes())
"""Size words, and whether they only mean something among others."""

ORDINALS = MappingProxyType({
    word: number
    for number, words in enumerate(
        ("first 1st", "second 2nd", "third 3rd", "fourth 4th", "fifth 5th", "sixth 6th", "seventh 7th"), start=1
    )
    for word in words.split()
})  # fmt: skip

COLOURS = _words(
    "red orange yellow green blue purple violet pink brown black white gray grey beige gold silver tan navy teal "
    "crimson scarlet turquoise striped plaid"
)
"""Words that are an attribute after "in": "guy in red"."""

DENIED_VERBS = MappingProxyType({
    "have": "having", "hold": "holding", "carry": "carrying", "contain": "containing", "wear": "wearing",
    "touch": "touching", "hide": "hiding", "block": "blocking", "cover": "covering", "obscure": "obscuring",
})  # fmt: skip
"""Verbs as they stand after "doesn't", and the cues that mean the same; elsewhere some of them are nouns."""

IRREGULAR = MappingProxyType({
    "men": "man", "women": "woman", "children": "child", "people": "person", "knives": "knife", "shelves": "shelf",
    "loaves": "loaf", "leaves": "leaf", "mice": "mouse", "feet": "foot", "teeth": "tooth", "tomatoes": "tomato",
    "potatoes": "potato",
})  # fmt: skip
"""Plurals whose singular no rule gives."""

ONLY_PLURAL = _words(
    "glasses sunglasses scissors pants jeans shorts trousers headphones pliers tongs tweezers goggles clothes"
)
"""Plurals that name one thing."""

NEGATIONS = frozenset(("not", "n't", "nt", "isnt", "except", "neither", "nor", "without", "non"))
SUPERLATIVES_OF_DISTANCE: MappingProxyType[str, RelationKind] = MappingProxyType({
    "closest": "next", "nearest": "next", "farthest": "far", "furthest": "far",
})  # fmt: skip
"""Words before a noun, and how it stands to what is named behind it: "the closest mug to the box"."""

PRONOUNS = frozenset(("it", "them", "itself", "him", "her"))
VIEWER = frozenset(("me", "us", "camera", "viewer", "you", "robot", "screen"))
EVERYTHING = frozenset(("everything", "all", "others", "rest", "everyone"))
SCENE = _words("table picture image photo scene frame pic desk floor ground view edge row line")
FURNITURE = frozenset(("table", "desk"))
"""What is mostly the scene itself, but stands beside other things too."""
SIDES = _words("side edge end part half hand row area most away one")
"""Words that only complete a place: "on the left side"."""

IDLE = _words(
    "that which who whose is are was be being been 's directly just right immediately standing sitting lying "
    "located placed positioned shown seen there here a an the this those these some my your our its to at of from "
    "kind 're very really only also both ones hidden partly partially laying stood set put has have had do does did "
    "stands sits lies every each any all whichever where slightly immediate way most halfway almost "
    "somewhat"
)
"""Words that add nothing where no rule reads them."""

POSTURES = _words("stacked leaning resting hanging seated parked propped leaned perched")
"""Words that add nothing behind a noun, but are attributes before it: "the hanging lamp"."""

FACING = _words("facing pointing looking turned heading")
"""Words whose direction is the object's own, not where it is."""

BEING = _words("is are was were 's 're")
"""Words before an attribute that comes late: "the bowl that is empty"."""

REQUESTS = _words(
    "grab give get bring pass pick hand take find show point fetch select segment locate look want need would like "
    "can could i you me us please uh um hey ok okay up out let see touch for robot will go move drive navigate reach "
    "push pull take choose identify highlight where it among amongst"
)
"""Words of asking, before the target."""

FILLERS = _words("please whatever thanks now uh um well maybe")

GENERIC = _words("one ones thing things object objects item items whatever something anything everything")
"""Nouns that say nothing of what a thing looks like."""
