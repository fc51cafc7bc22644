"""Options and outputs that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np

from risengine.cli.fields import PROPOSAL_OPTIONS, add_field_options
from risengine.method import ProposalSettings
from risengine.output import write_atomically

__all__ = ["add_outputs", "add_overrides", "add_threads", "overrides_of", "plain", "write_json", "write_text"]


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds ``--threads``."""
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of either side (default: all)")


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Adds ``--json`` and ``--markdown``."""
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures and their conditions here")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the table of a README here")


def add_overrides(parser: argparse.ArgumentParser, title: str = "in place of the bundle's settings") -> None:
    """Adds an option for every proposal setting; :func:`overrides_of` reads them."""
    add_field_options(parser.add_argument_group(title), ProposalSettings, PROPOSAL_OPTIONS, unset="the bundle's")


def overrides_of(options: argparse.Namespace) -> dict[str, object]:
    """Returns the proposal settings that were given, by field."""
    return {name: value for name in PROPOSAL_OPTIONS if (value := getattr(options, name)) is not None}


def write_json(path: Path | None, report: object) -> None:
    """Writes a report, a dataclass of plain values, paths and NumPy's numbers; nothing without a path."""
    if path is not None:
        data = msgspec.json.format(msgspec.json.encode(report, enc_hook=plain), indent=2)
        write_atomically(path, lambda file: file.write(data + b"\n"))


def write_text(path: Path | None, text: str) -> None:
    """Writes a text with a line's end behind it; nothing without a path."""
    if path is not None:
        write_atomically(path, lambda file: file.write(f"{text}\n".encode()))


def plain(value: object) -> object:
    """Turns paths and NumPy's numbers into what JSON has a form for."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a report holds a {type(value).__name__}, which JSON has no form for")
