"""What an expression says, as a value: the target, what it is like, where it is, and beside what."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

__all__ = ["COMPARISONS", "Description", "Ordinal", "Place", "Relation", "RelationKind", "Size", "SizeKind"]

Place: TypeAlias = Literal["left", "right", "top", "bottom", "front", "back", "middle", "corner"]
SizeKind: TypeAlias = Literal["big", "small", "tall", "short", "wide", "narrow"]
RelationKind: TypeAlias = Literal[
    "left", "right", "front", "behind", "above", "below", "on", "next", "far", "inside", "with", "between",
    "bigger than", "smaller than", "taller than", "shorter than", "wider than", "narrower than",
]  # fmt: skip

COMPARISONS: Mapping[RelationKind, SizeKind] = MappingProxyType({
    "bigger than": "big", "smaller than": "small", "taller than": "tall", "shorter than": "short",
    "wider than": "wide", "narrower than": "narrow",
})  # fmt: skip
"""The size that two things are compared by."""


@dataclass(frozen=True)
class Size:
    """A size word; ``compared`` for "smallest" and "smaller", which only the other objects give a meaning."""

    kind: SizeKind
    compared: bool


@dataclass(frozen=True)
class Ordinal:
    """A place in a row: ``number`` from 1, counted from ``side``; the last is -1, the second to last -2.

    "The second biggest" is counted from the biggest: its ``side`` is a size.
    """

    number: int
    side: Place | Size

    @property
    def words(self) -> str:
        """What was read, as a name: "2 from left", "2 from most big"."""
        return f"{self.number} from {f'most {self.side.kind}' if isinstance(self.side, Size) else self.side}"


@dataclass(frozen=True)
class Relation:
    """Where the described object is as seen from its references: two for "between A and B", else one.

    ``negated`` where it is said not to be there: "not behind the box".
    """

    kind: RelationKind
    references: tuple[Description, ...]
    negated: bool = False

    @property
    def words(self) -> str:
        """What was read, as a name: "not behind the box"."""
        named = f"{self.kind} {', '.join(reference.phrase for reference in self.references)}"
        return f"not {named}" if self.negated else named

    def name_beside(self, taken: Container[str]) -> str:
        """Returns :attr:`words`, numbered where they are taken: "next to the box on the left and next to the box"."""
        numbered = (f"{self.words} ({number})" for number in itertools.count(2))
        return next(name for name in itertools.chain([self.words], numbered) if name not in taken)


@dataclass(frozen=True)
class Description:
    """A parsed noun phrase with all that hangs on it; a reference is described in the same way.

    Attributes:
        phrase: The words that say what the object looks like, for the text encoder: article, attributes, noun.
        noun: Its noun, singular where a plural was said; "object" where none was.
        attributes: The words before the noun.
        places: Places and superlatives of place: "the leftmost", "at the back", "bottom right" (two of them).
        sizes: Size words; those that are not ``compared`` are in ``phrase`` too.
        ordinal: "second from the left".
        relations: To other objects, each described.
        excluded: Phrases that must not fit: "not the red one" gives "red object".
        plural: Whether several objects are meant, as the reference of "between the two plates".
        unread: Words that nothing was made of.
    """

    phrase: str
    noun: str
    attributes: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    sizes: tuple[Size, ...] = ()
    ordinal: Ordinal | None = None
    relations: tuple[Relation, ...] = ()
    excluded: tuple[str, ...] = ()
    plural: bool = False
    unread: tuple[str, ...] = ()

    @property
    def needs_geometry(self) -> bool:
        """Whether anything was said that features alone do not answer."""
        compared = any(size.compared for size in self.sizes)
        return bool(self.places or compared or self.ordinal or self.relations or self.excluded)

    def walk(self, denied: bool = True) -> Iterator[Description]:
        """Yields this description and those of all references, in the order of the text.

        Args:
            denied: Whether to go into what a negated relation names.
        """
        yield self
        for relation in self.relations:
            for reference in relation.references if denied or not relation.negated else ():
                yield from reference.walk(denied)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON-ready values; what was not said is left out."""
        said: dict[str, Any] = {
            "attributes": list(self.attributes),
            "places": list(self.places),
            "sizes": [f"{size.kind}, compared" if size.compared else size.kind for size in self.sizes],
            "ordinal": self.ordinal.words if self.ordinal else "",
            "relations": [
                {
                    "kind": f"not {relation.kind}" if relation.negated else relation.kind,
                    "references": [reference.to_dict() for reference in relation.references],
                }
                for relation in self.relations
            ],
            "excluded": list(self.excluded),
            "unread": list(self.unread),
        }
        return {"phrase": self.phrase, "noun": self.noun, **{name: value for name, value in said.items() if value}}
