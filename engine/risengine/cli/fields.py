"""Command-line options made from the fields of a settings dataclass, so that their names and help exist once."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Collection
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from risengine.method import ProposalSettings

__all__ = ["PROPOSAL_OPTIONS", "add_field_options"]

PROPOSAL_OPTIONS = tuple(field.name for field in fields(ProposalSettings) if field.name != "point_grids")
"""Fields of :class:`~risengine.method.ProposalSettings` that are options; points of one's own are for programs."""


def add_field_options(
    parser: argparse._ActionsContainer, settings: type, names: Collection[str], unset: str | None = None
) -> None:
    """Adds ``--some-name`` for each named field, with the type of the field and the help of its class's docstring.

    Args:
        parser: Parser or group of options.
        settings: A dataclass whose fields are numbers, strings or literals; its docstring lists them as ``Attributes``.
        names: The fields to offer.
        unset: What an option left out means, for the help; it is then None. Without this the field's own default is it.
    """
    types, help_of = get_type_hints(settings), _attribute_help(settings)
    for field in fields(settings):
        if field.name not in names:
            continue
        annotation = types[field.name]
        kind: dict[str, Any] = (
            {"choices": get_args(annotation)}
            if get_origin(annotation) is Literal
            else {"type": annotation, "metavar": annotation.__name__.upper()}
        )
        meaning = help_of.get(field.name, "").rstrip(".").replace("%", "%%")
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=field.default if unset is None else None,
            help=f"{meaning} (default: {field.default if unset is None else unset})",
            **kind,
        )


def _attribute_help(settings: type) -> dict[str, str]:
    """Returns the text of every attribute in a Google docstring, on one line and without its markup."""
    _, _, attributes = (inspect.getdoc(settings) or "").partition("Attributes:\n")  # `python -OO` leaves none
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}
