"""Expressions that people wrote by looking at the shipped held-out scenes: the words no generator made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from risengine.errors import InputError

__all__ = ["Spoken", "load_spoken"]


@dataclass(frozen=True)
class Spoken:
    """One expression about an image, the annotation of its target, and what singles that out."""

    image_id: int
    ann_id: int
    kind: str
    text: str


def load_spoken(root: Path) -> list[Spoken]:
    """Reads ``tabletop/spoken.json`` below REFER's data folder.

    Raises:
        InputError: The file is missing or malformed.
    """
    path = root / "tabletop" / "spoken.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Spoken])
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a list of expressions. Restore the file."
        ) from error
