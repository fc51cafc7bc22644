"""Pickles as data: containers, numbers and strings, and nothing that a pickle could import or run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from risengine.errors import InputError

__all__ = ["read_plain_pickle"]


def read_plain_pickle(path: Path) -> Any:
    """Reads a pickle of either Python generation.

    Args:
        path: The file, pickle protocol 0 to 5.

    Returns:
        Dicts, lists, numbers, None and str. Python 2's byte strings are decoded as UTF-8, else as Latin-1; tuples
        become lists.

    Raises:
        InputError: The pickle asks for a class or a function, or is damaged.
    """
    try:
        loaded = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return _decode_strings(loaded)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(
            f"{path} was refused: {error}. Expected a complete pickle of plain containers, numbers and strings."
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """Plain values need no global name; everything that a pickle can call does."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _decode_strings(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if isinstance(value, dict):
        return {_decode_strings(key): _decode_strings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_decode_strings(item) for item in value]
    return value
