"""How negations are read: what a thing is not, does not have, or is not beside."""

from __future__ import annotations

from collections.abc import Callable

from risengine.language.clauses import relation_owner
from risengine.language.draft import Draft, singular
from risengine.language.lexicon import DENIED_VERBS, GENERIC, IDLE, NEGATIONS
from risengine.language.place_rules import read_compared, read_everything, read_ordinal, read_place
from risengine.language.reader import Reader
from risengine.language.relation_rules import begin_relation, read_relation

__all__ = ["read_negation"]

_EVERY = frozenset(("every", "each", "all", "any", "anything", "everything"))


def read_negation(reader: Reader) -> bool:
    """Reads "not the red one", "neither pink nor purple", "not behind the box", and "without a lid"."""
    if reader.ahead() in ("without", "w/o") and reader.ahead(1):
        begin_relation(reader, relation_owner(reader), "with", negated=True)
        reader.at += 1
        return True
    if reader.ahead() == "but" and not reader.draft.excluded and not _EVERY.isdisjoint(reader.words[: reader.at]):
        reader.words[reader.at] = "except"  # "every mug but the red one"
    if reader.ahead() not in NEGATIONS and (reader.ahead(), reader.ahead(1)) != ("other", "than"):
        return False
    if reader.ahead() == "nor" and reader.draft.parent is not None:
        reader.draft = reader.draft.parent
    of_thing = reader.ahead() in ("except", "other") or reader.ahead(-1) in ("", ",", "but", "and")
    reader.at += 2 if reader.ahead() == "other" else 1
    if reader.ahead(-1) == "non":
        return _exclude_next(reader)
    if reader.ahead(-2) in ("do", "does", "did", "can") and reader.ahead() in DENIED_VERBS:
        reader.words[reader.at] = DENIED_VERBS[reader.ahead()]
    if _skip_denied(reader, (read_everything,)):
        return True
    if reader.cue() is not None and read_relation(reader, negated=True):
        return True
    if _skip_denied(reader, (read_ordinal, read_place, read_compared)):
        return True
    target, words = reader.draft, list[str]()
    while reader.at < len(reader.words) and reader.cue() is None:
        word = reader.ahead()
        if word in ("but", ","):
            break
        if word in ("or", "nor", "and") or word in NEGATIONS:
            target.excluded.append(words)
            words = []
        elif word not in IDLE and word not in ("neither", "either", "in", "color", "colour"):
            words.append(singular(word, reader.tokens[reader.at]))
        reader.at += 1
    if not words or not GENERIC.isdisjoint(words[:1]):  # "not the one behind the box"
        if _skip_denied(reader, (read_everything, read_ordinal, read_place)) or read_relation(reader, negated=True):
            return True
    elif of_thing and reader.ahead() != "but":  # "not the red one behind the box"
        _skip_clause(reader)
    if reader.ahead() == "but":
        reader.at += 1
    target.excluded.append(words)
    return True


def _exclude_next(reader: Reader) -> bool:
    """Takes in "red" after "non"."""
    reader.at += reader.ahead() == "-"
    reader.draft.excluded.append([reader.ahead()] if reader.ahead() else [])
    reader.at += 1
    return True


def _skip_clause(reader: Reader) -> None:
    """Counts as unread what is said of a denied thing, so that it is not taken to be said of the target."""
    while reader.ahead() not in ("", ",", ";", "but"):
        reader.draft.unread.append(reader.ahead())
        reader.at += 1


def _skip_denied(reader: Reader, rules: tuple[Callable[[Reader], bool], ...]) -> bool:
    """Takes in a denied place, row or superlative, "not on the left", which no score expresses: it counts as unread."""
    target, start = reader.draft, reader.at
    reader.draft = Draft(parent=target.parent, noun=target.noun)
    found = any(rule(reader) for rule in rules)
    reader.draft = target
    if found:
        target.unread += ["not", *reader.words[start : reader.at]]
    return found
