"""Writing results: checked before the work begins, and whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import Image

from risengine.errors import InputError

__all__ = ["check_image_path", "check_writable", "save_image", "write_atomically"]


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Checks that a file can be written at ``path``, and leaves nothing there.

    Returns:
        The path, absolute, links followed.

    Raises:
        InputError: The folder does not exist or is not writable, or the path names a folder, a device or the like.
    """
    try:
        target = Path(path).expanduser().resolve()
        if target.exists() and not target.is_file():
            raise InputError(f"output path {target} is a folder or a device; expected a file. Choose a file name.")
        if not target.parent.is_dir():
            raise InputError(f"output folder {target.parent} does not exist. Create it first.")
        _create(target.parent).unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder that cannot be found
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"output path {path} is not writable ({reason}). Choose another.") from error
    return target


def check_image_path(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> Path:
    """Checks that an image can be written at ``path``: the suffix names a format, the place is writable.

    Args:
        path: File to write later.
        suffixes: The only suffixes to accept; all that Pillow writes when empty.

    Raises:
        InputError: It cannot.
    """
    suffix = Path(path).suffix.lower()
    if suffixes and suffix not in suffixes:
        raise InputError(f"{path} ends in {suffix!r}; expected {' or '.join(suffixes)}. Rename it.")
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise InputError(f"cannot write an image to {path}: unknown suffix {suffix!r}. Use .png or .jpg.")
    return check_writable(path)


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Calls ``write`` on a temporary file beside ``path`` and renames it into place when it is complete.

    Raises:
        InputError: The file cannot be written; nothing is left behind, an older file stays as it was.
    """
    target = check_writable(path)
    temporary: Path | None = None
    try:
        temporary = _create(target.parent)
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{target} could not be written: {reason}. Free space or choose another path.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Writes an image in the format of the path's suffix (PNG, JPEG, WebP ...).

    Raises:
        InputError: The suffix names no image format, or the file cannot be written.
    """
    target = check_image_path(path)
    image_format = Image.registered_extensions()[target.suffix.lower()]
    write_atomically(target, lambda file: image.save(file, image_format))


def _create(folder: Path) -> Path:
    """Creates an empty file with a name of its own; unlike ``mkstemp`` with the permissions of ordinary files."""
    path = folder / f".risengine-{secrets.token_hex(8)}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return path
