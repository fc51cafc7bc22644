"""Where a build writes: a hidden directory beside OUT, which takes OUT's place when it is complete, or goes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from risengine.errors import InputError
from risengine.manifest import MANIFEST_NAME

__all__ = ["check_out", "publish", "staging"]

_MARKS = ("format_version", "graphs", "method")
"""Keys that the manifest of a bundle has in every version of the format."""

_DISK_ERRORS = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS}


def check_out(out: Path, force: bool) -> None:
    """Checks that a bundle may be written to a path.

    Args:
        out: Directory of the new bundle, without symbolic links.
        force: Whether a bundle that is there, of any version, may be replaced.

    Raises:
        InputError: The path exists and is not to be replaced, is no bundle, or holds a file that is not the bundle's.
    """
    if not os.path.lexists(out):
        return
    if not force:
        raise InputError(f"{out} exists; expected a new directory. Choose another OUT, or pass --force to replace it.")
    manifest = _read_manifest(out)
    if manifest is None:
        raise InputError(
            f"{out} exists and is no bundle (expected {MANIFEST_NAME} with {', '.join(_MARKS)}); it is not replaced. "
            "Choose another OUT."
        )
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()}
    strange = sorted(present - _listed_files(manifest) - {MANIFEST_NAME})
    if strange:
        raise InputError(
            f"{out} holds {strange[0]}, which its {MANIFEST_NAME} does not list ({len(strange)} such in all); it is "
            "not replaced, for that would delete them. Move them away, or choose another OUT."
        )


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Yields a new directory beside ``out`` and removes what is left of it, and of parents made for it, afterwards.

    Args:
        out: Directory of the new bundle, without symbolic links.

    Raises:
        InputError: The directory cannot be made or written.
    """
    missing = [parent for parent in out.parents if not os.path.lexists(parent)]
    # A random name, so that what a killed build left behind is never in the way.
    folder = out.parent / f".{out.name}.building-{secrets.token_hex(4)}"
    try:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise _not_writable(out, error) from error
        yield folder
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise _not_writable(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a parent that holds something stays, above all one that holds the bundle
            for parent in missing:
                parent.rmdir()


def publish(folder: Path, out: Path, force: bool) -> None:
    """Renames the finished directory to ``out``; a replaced bundle is put back if that fails, else removed.

    Args:
        folder: Complete bundle on the same disk as ``out``.
        out: Its place.
        force: As in :func:`check_out`, which is asked again: something may have come there during the build.

    Raises:
        InputError: ``out`` may not be replaced or cannot be renamed.
    """
    check_out(out, force)
    replaced = folder.with_name(f"{folder.name}-replaced")
    try:
        if os.path.lexists(out):
            out.rename(replaced)
        folder.rename(out)
    except OSError as error:
        raise _not_writable(out, error) from error
    finally:
        if os.path.lexists(replaced) and not os.path.lexists(out):
            replaced.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)


def _not_writable(out: Path, error: OSError) -> InputError:
    return InputError(
        f"bundle {out} cannot be written: {error.strerror}. Choose an OUT in an ordinary directory of a writable disk "
        "with space."
    )


def _read_manifest(out: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((out / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and all(mark in content for mark in _MARKS) else None


def _listed_files(value: Any) -> set[str]:
    """Returns every ``file`` anywhere in a manifest, because other versions list theirs in other places."""
    if isinstance(value, list):
        return set().union(*map(_listed_files, value))
    if not isinstance(value, dict):
        return set()
    file = value.get("file")
    return set().union({file} if isinstance(file, str) else (), *map(_listed_files, value.values()))
