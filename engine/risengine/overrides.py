"""What the user of a bundle may set anew without building it again."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import msgspec
import numpy as np

from risengine.errors import InputError
from risengine.manifest import Manifest
from risengine.method import Method, ProposalSettings

__all__ = ["RUNTIME_WEIGHTS", "apply_overrides"]

RUNTIME_WEIGHTS = ("global_weight", "sentence_weight")
"""Fields of :class:`~risengine.method.Method` that are not fixed when the bundle is built: v and r."""

_Settings = TypeVar("_Settings", Method, ProposalSettings)


def apply_overrides(manifest: Manifest, overrides: Mapping[str, object]) -> tuple[Method, ProposalSettings]:
    """Returns a bundle's method and proposal settings with the user's values in place of some of the bundle's.

    Args:
        manifest: The bundle's facts; unchanged.
        overrides: By name: :data:`RUNTIME_WEIGHTS` and the fields of :class:`~risengine.method.ProposalSettings`.

    Raises:
        InputError: A name is unknown or belongs to what is fixed when the bundle is built, or a value has the wrong
            type or range.
    """
    adjustable = {field.name for field in fields(ProposalSettings)}
    for name in overrides:
        if name not in adjustable and name not in RUNTIME_WEIGHTS:
            raise InputError(_refusal(name, [*RUNTIME_WEIGHTS, *sorted(adjustable)]))
    weights = {name: value for name, value in overrides.items() if name in RUNTIME_WEIGHTS}
    settings = {name: value for name, value in overrides.items() if name in adjustable}
    return _replaced(manifest.method, weights), _replaced(manifest.proposals, settings)


def _refusal(name: str, known: list[str]) -> str:
    if name in {field.name for field in fields(Method)}:
        return (
            f"{name} is fixed when the bundle is built; at run time {' and '.join(RUNTIME_WEIGHTS)} can be set. "
            "Build another bundle with `risengine build` for another value."
        )
    close = difflib.get_close_matches(name, known, n=1)
    advice = f"Did you mean {close[0]}?" if close else f"Use one of {', '.join(known)}."
    return f"{name} is no setting of an engine. {advice}"


def _replaced(settings: _Settings, values: Mapping[str, object]) -> _Settings:
    """``dataclasses.replace`` that also checks the types, as the manifest's reader does; NumPy's values are taken."""
    plain = {name: _plain(value) for name, value in values.items()}
    try:
        return msgspec.convert({**asdict(settings), **plain}, type(settings))
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        problem, _, place = str(error).partition(" - at `$.")
        raise InputError(f"{place.rstrip('`')}: {problem[:1].lower()}{problem[1:]}. Pass such a value.") from error


def _plain(value: Any) -> Any:
    """Python's own numbers and lists for NumPy's, also inside of lists and tuples."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
