"""Where reading an expression stands: the tokens, the place among them, and the description that words go to."""

from __future__ import annotations

from typing import Any

from risengine.language.draft import Draft
from risengine.language.expression import RelationKind
from risengine.language.lexicon import COLOURS, CUES, PLACES

__all__ = ["Reader"]

_LONGEST_CUE = max(map(len, CUES))


class Reader:
    """Tokens that are read from left to right.

    Attributes:
        tokens: spaCy's, without white space.
        words: Their texts.
        at: Index of the token that is read next.
        root: The target's description.
        draft: The description that is being read: the target's or that of a reference.
    """

    def __init__(self, tokens: list[Any]) -> None:
        """Starts at the first of the tokens."""
        self.tokens = _without_hands([token for token in tokens if token.text.strip()])
        self.words = [token.text for token in self.tokens]
        self.at = 0
        self.root = Draft()
        self.draft = self.root

    def ahead(self, offset: int = 0) -> str:
        """Returns the word that many places ahead; nothing behind the last one."""
        index = self.at + offset
        return self.words[index] if 0 <= index < len(self.words) else ""

    def cue(self, offset: int = 0) -> tuple[RelationKind, int] | None:
        """Returns the relation that is named that many places ahead, with its number of words."""
        start = self.at + offset
        for length in range(min(_LONGEST_CUE, len(self.words) - start), 0, -1):
            kind = CUES.get(tuple(self.words[start : start + length]))
            if kind is not None:
                return kind, length
        return None

    def is_noun(self, offset: int) -> bool:
        """Whether the word that many places ahead may stand in a noun phrase, and is no place."""
        index = self.at + offset
        if index >= len(self.tokens) or self.words[index] in PLACES:
            return False
        return self.words[index] in COLOURS or self.tokens[index].pos_ in ("NOUN", "PROPN", "ADJ", "NUM")


def _without_hands(tokens: list[Any]) -> list[Any]:
    """Makes "left-hand" and "left hand side" a "left" and a "left side"."""
    words = [token.text for token in tokens] + ["", ""]
    dropped = set[int]()
    for index, word in enumerate(words[:-2]):
        hyphen = words[index + 1] == "-"
        hand = index + 1 + hyphen
        if word in ("left", "right") and words[hand] == "hand" and (hyphen or words[hand + 1] in ("side", "corner")):
            dropped.update(range(index + 1, hand + 1))
    return [token for index, token in enumerate(tokens) if index not in dropped]
