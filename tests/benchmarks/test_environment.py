from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from risbench.machine import environment
from risbench.machine.environment import read_environment


def write_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_what_the_machine_and_its_tools_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tool(
        tmp_path, "nvidia-smi", 'case "$*" in *driver_version*csv*) echo "H9, 999.1, 1000 MHz"; echo "H8, 2";; esac'
    )
    write_tool(tmp_path, "nvpmodel", 'echo "NV Power Mode: MAXN"; echo 0')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "scaling_governor").write_text("performance\n")
    (tmp_path / "scaling_max_freq").write_text("3500000\n")
    monkeypatch.setattr(environment, "_CLOCK", tmp_path)
    found = read_environment()
    assert found.gpus == ("H9, 999.1, 1000 MHz", "H8, 2")
    assert found.power_mode == "NV Power Mode: MAXN 0"
    assert found.cpu_clock == "performance, at most 3.50 GHz"
    assert found.packages["numpy"] == np.__version__
    assert found.load_average is not None
    assert found.load_average >= 0


def test_tools_that_are_missing_or_fail_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tool(tmp_path, "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "_CLOCK", tmp_path / "none")
    found = read_environment()
    assert (found.gpus, found.power_mode, found.cpu_clock) == ((), "", "")
