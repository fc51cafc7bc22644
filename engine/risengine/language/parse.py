"""From spaCy's analysis of an expression to a :class:`~risengine.language.expression.Description`.

Words of space, size, order and negation come from :mod:`risengine.language.lexicon`; spaCy's tags tell what may be a
noun or an attribute. A relation belongs to the noun said last before it ("the mug left of the bowl behind the plate":
the bowl is behind the plate), except after "and", where it belongs to what the previous relation belonged to, and in a
clause, where spaCy's dependency arcs name its subject (:mod:`risengine.language.clauses`).
"""

from __future__ import annotations

from typing import Any

from risengine.language.draft import singular
from risengine.language.expression import Description
from risengine.language.lexicon import BEING, COLOURS, FILLERS, GENERIC, IDLE, PLACES, POSTURES, REQUESTS
from risengine.language.negation_rules import read_negation
from risengine.language.owner_rules import read_of, read_owned_side, read_possessor, read_whose
from risengine.language.phrase import parse_text
from risengine.language.place_rules import read_everything, read_facing, read_ordinal, read_place, read_size
from risengine.language.reader import Reader
from risengine.language.relation_rules import (
    read_contact_clause,
    read_distance,
    read_joint,
    read_relation,
)  # fmt: skip

__all__ = ["describe"]

_COUNTS = frozenset(("two", "three", "four", "five", "2", "3", "4", "5", "both", "couple", "pair"))
_HANDED = frozenset(("me", "us", "him", "her", "them", "over", "it", "the", "a", "that", "this", "my"))
_CONTENT = frozenset(("NOUN", "PROPN", "ADJ", "NUM", "VERB", "X", "INTJ", "PRON", "AUX", "ADV"))  # "can" is tagged AUX
_RULES = (
    read_negation, read_contact_clause, read_ordinal, read_everything, read_owned_side, read_whose, read_relation,
    read_distance, read_facing, read_place, read_size, read_possessor, read_of, read_joint,
)  # fmt: skip


def describe(sentence: str) -> Description:
    """Reads an expression, each of its parts by the first rule that fits.

    Args:
        sentence: English, lower-case.

    Returns:
        What it says of its target; words that could not be used are in ``unread`` of the part they stand in.

    Raises:
        BackendError: spaCy or its English model is not installed.
    """
    reader = Reader(list(parse_text(sentence)))
    _skip_request(reader)
    while reader.at < len(reader.words):
        if not any(rule(reader) for rule in _RULES):
            _read_word(reader)
    return reader.root.finish("")


def _skip_request(reader: Reader) -> None:
    while reader.ahead() in REQUESTS or reader.ahead() in FILLERS or reader.ahead() in (",", "to", "at"):
        if reader.ahead() == "hand" and reader.ahead(1) not in _HANDED:  # "hand holding the phone"
            return
        if reader.ahead() == "whatever" or (reader.ahead() in ("to", "at") and _begins_target(reader)):
            return
        reader.at += 1


def _begins_target(reader: Reader) -> bool:
    """Whether "to" begins "to the left of" or "to the left", and does not belong to "go to"."""
    return reader.at == 0 or reader.cue() is not None or reader.ahead(1 + (reader.ahead(1) == "the")) in PLACES


def _read_word(reader: Reader) -> None:
    token, word, draft = reader.tokens[reader.at], reader.ahead(), reader.draft
    reader.at += 1
    if word in FILLERS and word != "whatever":
        return
    if word in _COUNTS:
        draft.noun_is_plural = True
    elif word in ("the", "a", "an", "that", "this") and not draft.words and not draft.noun:
        draft.article = "the" if word in ("that", "this") else word
    elif word in GENERIC:
        draft.noun_is_plural |= word == "ones"
        draft.noun_at = token.i if draft.noun_at is None else draft.noun_at
        if not draft.noun and word not in ("one", "ones", "whatever"):
            draft.noun = "thing" if word.startswith("thing") else "object"
    elif word in ("it", "them") or word in IDLE or token.is_punct or word in ("color", "colour", "colored"):
        return
    elif word in COLOURS:
        draft.words.append(word)
    elif draft.noun and word in POSTURES:
        return
    elif draft.noun and token.pos_ == "ADJ" and reader.ahead(-2) in BEING:
        draft.words.append(word)  # "the bowl that is empty"
    elif token.pos_ in _CONTENT and not draft.noun:
        _read_noun_or_attribute(reader, word, token)
    elif draft.noun and token.pos_ in ("NOUN", "PROPN") and reader.tokens[reader.at - 2].text == draft.noun:
        draft.words.append(draft.noun)  # "pizza slice"
        draft.noun, draft.noun_at = singular(word, token), token.i
    else:
        draft.unread.append(word)


def _read_noun_or_attribute(reader: Reader, word: str, token: Any) -> None:
    draft = reader.draft
    is_last = not reader.is_noun(0) and reader.ahead() not in ("thing", "things", "object", "one", "ones", "item")
    if token.pos_ in ("NOUN", "PROPN") or is_last:
        if token.tag_ in ("NNS", "NNPS"):
            draft.noun_is_plural = True
        draft.noun, draft.noun_at = singular(word, token), token.i
    else:
        draft.words.append(word)
