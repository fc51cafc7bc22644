"""Which shared libraries a provider of ONNX Runtime finds here, told without starting it."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from pathlib import Path

__all__ = ["missing_libraries", "shared_library_version"]

_FILES = {"tensorrt": "libnvinfer.so", "tensorrt_rtx": "libtensorrt_rtx.so"}
_VERSION_PARTS = ("Major", "Minor", "Patch", "Build")
_LOAD, _DYNAMIC = 1, 2  # ELF's kinds of segments
_END, _NEEDED, _STRINGS = 0, 1, 5  # and of entries in the dynamic one


def shared_library_version(library: str, version: str, folder: Path | None = None) -> str | None:
    """Returns the version of TensorRT's or TensorRT-RTX's shared library that a provider of ONNX Runtime uses.

    A provider has no way to say; the copy is found as the loader finds it: that of its name which this process has
    loaded (a plug-in loads its own when it is registered), else the one beside the provider, else one on the loader's
    path.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: A version of the major version looked for, which is part of the file's name.
        folder: Where the provider's own library lies.

    Returns:
        Such as ``1.7.1.116``; None where no library of that major version is found.
    """
    name = f"{_FILES[library]}.{version.partition('.')[0]}"
    beside = [] if folder is None else [(str(folder / name), ctypes.DEFAULT_MODE)]
    loaded = getattr(os, "RTLD_NOLOAD", ctypes.DEFAULT_MODE)
    for path, mode in [(name, loaded), *beside, (name, ctypes.DEFAULT_MODE)]:
        try:
            found = ctypes.CDLL(path, mode)
            return ".".join(str(getattr(found, f"getInferLib{part}Version")()) for part in _VERSION_PARTS)
        except (OSError, AttributeError):
            continue
    return None


def missing_libraries(path: Path) -> tuple[str, ...]:
    """Returns what the loader says of each library that a shared library needs and it does not find.

    The library itself is not loaded: a provider that is loaded before ONNX Runtime does so is never introduced to it.

    Args:
        path: An ELF file of 64 bits; of another format nothing is known, and nothing said to be missing.
    """
    refusals = []
    for name in _needed(path):
        beside = path.parent / name
        try:
            ctypes.CDLL(str(beside) if beside.exists() else name)
        except OSError as error:
            refusals.append(str(error))
    return tuple(refusals)


def _needed(path: Path) -> list[str]:
    """Reads the names of an ELF file's ``DT_NEEDED``; see https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            return []
        (first,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
        loaded: list[tuple[int, int, int]] = []  # address, size and place in the file
        entries: list[tuple[int, int]] = []
        for index in range(count):
            kind, _, place, address, _, length = struct.unpack_from("<IIQQQQ", data, first + index * size)
            if kind == _LOAD:
                loaded.append((address, length, place))
            if kind == _DYNAMIC:
                entries += struct.iter_unpack("<QQ", data[place : place + length - length % 16])
        entries = entries[: next((n for n, (kind, _) in enumerate(entries) if kind == _END), None)]
        strings = next((value for kind, value in entries if kind == _STRINGS), 0)
        table = next((strings - at + place for at, length, place in loaded if at <= strings < at + length), None)
        if table is None:
            return []
        starts = [table + value for kind, value in entries if kind == _NEEDED]
        return [data[start : data.find(b"\0", start)].decode() for start in starts]
