from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from risbench.machine.timing import TimingConfig
from risbench.reports.compare import Thresholds, compare_reports
from risbench.reports.stored import read_report
from risbench.speed import native
from risbench.speed.native import markdown_native, measure_native
from risengine.errors import BackendError

ANSWERS = """#!/bin/sh
echo answered
while read -r order; do
    case "$order" in encode) echo 30 ;; peak) echo 2097152 ;; *number*) echo 4 ;; *) echo 0.5 ;; esac
done
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for both processes."""
    path = tmp_path / "program"
    path.write_text(ANSWERS, encoding="ascii")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def test_both_sides_are_asked_the_same(program: Path, tmp_path: Path) -> None:
    report = measure_native(program, "tabletop", 1, TimingConfig(0, 2, 0))
    for side in report.sides.values():
        figures = [timing.p50_ms for timing in (side.encode, side.ask, side.ask_again)]
        assert (figures, side.peak_mib) == ([30, 4, 0.5], 2)
        assert [timing.runs for timing in (side.cold_start, side.encode, side.ask)] == [1, 2, 20]
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(report))
    assert read_report(path) == report
    assert not any(change.regressed for change in compare_reports(report, report, Thresholds()))
    assert "| 30 | 4 | 0.5 | 2 |" in markdown_native(report)


def test_a_program_that_ends_between_two_orders(program: Path) -> None:
    program.write_text("#!/bin/sh\necho answered\nexit 3\n", encoding="ascii")
    with native._worker([str(program)]) as worker, pytest.raises(BackendError, match="ended with status 3"):
        sum(worker.order("encode") for _ in range(100))


def test_a_program_that_fails(program: Path) -> None:
    program.write_text("#!/bin/sh\nexit 3\n", encoding="ascii")
    with pytest.raises(BackendError, match="ended with status 3"):
        measure_native(program, "tabletop", 1, TimingConfig(0, 1, 0))
