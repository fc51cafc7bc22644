"""Reading checkpoints without trusting them: tensors only, every refusal with its reason."""

from __future__ import annotations

import difflib
import pickle
import re
import struct
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from risengine.errors import InputError

__all__ = ["load_weights", "nearest_names", "read_state_dict"]

_SHOWN = 5
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint.

    A training checkpoint's ``state_dict`` (or ``model``) entry is taken, and the ``module.`` that data-parallel
    training puts in front of every name is removed.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.

    Returns:
        Tensors by name, on the CPU, in the file's own precision.

    Raises:
        InputError: The file is missing, empty, truncated or of another kind, needs more than tensors to be unpickled
            (which could run any code), or holds no state dict.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path}: expected a file, found {'a folder' if path.is_dir() else 'nothing'}.")
    if path.stat().st_size == 0:
        raise InputError(f"checkpoint {path} is empty (0 bytes). Download or copy it again.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"checkpoint {path} holds a {type(content).__name__}; expected a state dict of named tensors.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"checkpoint {path}: entry {name!r} is a {type(value).__name__}; expected a state dict of named "
                f"tensors, or one under {', '.join(map(repr, _WRAPPERS))}."
            )
    prefix = "module."
    prefixed = all(name.startswith(prefix) for name in content)
    return {name.removeprefix(prefix) if prefixed else name: value for name, value in content.items()}


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    name_in_file: Callable[[str], str] = lambda name: name,
) -> None:
    """Loads a state dict strictly, in the module's precision.

    Args:
        module: Receives the weights.
        state: Tensors by name.
        source: Where they come from and what they should be, for messages.
        name_in_file: Returns the name in ``state`` of a tensor of the module, where the two differ.

    Raises:
        InputError: A key is missing or unexpected, a tensor has another shape than the module's, or holds NaN or
            infinity.
    """
    expected = {name_in_file(name): value for name, value in module.state_dict().items()}
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        raise InputError(
            f"{source}: keys differ from the model's; missing: {_listed(missing)}; unexpected: {_listed(unexpected)}. "
            "The checkpoint is of another architecture or is incomplete; name the model that it belongs to."
        )
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise InputError(
                f"{source}: {name} has shape {tuple(value.shape)}, the model expects {tuple(expected[name].shape)}. "
                "The checkpoint is of another architecture; name the model that it belongs to."
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{source}: {name} holds NaN or infinity. The checkpoint is damaged; get it again.")
    module.load_state_dict({name: state[name_in_file(name)] for name in module.state_dict()})


def nearest_names(name: str, known: Collection[str]) -> str:
    """Returns known names that resemble a mistyped one, or all of them, for a message."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(sorted(known))}."


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} is damaged or no safetensors file: {error}. Get it again.") from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        if needed is None:
            raise InputError(f"checkpoint {path} is damaged or no file of torch.save. Get it again.") from error
        raise InputError(
            f"checkpoint {path} is refused: unpickling it calls {needed[1]}, and a file that may call code can run "
            "any. Expected tensors only: ask its author for a state dict or .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, struct.error) as error:
        reason = str(error).partition(".")[0]
        raise InputError(f"checkpoint {path} is truncated or no file of torch.save: {reason}. Get it again.") from error


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
