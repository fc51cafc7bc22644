"""Plots of reports as SVG that stands in a page by itself."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from risbench.quality.accuracy import AccuracyReport
from risbench.quality.agreement import ALL_SPLITS, AgreementReport
from risbench.reports.stored import Report
from risbench.speed.latency_report import LatencyReport, SideResult
from risbench.speed.whole_path import STAGES

__all__ = ["plot_accuracy", "plot_distribution", "plot_roofline", "plot_sides", "plot_waterfall"]

_SHOWN_SHARE = 0.001
"""Share of the whole below which a stage gets no label: it would be drawn over its neighbour's."""


def plot_waterfall(report: LatencyReport) -> str:
    """Draws the stages of each side one after the other, each side as a share of its own whole."""
    figure = Figure(figsize=(9, 0.9 + 1.9 * len(report.sides)), layout="constrained")
    for axes, (name, side) in zip(_column(figure, len(report.sides)), report.sides.items(), strict=True):
        durations_ms = [stage.timing.p50_ms for stage in side.stages.values()]
        starts_ms = np.concatenate([[0], np.cumsum(durations_ms)[:-1]])
        rows = np.arange(len(durations_ms))
        axes.barh(rows, durations_ms, left=starts_ms, color=[f"C{row}" for row in rows])
        axes.set_yticks(rows, list(side.stages), fontsize=7)
        axes.invert_yaxis()
        axes.set_title(f"{name}: {side.whole.p50_ms:,.0f} ms", fontsize=9, loc="left")
        axes.tick_params(axis="x", labelsize=7)
        end_ms = sum(durations_ms)
        axes.set_xlim(0, 1.12 * end_ms)
        for row, start_ms, duration_ms in zip(rows, starts_ms, durations_ms, strict=True):
            if duration_ms > _SHOWN_SHARE * end_ms:
                label = f"{duration_ms:,.0f}" if duration_ms >= 100 else f"{duration_ms:.3g}"
                axes.text(start_ms + duration_ms + 0.005 * end_ms, row, label, va="center", fontsize=7)
    figure.supxlabel("milliseconds, medians", fontsize=8)
    return _svg(figure, f"waterfall {report.bundle.id}")


def plot_sides(reports: Sequence[LatencyReport]) -> str:
    """Draws every side of every report as one bar of its stages, on one scale."""
    bars = [(f"{report.bundle.name}, {name}", side) for report in reports for name, side in report.sides.items()]
    longest_s = max(side.whole.p50_ms for _, side in bars) / 1e3
    figure = Figure(figsize=(9, 1.1 + 0.34 * len(bars)), layout="constrained")
    axes = figure.subplots()
    ends = np.zeros(len(bars))
    for number, stage in enumerate(STAGES):
        durations_s = np.array(
            [side.stages[stage].timing.p50_ms / 1e3 if stage in side.stages else 0 for _, side in bars]
        )
        visible = durations_s.max() > _SHOWN_SHARE * longest_s
        axes.barh(range(len(bars)), durations_s, left=ends, color=f"C{number}", label=stage if visible else None)
        ends += durations_s
    for row, (end_s, (_, side)) in enumerate(zip(ends, bars, strict=True)):
        axes.text(end_s, row, f" {side.whole.p50_ms / 1e3:.1f} s", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * longest_s)
    axes.set_xlabel("seconds from the image's file to the mask", fontsize=8)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)
    figure.legend(loc="outside upper center", ncols=len(STAGES), fontsize=7)
    return _svg(figure, "sides")


def plot_distribution(report: LatencyReport) -> str:
    """Draws the share of runs that took at most so long, of each side."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, side in report.sides.items():
        ordered = np.sort(side.whole_ms)
        shares = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step([ordered[0], *ordered], [0, *shares], where="post", label=f"{name} ({len(ordered)} runs)")
        axes.plot(ordered, shares, ".", color=axes.lines[-1].get_color(), markersize=4)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from the image's file to the mask", fontsize=8)
    axes.set_ylabel("share of runs", fontsize=8)
    _finish(axes)
    return _svg(figure, f"distribution {report.bundle.id}")


def plot_roofline(report: LatencyReport) -> str:
    """Draws the engine's stages below what the machine's GEMM rate and its memory allow."""
    machine = report.machine
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    points = list(_intensities(report.engine))
    ridge = machine.gemm / machine.copy_gbyte_per_s
    found = [intensity for _, intensity, _ in points]
    line = np.geomspace(min([*found, ridge]) / 4, max([*found, ridge]) * 4, 200)
    axes.plot(line, [machine.roof(value) for value in line], color="black", label="limit measured in this run")
    for name, intensity, rate in points:
        axes.plot(intensity, rate, "o")
        axes.annotate(name, (intensity, rate), textcoords="offset points", xytext=(6, -3), fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic per byte that goes in and out of the stage's graphs, FLOP/B", fontsize=8)
    axes.set_ylabel("GFLOP/s", fontsize=8)
    _finish(axes)
    return _svg(figure, f"roofline {report.bundle.id}")


def plot_accuracy(reports: Mapping[str, Report]) -> str | None:
    """Draws mIoU against time for all reports together; None where none has both.

    An agreement gives a point to each of its two bundles, at the time of the proposal stage. A latency and an accuracy
    of one bundle at one choice of settings give points at the time of a whole answer.
    """
    stage, whole = list(_agreement_points(reports)), list(_answer_points(reports))
    if not stage and not whole:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = [(points, title) for points, title in ((whole, "whole answer"), (stage, "proposal stage")) if points]
    for axes, (points, title) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for number, (name, duration_ms, miou) in enumerate(points):
            axes.plot(duration_ms, 100 * miou, "os^Dv"[number % 5], label=name)
        axes.margins(0.25)
        axes.set_xlabel(f"{title}, milliseconds", fontsize=8)
        axes.set_ylabel("mIoU, %", fontsize=8)
        _finish(axes)
    return _svg(figure, "accuracy")


def _agreement_points(reports: Mapping[str, Report]) -> Sequence[tuple[str, float, float]]:
    points = []
    for name, report in reports.items():
        if isinstance(report, AgreementReport):
            total = report.splits[ALL_SPLITS]
            points.append((f"{name}: A", total.proposal_ms_a, total.end_to_end.miou_a))
            points.append((f"{name}: B", total.proposal_ms_b, total.end_to_end.miou_b))
    return points


def _answer_points(reports: Mapping[str, Report]) -> Sequence[tuple[str, float, float]]:
    points = []
    for latency in reports.values():
        for name, accuracy in reports.items():
            if (
                isinstance(latency, LatencyReport)
                and isinstance(accuracy, AccuracyReport)
                and (latency.bundle.id, latency.bundle.proposals) == (accuracy.bundle.id, accuracy.bundle.proposals)
            ):
                points += [
                    (f"{name}: {split}", latency.engine.whole.p50_ms, result.kinds["all"].answers.miou)
                    for split, result in accuracy.splits.items()
                ]
    return points


def _intensities(side: SideResult) -> Sequence[tuple[str, float, float]]:
    return [
        (name, stage.gflop / stage.gbyte, stage.gflop_per_s)
        for name, stage in side.stages.items()
        if stage.gflop and stage.gbyte and stage.gflop_per_s
    ]


def _column(figure: Figure, count: int) -> Sequence[Any]:
    return list(np.atleast_1d(figure.subplots(count, 1)))


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.tick_params(which="both", labelsize=7)
    axes.legend(fontsize=7)


def _svg(figure: Figure, name: str) -> str:
    """Returns the drawing alone; ids are made from its name, so that those of a page's plots differ."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    prefix = re.sub(r"\W+", "-", name)
    return re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{prefix}-", drawing)
