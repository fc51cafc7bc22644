"""From spaCy's analysis of an expression to a :class:`~risengine.expression.Description`.

Words of space, size, order and negation come from :mod:`risengine.lexicon`; spaCy's tags tell what may be a noun or an
attribute. A relation belongs to the noun said last before it ("the mug left of the bowl behind the plate": the bowl is
behind the plate), except after "and", where it belongs to what the previous relation belonged to.
"""

from __future__ import annotations

from typing import Any

from risengine.draft import Draft, singular
from risengine.expression import Description, Place, RelationKind, Size
from risengine.lexicon import (
    COLOURS,
    CUES,
    EVERYTHING,
    FILLERS,
    GENERIC,
    IDLE,
    INVERSE,
    NEGATIONS,
    ORDINALS,
    PLACES,
    PRONOUNS,
    REQUESTS,
    SCENE,
    SIDES,
    SIZES,
    VIEWER,
)  # fmt: skip
from risengine.phrase import parse_text

__all__ = ["describe"]

_LONGEST_CUE = max(map(len, CUES))
_COUNTS = frozenset(("two", "three", "four", "five", "2", "3", "4", "5", "both", "couple", "pair"))
_CONTENT = frozenset(("NOUN", "PROPN", "ADJ", "NUM", "VERB", "X", "INTJ", "PRON", "AUX", "ADV"))  # "can" is tagged AUX
_PLACE_OF: dict[RelationKind, Place] = {
    "left": "left", "right": "right", "front": "front", "behind": "back", "above": "top", "below": "bottom",
}  # fmt: skip


def describe(sentence: str) -> Description:
    """Reads an expression.

    Args:
        sentence: English, lower-case.

    Returns:
        What it says of its target; words that could not be used are in ``unread`` of the part they stand in.

    Raises:
        BackendError: spaCy or its English model is not installed.
    """
    return _Reader(list(parse_text(sentence))).read()


class _Reader:
    """Reads tokens from left to right, each by the first rule that fits."""

    def __init__(self, tokens: list[Any]) -> None:
        self._tokens = [token for token in tokens if token.text.strip()]
        self._words = [token.text for token in self._tokens]
        self._at = 0
        self._root = Draft()
        self._draft = self._root

    def read(self) -> Description:
        self._skip_request()
        rules = (self._negation, self._ordinal, self._everything, self._relation, self._place, self._size, self._joint)
        while self._at < len(self._words):
            if not any(rule() for rule in rules):
                self._word()
        return self._root.finish("")

    def _ahead(self, offset: int = 0) -> str:
        index = self._at + offset
        return self._words[index] if index < len(self._words) else ""

    def _skip_request(self) -> None:
        while self._ahead() in REQUESTS or self._ahead() in FILLERS or self._ahead() == ",":
            if self._ahead() == "whatever":
                return
            self._at += 1

    def _negation(self) -> bool:
        if self._ahead() not in NEGATIONS and (self._ahead(), self._ahead(1)) != ("other", "than"):
            return False
        self._at += 2 if self._ahead() == "other" else 1
        target, words = self._draft, list[str]()
        while self._at < len(self._words) and self._cue(self._at) is None:
            word = self._ahead()
            if word in ("but", ","):
                break
            if word in ("or", "nor", "and") or word in NEGATIONS:
                target.excluded.append(words)
                words = []
            elif word not in IDLE and word not in ("neither", "either", "in", "color", "colour"):
                words.append(singular(word, self._tokens[self._at]))
            self._at += 1
        if self._ahead() == "but":
            self._at += 1
        target.excluded.append(words)
        return True

    def _ordinal(self) -> bool:
        number = -1 if self._ahead() == "last" else ORDINALS.get(self._ahead())
        if number is None or self._draft.noun:
            return self._ordinal_side()
        self._at += 1
        self._draft.ordinal = number
        return True

    def _ordinal_side(self) -> bool:
        """Reads "from the left", before or after the noun."""
        if self._draft.ordinal == 0 or self._ahead() not in ("from", "to", "in", "on", "at", "counting"):
            return False
        step = 1
        while self._ahead(step) in ("the", "from", "far"):
            step += 1
        if (side := PLACES.get(self._ahead(step))) is None or self._ahead(step + 1) == "of":
            return False
        self._draft.ordinal_side = side
        self._at += step + 1
        return True

    def _cue(self, at: int) -> tuple[RelationKind, int] | None:
        for length in range(min(_LONGEST_CUE, len(self._words) - at), 0, -1):
            kind = CUES.get(tuple(self._words[at : at + length]))
            if kind is not None:
                return kind, length
        return None

    def _everything(self) -> bool:
        """Reads "closest to me" and "in front of everything", which are places."""
        found = self._cue(self._at)
        if found is None:
            return False
        kind, length = found
        step = length
        while self._ahead(step) in ("the", "to", "from", "of", "all"):
            step += 1
        place = _PLACE_OF.get(kind)
        if self._ahead(step) in VIEWER and kind in ("next", "far", "front"):
            place = "back" if kind == "far" else "front"
        elif self._ahead(step) not in EVERYTHING and not (self._ahead(step - 1) == "all" and step > length):
            return False
        if place is None:
            return False
        self._draft.places.append(place)
        self._at += step + (self._ahead(step) != "")
        return True

    def _relation(self) -> bool:
        found = self._cue(self._at)
        if found is None:
            return False
        kind, length = found
        step = length
        while self._ahead(step) in ("the", "a", "an", "its", "my", "far", "very"):
            step += 1
        after = self._ahead(step)
        if after == "" or (kind == "next" and self._ahead() in PLACES and not self._draft.noun):
            return False
        if kind in ("on", "inside", "next", "with") and self._only_place(step):
            return False
        if kind == "inside" and after in COLOURS and not self._is_noun(step + 1):
            self._draft.words.append(after)  # "guy in red": what it wears is an attribute
            self._at += step + 1
            return True
        if after in SCENE and kind in ("on", "inside", "next", "left", "right"):
            if kind in ("left", "right"):  # "on the left side of the table"
                self._draft.places.append(_PLACE_OF[kind])
            self._at += step + 1
            return True
        self._at += length
        if after in PRONOUNS:
            return self._reversed(kind, step - length)
        target = self._draft
        reference = Draft(parent=target)
        target.relations.append((kind, [reference]))
        self._draft = reference
        return True

    def _only_place(self, step: int) -> bool:
        """Whether what follows is a place and no object: "on the left", "in the back left corner"."""
        while self._ahead(step) in PLACES and self._ahead(step) not in ("nearest", "closest"):
            step += 1
            if not self._is_noun(step) or self._ahead(step) in SIDES or self._ahead(step) in SCENE:
                return True
        return False

    def _is_noun(self, offset: int) -> bool:
        index = self._at + offset
        if index >= len(self._tokens) or self._words[index] in PLACES:
            return False
        return self._words[index] in COLOURS or self._tokens[index].pos_ in ("NOUN", "PROPN", "ADJ", "NUM")

    def _reversed(self, kind: RelationKind, articles: int) -> bool:
        """Reads "a bowl behind it": the last relation's object stands behind its owner, who is before it."""
        self._at += articles + 1
        owner = self._draft.parent
        if owner is None or not owner.relations or kind not in INVERSE:
            self._draft.unread.append(kind)
            return True
        _, references = owner.relations[-1]
        owner.relations[-1] = (INVERSE[kind], references)
        self._draft = owner
        return True

    def _place(self) -> bool:
        step = 0
        while self._ahead(step) in ("on", "in", "at", "to", "toward", "towards", "from"):
            step += 1
        while self._ahead(step) in ("the", "far", "very", "extreme", "my", "our"):
            step += 1
        places: list[Place] = []
        while (place := PLACES.get(self._ahead(step))) is not None and not self._intensifies(step):
            places.append(place)
            step += 1
            while self._ahead(step) in ("-", "and", "most", "to") or self._joins_place(step):
                step += 1
        if not places:
            return False
        if len(places) > 1 and self._ahead() in ("farthest", "furthest", "closest", "nearest", "far"):
            places = places[1:] if places[0] in ("back", "front") else places
        while (self._draft.noun and self._ahead(step) in SIDES) or self._ahead(step) in ("hand", "side", "edge"):
            step += 1
        if self._ahead(step) in ("of", "in", "on") and self._scene_after(step + 1):
            step += 2 + (self._ahead(step + 1) in ("the", "this"))
        self._draft.places.extend(places)
        self._at += step
        return True

    def _joins_place(self, step: int) -> bool:
        return self._ahead(step) == "the" and self._ahead(step - 1) == "to" and self._ahead(step + 1) in PLACES

    def _scene_after(self, step: int) -> bool:
        return self._ahead(step + (self._ahead(step) in ("the", "this"))) in SCENE

    def _intensifies(self, step: int) -> bool:
        """Whether "right" only strengthens a relation: "right behind the box"."""
        if self._ahead(step) != "right" or self._ahead(step + 1) in ("in", "on", "with", "of"):
            return False
        return self._cue(self._at + step + 1) is not None

    def _size(self) -> bool:
        size = SIZES.get(self._ahead())
        if size is None:
            return False
        kind, compared = size
        self._draft.sizes.append(Size(kind, compared))
        if not compared:
            self._draft.words.append(self._ahead())
        self._at += 1
        return True

    def _joint(self) -> bool:
        """Reads "and" and commas, which end a reference or begin another."""
        if self._ahead() not in ("and", ",", ";", "but", "or", "&"):
            return False
        comma = self._ahead() in (",", ";")
        self._at += 1
        parent = self._draft.parent
        if parent is None:
            return True
        kind, references = parent.relations[-1]
        if kind == "between" and len(references) == 1 and not comma:
            self._draft = Draft(parent=parent)
            references.append(self._draft)
        elif comma:
            self._draft = self._root
        elif self._cue(self._at) is not None:
            self._draft = parent
        return True

    def _word(self) -> None:
        token, word = self._tokens[self._at], self._ahead()
        draft = self._draft
        self._at += 1
        if word in FILLERS and word != "whatever":
            return
        if word in _COUNTS:
            draft.noun_is_plural = True
        elif word in ("the", "a", "an", "that", "this") and not draft.words and not draft.noun:
            draft.article = "the" if word in ("that", "this") else word
        elif word in GENERIC:
            draft.noun_is_plural |= word == "ones"
            if not draft.noun and word not in ("one", "ones", "whatever"):
                draft.noun = "thing" if word.startswith("thing") else "object"
        elif word in IDLE or token.is_punct or word in ("color", "colour", "colored"):
            return
        elif word in COLOURS:
            draft.words.append(word)
        elif token.pos_ in _CONTENT and not draft.noun:
            self._noun_or_attribute(word, token)
        elif draft.noun and token.pos_ in ("NOUN", "PROPN") and self._tokens[self._at - 2].text == draft.noun:
            draft.words.append(draft.noun)  # "pizza slice"
            draft.noun = singular(word, token)
        else:
            draft.unread.append(word)

    def _noun_or_attribute(self, word: str, token: Any) -> None:
        draft = self._draft
        is_last = not self._is_noun(0) and self._ahead() not in ("thing", "things", "object", "one", "ones", "item")
        if token.pos_ in ("NOUN", "PROPN") or is_last:
            if token.tag_ in ("NNS", "NNPS"):
                draft.noun_is_plural = True
            draft.noun = singular(word, token)
        else:
            draft.words.append(word)
