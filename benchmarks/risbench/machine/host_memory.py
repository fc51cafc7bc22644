"""Resident memory of this process, from the files in which Linux tells of it."""

from __future__ import annotations

from pathlib import Path

from risengine.errors import BackendError

__all__ = ["MIB", "begin_peak", "check_measurable", "is_measurable", "peak_bytes", "read_bytes"]

MIB = 2**20

_RESET = Path("/proc/self/clear_refs")


def is_measurable() -> bool:
    """Tells whether the system says how much memory a process takes."""
    return _RESET.exists()


def check_measurable() -> None:
    """Refuses a system on which memory cannot be measured.

    Raises:
        BackendError: The system does not say how much memory a process takes.
    """
    if not is_measurable():
        raise BackendError("peak memory is read from Linux's /proc, which is missing here. Measure it on Linux.")


def begin_peak() -> None:
    """Forgets the highest resident memory so far: ``getrusage`` would report the parent's, or that of the loading."""
    _RESET.write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Returns the highest resident memory of this process since :func:`begin_peak`."""
    return read_bytes("/proc/self/status", "VmHWM")


def read_bytes(path: str, name: str) -> int:
    """Returns a size in bytes from one of the files that Linux writes in lines of ``name: value kB``.

    Raises:
        BackendError: The file has no such line.
    """
    for line in Path(path).read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise BackendError(f"{path} has no {name}; expected one, as Linux writes it. Measure memory on another system.")
