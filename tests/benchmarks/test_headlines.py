"""The tables over several reports hold each report's own figures, beside those that they may be compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import latency_report, stored, without_reference

from risbench.quality.accuracy import AccuracyReport
from risbench.reports.headlines import gain_headline, latency_headline


@pytest.fixture(scope="module")
def reports() -> list[AccuracyReport]:
    found = [stored("accuracy-tabletop-spatial"), stored("accuracy-tabletop")]
    assert all(isinstance(report, AccuracyReport) for report in found)
    return [report for report in found if isinstance(report, AccuracyReport)]


def _miou(report: AccuracyReport, split: str) -> float:
    return 100 * report.splits[split].kinds["all"].answers.miou


def test_the_gain_is_the_difference_of_two_reports(reports: list[AccuracyReport]) -> None:
    spatial, paper = reports
    table = gain_headline(list(reversed(reports))).splitlines()[2:]
    assert [row.split(" | ")[0] for row in table] == ["| scenes", "| compositional"]
    for row, split in zip(table, ("scenes", "compositional"), strict=True):
        ours, theirs = _miou(spatial, split), _miou(paper, split)
        assert row.endswith(f"| 16 | {ours:.1f} | {theirs:.1f} | {ours - theirs:+.1f} |")


def test_only_equal_conditions_are_compared(reports: list[AccuracyReport]) -> None:
    spatial, paper = reports
    elsewhere = replace(paper, config=replace(paper.config, refer=Path("/elsewhere")))
    assert gain_headline([spatial, elsewhere]) == gain_headline(reports)
    for other in (
        replace(paper, config=replace(paper.config, seed=1)),
        replace(paper, bundle=replace(paper.bundle, id="another")),
        replace(paper, bundle=replace(paper.bundle, proposals=replace(paper.bundle.proposals, points_per_side=32))),
    ):
        assert len(gain_headline([spatial, other]).splitlines()) == 2


def test_latency_is_beside_the_reference_fastest_first() -> None:
    slow, fast = latency_report(prompts_ms=1200.0), latency_report(prompts_ms=100.0)
    rows = latency_headline([slow, without_reference(fast), fast]).splitlines()[2:]
    assert rows == [
        "| known | 0.1 / 1.3 | 8.4 x | 10 / 10 | 1.0 x | 0.0 / 0.0 | 5 / 5 |",
        "| known | 1.2 / 1.3 | 1.0 x | 10 / 10 | 1.0 x | 0.0 / 0.0 | 5 / 5 |",
    ]


def test_latency_without_cold_starts() -> None:
    report = latency_report()
    sides = {name: replace(side, cold=()) for name, side in report.sides.items()}
    assert latency_headline([replace(report, sides=sides)]).endswith("| 1.0 x | - | - |")
