"""What the arcs of spaCy's dependency parse say of clauses: whom they are about, and which way round they speak.

Arcs are asked only where they were right more often than the order of the words: of the small English model's, those of
a verb to its subject. Which noun a preposition belongs to, it mostly gets wrong in "the box left of the mug right of
the bowl", so that there the order decides.
"""

from __future__ import annotations

from typing import Any

from risengine.language.draft import Draft
from risengine.language.reader import Reader

__all__ = ["begins_with_subject", "is_auxiliary", "relation_owner"]

_NOMINAL = ("NOUN", "PROPN", "PRON")
_VERBAL = ("VERB", "AUX")


def is_auxiliary(token: Any) -> bool:
    """Whether a form of "have" only helps another verb: "that has been put"."""
    return token.dep_ in ("aux", "auxpass")


def relation_owner(reader: Reader) -> Draft:
    """Returns the description that a relation belongs to whose first word is read next.

    It is the noun said last, unless a clause has begun since whose verb is about an earlier one: "the woman in the
    white shirt standing next to the man".
    """
    last = reader.draft
    if last.parent is not None and is_denied_part(last):
        return last.parent
    verb = reader.tokens[reader.at]
    while verb.pos_ not in (*_VERBAL, *_NOMINAL) and verb.head.i != verb.i:
        verb = verb.head
    if verb.pos_ not in _VERBAL or last.noun_at is None or verb.i <= last.noun_at:
        return last
    if verb.i == reader.tokens[reader.at].i and verb.dep_ != "relcl":  # "left" is often taken for a verb
        return last
    own = [child for child in verb.children if _is_subject(child)]
    subjects = [verb.head] if verb.dep_ in ("acl", "relcl") else own
    draft: Draft | None = last
    while draft is not None:
        if any(draft.noun_at == subject.i for subject in subjects):
            return draft
        draft = draft.parent
    return last


def is_denied_part(draft: Draft) -> bool:
    """Whether a description is of what its owner is said to lack, "no handle", and which is therefore nowhere."""
    if draft.parent is None or not draft.parent.relations:
        return False
    kind, references, negated = draft.parent.relations[-1]
    return kind == "with" and negated and any(reference is draft for reference in references)


def begins_with_subject(reader: Reader) -> bool:
    """Whether a noun phrase is read next that a following verb is about: "the mug (that) the box is behind"."""
    index = reader.at + (reader.ahead() in ("that", "which", "who"))
    noun = next((token for token in reader.tokens[index:] if token.pos_ in _NOMINAL), None)
    return noun is not None and _is_subject(noun) and bool(noun.left_edge.i == reader.tokens[index].i)


def _is_subject(token: Any) -> bool:
    return token.dep_ in ("nsubj", "nsubjpass") and token.tag_ not in ("WDT", "WP")
