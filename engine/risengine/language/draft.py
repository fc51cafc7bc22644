"""A description in the making, and what becomes of its words when it is finished."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from risengine.language.expression import Description, Ordinal, Place, Relation, RelationKind, Size
from risengine.language.lexicon import COLOURS, GENERIC, IRREGULAR, ONLY_PLURAL, SIZES

__all__ = ["Draft", "singular"]


_FIRST_FROM: dict[RelationKind, Place] = {"left": "right", "right": "left", "front": "back", "behind": "front"}
"""Where things are counted from that stand so to another: from the one beside it."""


@dataclass
class Draft:
    """A description in the making."""

    parent: Draft | None = None
    words: list[str] = field(default_factory=list)
    article: str = ""
    noun: str = ""
    noun_at: int | None = None  # spaCy's index of it
    noun_is_plural: bool = False
    places: list[Place] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    ordinal: int = 0
    ordinal_side: Place | None = None
    relations: list[tuple[RelationKind, list[Draft], bool]] = field(default_factory=list)
    excluded: list[list[str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said of it so far."""
        return self.noun_at is None and not (self.noun or self.words or self.places or self.sizes or self.ordinal)

    def become_owned(self) -> None:
        """Makes all that was said so far the description of an owner, near whom the described thing is."""
        owner = replace(self, parent=self)
        vars(self).update(vars(Draft(parent=self.parent, article="the", relations=[("next", [owner], False)])))
        owner.relations, self.relations = [], [*owner.relations, *self.relations]

    def finish(self, antecedent: str) -> Description:
        """Makes the value; ``antecedent`` is the noun that "one" stands for."""
        noun = self.noun or antecedent or "object"
        known = self.noun or antecedent
        phrase = " ".join([*([self.article] if self.article else []), *self.words, noun])
        places = list(dict.fromkeys(self.places))
        sizes = list(self.sizes)
        ordinal = Ordinal(self.ordinal, self.ordinal_side or "left") if self.ordinal else None
        if ordinal and self.ordinal_side is None and places:
            ordinal = Ordinal(self.ordinal, places.pop(0))
        elif ordinal and self.ordinal_side is None and sizes and sizes[-1].compared:  # "the second biggest"
            ordinal = Ordinal(self.ordinal, sizes.pop())
        elif ordinal and self.ordinal_side is None and self.relations:  # "the second mug to the left of the bowl"
            kind, _, negated = self.relations[0]
            side = None if negated else _FIRST_FROM.get(kind)
            ordinal = Ordinal(self.ordinal, side or "left")
        return Description(
            phrase=phrase,
            noun=noun,
            attributes=tuple(self.words),
            places=tuple(places),
            sizes=tuple(sizes),
            ordinal=ordinal,
            relations=tuple(
                Relation(kind, tuple(draft.finish(known) for draft in drafts), negated)
                for kind, drafts, negated in self._shared_nouns()
            ),
            excluded=tuple(self._excluded(words) for words in self.excluded if words),
            plural=self.noun_is_plural,
            unread=tuple(self.unread),
        )

    def _shared_nouns(self) -> list[tuple[RelationKind, list[Draft], bool]]:
        """Returns the relations; the next reference names the one before: "left of the red and the blue box"."""
        drafts = [(kind, draft) for kind, references, _ in self.relations for draft in references]
        for (kind, draft), (following, named) in itertools.pairwise(drafts):
            if kind == following and draft.words and not draft.noun and draft.noun_at is None:
                draft.noun = named.noun
        return self.relations

    @staticmethod
    def _excluded(words: list[str]) -> str:
        bare = [word for word in words if word not in GENERIC]
        return " ".join([*bare, "object"]) if bare and bare[-1] in COLOURS | set(SIZES) else " ".join(bare or words)


def singular(word: str, token: Any) -> str:
    """Returns a plural's singular."""
    if word in ONLY_PLURAL:
        return word
    if word in IRREGULAR:
        return IRREGULAR[word]
    if token.tag_ not in ("NNS", "NNPS") or not word.endswith("s") or word.endswith("ss"):
        return word
    for ending, single in (("ies", "y"), ("xes", "x"), ("shes", "sh"), ("ches", "ch"), ("sses", "ss")):
        if word.endswith(ending):
            return word[: -len(ending)] + single
    return word[:-1]
