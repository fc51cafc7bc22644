"""How relations and what joins them are read; every rule says whether it understood what comes next."""

from __future__ import annotations

from risengine.language.clauses import begins_with_subject, is_auxiliary, relation_owner
from risengine.language.draft import Draft
from risengine.language.expression import RelationKind
from risengine.language.lexicon import (
    COLOURS,
    FURNITURE,
    INVERSE,
    NEGATIONS,
    OWN_SIDES,
    PLACES,
    PRONOUNS,
    SCENE,
    SIDES,
    SUPERLATIVES_OF_DISTANCE,
    VIEWER,
)  # fmt: skip
from risengine.language.place_rules import PLACE_OF
from risengine.language.reader import Reader

__all__ = ["begin_relation", "read_contact_clause", "read_distance", "read_joint", "read_relation"]

_BEFORE_REFERENCE = ("the", "a", "an", "its", "my", "your", "far", "very")
_OF_SCENE = ("on", "inside", "next", "left", "right", "between")


def read_relation(reader: Reader, negated: bool = False) -> bool:
    """Reads a relation up to its reference, which is what is described from there on."""
    if _read_own_side(reader):
        return True
    found = reader.cue()
    if found is None or is_auxiliary(reader.tokens[reader.at]):
        return False
    kind, length = found
    if reader.ahead(length) in ("no", "nothing", "anything"):  # "with no lid", "with nothing on it"
        anything = reader.ahead(length) == "anything"
        begin_relation(reader, relation_owner(reader), kind, negated if anything else not negated)
        reader.draft.noun = "" if reader.ahead(length) == "no" else "object"
        reader.at += length + 1
        return True
    step = length
    while reader.ahead(step) in _BEFORE_REFERENCE:
        step += 1
    after = reader.ahead(step)
    if after == "" or (kind == "next" and reader.ahead() in PLACES and not reader.draft.noun):
        return False
    if kind in ("on", "inside", "next", "with") and _only_place(reader, step):
        return False
    if (
        (kind == "inside" or reader.ahead() in ("wearing", "wears"))
        and after in COLOURS
        and not reader.is_noun(step + 1)
    ):
        reader.draft.words.append(after)  # "guy in red": what it wears is an attribute
        reader.at += step + 1
        return True
    if after in SCENE and not _is_furniture(reader, kind, length, after) and kind in _OF_SCENE:
        if kind in PLACE_OF:  # "on the left side of the table", "in the middle of the table"
            (reader.draft.unread if negated else reader.draft.places).append(PLACE_OF[kind])
        reader.at += step + 1
        return True
    if after in PRONOUNS:
        reader.at += step + 1
        _reverse(reader, kind, negated)
        return True
    if after in ("which", "whom") and kind in INVERSE:  # "the plate on which the cup stands"
        kind, length = INVERSE[kind], step + 1
    begin_relation(reader, relation_owner(reader), kind, negated)
    reader.at += length
    return True


def _is_furniture(reader: Reader, kind: RelationKind, length: int, noun: str) -> bool:
    """Whether "table" is a thing beside others: "next to the table", "between the table and the door"."""
    spread = "between" in reader.words[reader.at : reader.at + length]
    return spread or (kind == "next" and noun in FURNITURE)


def begin_relation(reader: Reader, owner: Draft, kind: RelationKind, negated: bool) -> None:
    """Makes a reference, which is what is described from there on."""
    reader.draft = Draft(parent=owner)
    for index, (before, references, denied) in enumerate(owner.relations):
        if all(reference.is_empty for reference in references):  # "to the right of and behind the mug"
            owner.relations[index] = (before, [reader.draft], denied)
    owner.relations.append((kind, [reader.draft], negated))


def read_distance(reader: Reader) -> bool:
    """Reads "to the box" after "the closest mug", whose superlative has been taken for a place so far."""
    draft = reader.draft
    if reader.ahead() not in ("to", "from") or not draft.noun or not draft.places:
        return False
    step = 1 + (reader.ahead(1) in ("the", "a", "an"))
    before = next((word for word in reversed(reader.words[: reader.at]) if word in SUPERLATIVES_OF_DISTANCE), None)
    if before is None or PLACES[before] != draft.places[-1]:
        return False
    if reader.ahead(step) in VIEWER:  # "the closest mug to the camera"
        reader.at += step + 1
        return True
    if not reader.is_noun(step) or reader.ahead(step) in SCENE:
        return False
    draft.places.pop()
    begin_relation(reader, draft, SUPERLATIVES_OF_DISTANCE[before], negated=False)
    reader.at += 1
    return True


def _only_place(reader: Reader, step: int) -> bool:
    """Whether what follows is a place and no object: "on the left", "in the back left corner"."""
    while reader.ahead(step) in PLACES and reader.ahead(step) not in ("nearest", "closest"):
        step += 1
        if not reader.is_noun(step) or reader.ahead(step) in SIDES or reader.ahead(step) in SCENE:
            return True
    return False


def _read_own_side(reader: Reader) -> bool:
    """Reads "with a ball on its right": where the reference is, seen from what it tells."""
    if reader.ahead() not in ("to", "on", "at") or reader.ahead(1) not in ("its", "his", "her", "their"):
        return False
    kind = OWN_SIDES.get(reader.ahead(2))
    if kind is None or reader.draft.parent is None:
        return False
    reader.at += 3 + (reader.ahead(3) in ("side", "hand"))
    _reverse(reader, kind, negated=False)
    return True


def _reverse(reader: Reader, kind: RelationKind, negated: bool) -> None:
    """Takes in "a bowl behind it": the last relation's object stands behind its owner, who is before it."""
    owner = reader.draft.parent
    if owner is None or not owner.relations or kind not in INVERSE:
        reader.draft.unread.append(kind)
        return
    said, references, before = owner.relations[-1]
    if said == "with":
        owner.relations[-1] = (INVERSE[kind], references, before != negated)
    else:  # "taller than the bottle next to it"
        owner.relations.append((INVERSE[kind], references, negated))
    reader.draft = owner


def read_contact_clause(reader: Reader) -> bool:
    """Reads "(that) the box is behind", a clause that ends in its relation: the reference is its subject."""
    if reader.draft.noun_at is None or reader.ahead() in ("and", ","):
        return False
    stranded = _last_cue(reader)
    if stranded is None or stranded[0] not in INVERSE or not begins_with_subject(reader):
        return False
    kind, length = stranded
    del reader.words[-length:], reader.tokens[-length:]
    denials = [index for index in range(reader.at, len(reader.words)) if reader.words[index] in NEGATIONS]
    for index in reversed(denials):  # "the mug the box isn't behind"
        del reader.words[index], reader.tokens[index]
    reader.at += reader.ahead() in ("that", "which", "who")
    nothing = reader.ahead() == "nothing"  # "the box that nothing is on"
    begin_relation(reader, reader.draft, INVERSE[kind], negated=bool(denials) != nothing)
    if nothing:
        reader.draft.noun = "object"
        reader.at += 1
    return True


def _last_cue(reader: Reader) -> tuple[RelationKind, int] | None:
    """The relation that the last words name, and nothing follows."""
    left = len(reader.words) - reader.at
    found = ((offset, reader.cue(offset)) for offset in range(1, left))
    return next((cue for offset, cue in found if cue is not None and offset + cue[1] == left), None)


def read_joint(reader: Reader) -> bool:
    """Reads "and" and commas, which end a reference or begin another, and "is a mug" after "behind the box"."""
    if _is_late_target(reader):
        reader.draft = reader.root
        reader.at += 1
        return True
    if reader.ahead() not in ("and", ",", ";", "but", "or", "&"):
        return False
    comma = reader.ahead() in (",", ";")
    reader.at += 1
    parent = reader.draft.parent
    if parent is None:
        if not comma and _is_another_thing(reader):
            reader.root.unread += reader.words[reader.at :]
            reader.at = len(reader.words)
        return True
    kind, references, negated = parent.relations[-1]
    goes_on = reader.cue(reader.ahead() in NEGATIONS) is not None
    if kind == "between" and len(references) == 1 and not comma and not goes_on:
        reader.draft = Draft(parent=parent)
        references.append(reader.draft)
    elif comma:
        reader.draft = reader.root
    elif goes_on or reader.ahead() in ("is", "are", "was"):  # "next to the box and is red"
        reader.draft = parent
    elif kind != "between" and _names_another(reader):
        begin_relation(reader, parent, kind, negated)
    return True


def _names_another(reader: Reader) -> bool:
    """Whether a further reference follows: "left of the bowl and the plate", "with a red shirt and blue hat"."""
    if reader.ahead() in ("the", "a", "an"):
        return True
    step = 0
    while reader.is_noun(step) and reader.tokens[reader.at + step].pos_ not in ("NOUN", "PROPN"):
        step += 1
    return bool(reader.draft.noun) and reader.is_noun(step) and reader.ahead(step) not in COLOURS


def _is_another_thing(reader: Reader) -> bool:
    """Whether a second target is asked for: "the mug and the box". One mask is given, that of the first."""
    named = bool(reader.draft.noun) and reader.ahead() in ("the", "a", "an", "that", "this")
    return named and reader.tokens[reader.at].head.pos_ in ("NOUN", "PROPN")


def _is_late_target(reader: Reader) -> bool:
    """Whether the target is still to come: "behind the box there is a mug"."""
    waiting = not (reader.root.noun or reader.root.words) and reader.draft is not reader.root
    return waiting and bool(reader.draft.noun) and reader.ahead() in ("is", "are", "there", "stands", "sits")
