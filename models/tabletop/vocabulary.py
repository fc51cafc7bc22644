"""The words and colours of the tabletop world, and the (colour, class) pairs that training never shows."""

from __future__ import annotations

CLASSES: tuple[str, ...] = (
    "cube", "box", "ball", "cylinder", "cone", "pyramid", "bowl", "mug", "bottle", "plate", "ring", "star",
)  # fmt: skip
"""Object classes; a class's category id is its position plus one."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.06, 0.07),
    "orange": (1.00, 0.45, 0.02),
    "yellow": (0.98, 0.86, 0.08),
    "green": (0.10, 0.58, 0.16),
    "blue": (0.07, 0.24, 0.85),
    "purple": (0.42, 0.12, 0.66),
    "pink": (1.00, 0.50, 0.72),
    "brown": (0.38, 0.20, 0.08),
    "black": (0.05, 0.05, 0.06),
    "white": (0.96, 0.96, 0.94),
    "gray": (0.46, 0.47, 0.48),
}
"""Colour name to its mean sRGB albedo in [0, 1]."""

SIZES: dict[str, float] = {"small": 0.64, "medium": 1.0, "large": 1.48}
"""Size name to the mean scale factor of the class's medium shape."""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "black": ("black",),
    "white": ("white",),
    "gray": ("gray", "grey"),
}
"""Colour name to the words for it, the usual one first."""

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium",),
    "large": ("large", "big"),
}
"""Size name to the words for it, the usual one first."""

NOUNS: dict[str, tuple[str, ...]] = {
    "cube": ("cube",),
    "box": ("box",),
    "ball": ("ball",),
    "sphere": ("ball",),
    "cylinder": ("cylinder",),
    "can": ("cylinder",),
    "cone": ("cone",),
    "pyramid": ("pyramid",),
    "bowl": ("bowl",),
    "mug": ("mug",),
    "cup": ("mug",),
    "bottle": ("bottle",),
    "flask": ("bottle",),
    "plate": ("plate",),
    "ring": ("ring",),
    "hoop": ("ring",),
    "star": ("star",),
    "block": ("cube", "box"),
    "dish": ("bowl", "plate"),
}
"""Noun to the classes it can mean; a noun with two classes names an object only where the scene leaves one reading."""

ANY_NOUNS: tuple[str, ...] = ("object", "thing", "item")
"""Nouns that fit every class."""

HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    (colour, name)
    for row, colour in enumerate(COLOURS)
    for column, name in enumerate(CLASSES)
    if (2 * row + column) % 5 == 2
)
"""The 26 of 132 (colour, class) pairs that no training scene contains: 2 or 3 of every colour and of every class."""

TRAINING_PAIRS: tuple[tuple[str, str], ...] = tuple(
    (colour, name) for colour in COLOURS for name in CLASSES if (colour, name) not in HELD_OUT_PAIRS
)
"""Every other pair, in table order."""


def nouns_of(class_name: str) -> tuple[str, ...]:
    """List the nouns that can mean a class.

    Args:
        class_name: One of `CLASSES`.

    Returns:
        The nouns, the class's own name first.
    """
    return tuple(sorted((n for n, c in NOUNS.items() if class_name in c), key=lambda noun: noun != class_name))
