"""Writing results: checked before the work begins, and whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import Image

from risengine.errors import InputError

__all__ = ["check_writable", "save_image", "write_atomically"]


def check_writable(path: str | Path) -> Path:
    """Checks that a file can be created at ``path`` without creating it.

    Returns:
        The path, absolute.

    Raises:
        InputError: The folder does not exist or is not writable, or the path names a folder.
    """
    target = Path(path).expanduser().absolute()
    if target.is_dir():
        raise InputError(f"output path {target} is a folder; expected a file name.")
    if not target.parent.is_dir():
        raise InputError(f"output folder {target.parent} does not exist. Create it first.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(
            f"output folder {target.parent} is not writable ({error.strerror}). Choose another."
        ) from error
    return target


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Calls ``write`` on a temporary file beside ``path`` and renames it into place when it is complete.

    Raises:
        InputError: The file cannot be written; nothing is left behind, an older file stays as it was.
    """
    target = check_writable(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes private files; results are ordinary ones
        os.replace(name, target)
    except OSError as error:
        raise InputError(
            f"{target} could not be written: {error.strerror or error}. Free space or choose another path."
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def save_image(image: Image.Image, path: str | Path) -> None:
    """Writes an image in the format of the path's suffix (PNG, JPEG, WebP ...).

    Raises:
        InputError: The suffix names no image format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    image_format = Image.registered_extensions().get(suffix)
    if image_format is None or image_format not in Image.SAVE:
        raise InputError(f"cannot write an image to {path}: unknown suffix {suffix!r}. Use .png or .jpg.")
    write_atomically(path, lambda file: image.save(file, image_format))
