"""A description in the making, and what becomes of its words when it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from risengine.expression import Description, Ordinal, Place, Relation, RelationKind, Size
from risengine.lexicon import COLOURS, GENERIC, SIZES

__all__ = ["Draft", "singular"]


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

    def finish(self, antecedent: str) -> Description:
        """Makes the value; ``antecedent`` is the noun that "one" stands for."""
        noun = self.noun or antecedent or "object"
        known = self.noun or antecedent
        phrase = " ".join([*([self.article] if self.article else []), *self.words, noun])
        places = list(dict.fromkeys(self.places))
        ordinal = Ordinal(self.ordinal, self.ordinal_side or "left") if self.ordinal else None
        if ordinal and self.ordinal_side is None and places:
            ordinal = Ordinal(self.ordinal, places.pop(0))
        return Description(
            phrase=phrase,
            noun=noun,
            attributes=tuple(self.words),
            places=tuple(places),
            sizes=tuple(self.sizes),
            ordinal=ordinal,
            relations=tuple(
                Relation(kind, _finished(drafts, known), negated) for kind, drafts, negated in self.relations
            ),
            excluded=tuple(self._excluded(words) for words in self.excluded if words),
            plural=self.noun_is_plural,
            unread=tuple(self.unread),
        )

    @staticmethod
    def _excluded(words: list[str]) -> str:
        bare = [word for word in words if word not in GENERIC]
        return " ".join([*bare, "object"]) if bare and bare[-1] in COLOURS | set(SIZES) else " ".join(bare or words)


def _finished(references: list[Draft], antecedent: str) -> tuple[Description, ...]:
    """Makes the values of a relation's references; in "between the red and the blue box" the second names the first."""
    first, last = references[0], references[-1]
    shared = last.noun if first.words and not first.noun else ""
    return tuple(draft.finish(shared or antecedent) for draft in references)


def singular(word: str, token: Any) -> str:
    """Returns a regular plural's singular."""
    if token.tag_ not in ("NNS", "NNPS") or not word.endswith("s") or word.endswith("ss"):
        return word
    for ending, single in (("ies", "y"), ("xes", "x"), ("shes", "sh"), ("ches", "ch"), ("sses", "ss")):
        if word.endswith(ending):
            return word[: -len(ending)] + single
    return word[:-1]
