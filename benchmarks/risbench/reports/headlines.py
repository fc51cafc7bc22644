"""What a README says first: short tables over several stored reports of one kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from risbench.quality.accuracy import ALL_KINDS, AccuracyReport
from risbench.speed.latency_report import RANDOM_WEIGHTS, REFERENCE, LatencyReport

__all__ = ["gain_headline", "latency_headline"]

_PAPER, _DEFAULT = "global_local", "spatial"


def gain_headline(reports: Sequence[AccuracyReport]) -> str:
    """Returns what the default strategy gains on the paper's score, as a Markdown table.

    Args:
        reports: Those of one bundle and one data set are set side by side where they ask the same points of SAM.
    """
    papers = {_conditions(report): report for report in reports if report.bundle.strategy == _PAPER}
    header = f"| mIoU, all expressions | n | points a side | {_DEFAULT} | {_PAPER} | gain |"
    rows: dict[str, list[str]] = {}
    for report in sorted(reports, key=lambda report: report.bundle.proposals.points_per_side):
        paper = papers.get(_conditions(report))
        if report.bundle.strategy != _DEFAULT or paper is None:
            continue
        for name, result in report.splits.items():
            ours, theirs = (side.kinds[ALL_KINDS].answers for side in (result, paper.splits[name]))
            points = report.bundle.proposals.points_per_side
            figures = f"{100 * ours.miou:.1f} | {100 * theirs.miou:.1f} | {100 * (ours.miou - theirs.miou):+.1f}"
            rows.setdefault(name, []).append(f"| {name} | {ours.count} | {points} | {figures} |")
    return "\n".join([header, "|---|---|---|---|---|---|", *itertools.chain(*rows.values())])


def latency_headline(reports: Sequence[LatencyReport]) -> str:
    """Returns whole answers beside the reference's, as a Markdown table.

    Args:
        reports: Those that have a reference are shown, with the engine's first device.
    """
    rows = [
        "| engine / PyTorch | image file to mask, s | | further expression, ms | | new process to first mask, s | "
        "peak memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for report in sorted(reports, key=lambda report: -report.ratios.get("whole", 0.0)):
        if REFERENCE not in report.sides:
            continue
        sides = [next(iter(report.sides.values())), report.sides[REFERENCE]]
        whole = [side.whole.p50_ms / 1e3 for side in sides]
        further = [side.further.p50_ms for side in sides]
        first = [[cold.answered_ms / 1e3 for cold in side.cold] for side in sides]
        peak = [[cold.peak_mib for cold in side.cold if cold.peak_mib is not None] for side in sides]
        cells = [
            report.bundle.name + (", random weights" if report.weights == RANDOM_WEIGHTS else ""),
            _pair(whole, 1),
            f"{whole[1] / whole[0]:.1f} x",
            _pair(further, 0),
            f"{further[1] / further[0]:.1f} x",
            _pair([median(values) for values in first], 1) if all(first) else "-",
            _pair([median(values) for values in peak], 0) if all(peak) else "-",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _conditions(report: AccuracyReport) -> tuple[str, str, str, str]:
    """What has to be equal for two reports to differ by their strategies alone."""
    config = replace(report.config, refer=Path())  # the same data may lie anywhere
    return report.bundle.id, repr(config), repr(report.bundle.proposals), repr(report.bundle.method)


def _pair(values: Sequence[float], digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)
