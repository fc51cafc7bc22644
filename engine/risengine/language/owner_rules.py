"""How owners and parts are read: "the woman's bag", "whose shirt is blue", "the handle of the mug"."""

from __future__ import annotations

from risengine.language.lexicon import INVERSE, OWN_SIDES, PLACES, SCENE, SIZES
from risengine.language.reader import Reader
from risengine.language.relation_rules import begin_relation

__all__ = ["read_of", "read_owned_side", "read_possessor", "read_whose"]

_ARTICLES = ("the", "a", "an", "my", "your", "his", "her", "that", "this")
_NEIGHBOURS = ("neighbour", "neighbor")
_LONGEST_OWNER = 5  # words of an owner, with its article, before "'s left"


def read_possessor(reader: Reader) -> bool:
    """Reads "'s" in "the woman's bag": what was said so far is of an owner, near whom the target is."""
    draft = reader.draft
    owns = reader.is_noun(1) or reader.ahead(1) in PLACES or reader.ahead(1) in SIZES
    if reader.tokens[reader.at].tag_ != "POS" or not draft.noun or not owns:
        return False
    draft.become_owned()
    reader.at += 1
    return True


def read_owned_side(reader: Reader) -> bool:
    """Reads "on the chair's left", which is a relation to the chair."""
    if reader.ahead() not in ("on", "to", "at") or not reader.draft.noun:
        return False
    for step in range(2, _LONGEST_OWNER):
        kind = OWN_SIDES.get(reader.ahead(step + 1))
        if kind is not None and reader.tokens[reader.at + step].tag_ == "POS" and not reader.is_noun(step + 2):
            end = reader.at + step + 2 + (reader.ahead(step + 2) in ("side", "hand"))
            del reader.words[reader.at + step : end], reader.tokens[reader.at + step : end]
            begin_relation(reader, reader.draft, kind, negated=False)
            reader.at += 1
            return True
    return False


def read_whose(reader: Reader) -> bool:
    """Reads "whose shirt is blue" as "with a blue shirt", and "whose left neighbour is a mug" as right of a mug."""
    if reader.ahead() != "whose" or reader.draft.noun_at is None:
        return False
    side = OWN_SIDES.get(reader.ahead(1))
    if reader.ahead(1 + (side is not None)) in _NEIGHBOURS:
        begin_relation(reader, reader.draft, INVERSE[side] if side is not None else "next", negated=False)
        reader.at += 2 + (side is not None)
        return True
    if not reader.is_noun(1):
        return False
    begin_relation(reader, reader.draft, "with", negated=False)
    reader.at += 1
    return True


def read_of(reader: Reader) -> bool:
    """Reads "of" after a noun: "the glass of water" is one thing, "the handle of the mug" is near another."""
    draft = reader.draft
    follows = draft.noun and draft.noun_at == reader.tokens[reader.at - 1].i
    if reader.ahead() != "of" or not follows:
        return False
    with_article = reader.ahead(1) in _ARTICLES
    step = 1 + with_article
    if reader.ahead(step) in SCENE or not reader.is_noun(step) or reader.tokens[reader.at + step].pos_ == "NUM":
        return False
    if with_article:
        begin_relation(reader, draft, "next", negated=False)
        reader.at += 1
        return True
    while reader.is_noun(step + 1):
        step += 1
    if reader.tokens[reader.at + step].pos_ not in ("NOUN", "PROPN"):
        return False
    draft.noun = " ".join([draft.noun, *reader.words[reader.at : reader.at + step + 1]])
    reader.at += step + 1
    draft.noun_at = reader.tokens[reader.at - 1].i
    return True
