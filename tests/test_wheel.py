"""The distribution as a user gets it: a wheel, alone in an empty environment."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_alone_runs_the_demo(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"risengine", "risexport", "risbench"}

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0
    demo = subprocess.run([python.parent / "risengine", "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert (tmp_path / "out" / "demo" / "contact_sheet.png").is_file()
