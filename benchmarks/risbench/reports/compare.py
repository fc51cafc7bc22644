"""Whether one report is worse than another of its kind: the check of a continuous integration.

Latencies of two runs are never compared as they are, since machines differ and are shared. Where both runs have the
PyTorch reference, its ratio to the engine is compared; elsewhere, the products of matrices that the machine could have
computed in the meantime. The C++ and the Python runtime, measured in turns, are each other's measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from risbench.quality.accuracy import AccuracyReport
from risbench.quality.agreement import AgreementReport
from risbench.quality.language import LanguageReport
from risbench.reports.stored import Report
from risbench.reports.tables import format_table
from risbench.speed.features import FeaturesReport
from risbench.speed.latency_report import REFERENCE, LatencyReport
from risbench.speed.native import NativeReport
from risbench.speed.proposal_report import ProposalsReport
from risengine.errors import InputError

__all__ = ["Change", "Thresholds", "compare_reports", "format_changes"]

_COUNTED_STAGE = 0.05
"""Share of the whole above which a stage is compared by itself: quicker ones are mostly noise."""


@dataclass(frozen=True)
class Thresholds:
    """What is still no regression.

    Attributes:
        slower: Share by which a speed may fall, or a cost rise.
        worse: How much a share in [0, 1], such as mIoU or a cosine, may fall.

    Raises:
        InputError: A threshold is negative.
    """

    slower: float = 0.1
    worse: float = 0.01

    def __post_init__(self) -> None:
        for name in ("slower", "worse"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} = {getattr(self, name)}; expected 0 or more.")


@dataclass(frozen=True)
class _Figure:
    """A value; ``speed`` and ``cost`` are compared as ratios, a ``share`` by difference.

    ``beside`` is the same cost of something that does not change, measured in the same run; None where there is none.
    """

    value: float
    kind: str
    unit: str = ""
    beside: float | None = None


@dataclass(frozen=True)
class Change:
    """One figure in two reports.

    Attributes:
        name: The figure.
        old: Its older value.
        new: Its newer value.
        unit: Of both.
        loss: How much worse the newer is: a share for a speed or a cost, a difference for a share; negative where it
            is better.
        regressed: Whether that is past the threshold.
    """

    name: str
    old: float
    new: float
    unit: str
    loss: float
    regressed: bool


def compare_reports(old: Report, new: Report, thresholds: Thresholds) -> list[Change]:
    """Compares every figure that both reports have.

    Raises:
        InputError: The reports are of different kinds, or have no figure in common.
    """
    if type(old) is not type(new):
        raise InputError(f"a {type(old).__name__} is no {type(new).__name__}; expected two reports of one command.")
    by_reference = all(isinstance(report, LatencyReport) and report.ratios for report in (old, new))
    before, after = (dict(_figures(report, by_reference)) for report in (old, new))
    common = [name for name in before if name in after]
    if not common:
        raise InputError("the reports have no figure in common; expected the same splits, stages or cases in both.")
    return [_change(name, before[name], after[name], thresholds) for name in common]


def format_changes(changes: list[Change]) -> str:
    """Returns the changes as a table, with what regressed marked."""
    rows = [
        [
            change.name,
            f"{change.old:.4g} {change.unit}".strip(),
            f"{change.new:.4g} {change.unit}".strip(),
            f"{-100 * change.loss:+.1f}",
            "REGRESSED" if change.regressed else "",
        ]
        for change in changes
    ]
    return format_table(["", "old", "new", "better by %", ""], rows)


def _change(name: str, old: _Figure, new: _Figure, thresholds: Thresholds) -> Change:
    if old.kind == "share":
        loss, allowed = old.value - new.value, thresholds.worse
    else:
        slower, faster = (old.value, new.value) if old.kind == "speed" else (new.value, old.value)
        loss, allowed = slower / faster - 1, thresholds.slower
        if old.beside is not None and new.beside is not None:
            # Slower by the clock alone is the machine, slower than the other alone is the other's gain: only what is
            # both counts, by the smaller of the two.
            loss = sorted((0.0, loss, slower / faster * old.beside / new.beside - 1))[1]
    return Change(name, old.value, new.value, old.unit, loss, loss > allowed)


def _figures(report: Report, by_reference: bool) -> Iterator[tuple[str, _Figure]]:
    if isinstance(report, LatencyReport):
        yield from _latency_figures(report, by_reference)
    elif isinstance(report, AccuracyReport):
        for split, result in report.splits.items():
            for kind, figures in result.kinds.items():
                yield f"{split}, {kind}: mIoU", _Figure(figures.answers.miou, "share")
                yield f"{split}, {kind}: oIoU", _Figure(figures.answers.oiou, "share")
                yield f"{split}, {kind}: oracle", _Figure(figures.oracle.miou, "share")
                yield f"{split}, {kind}: right object", _Figure(figures.right_object, "share")
    elif isinstance(report, AgreementReport):
        yield from _agreement_figures(report)
    elif isinstance(report, FeaturesReport):
        for name, comparison in (("features", report.features), ("tail", report.tail)):
            if comparison is not None:
                yield f"{name}: speed", _Figure(comparison.speedup, "speed", "x")
    elif isinstance(report, LanguageReport):
        for split, kinds in report.right.items():
            for kind, strategies in kinds.items():
                for strategy, share in strategies.items():
                    yield f"{split}, {kind}: right object by {strategy}", _Figure(share, "share")
    elif isinstance(report, NativeReport):
        yield from _native_figures(report)
    else:
        yield from _proposal_figures(report)


def _latency_figures(report: LatencyReport, by_reference: bool) -> Iterator[tuple[str, _Figure]]:
    if by_reference:
        whole_ms = report.engine.whole.p50_ms
        for name, ratio in report.ratios.items():
            stage = report.engine.stages.get(name)
            if stage is None or stage.timing.p50_ms > _COUNTED_STAGE * whole_ms:
                yield f"{name}: {REFERENCE} / engine", _Figure(ratio, "speed", "x")
        return
    gflop_per_ms = 1e-3 * report.machine.gemm
    for name, side in report.sides.items():
        if name == REFERENCE:
            continue
        for stage_name, result in side.stages.items():
            if result.timing.p50_ms > _COUNTED_STAGE * side.whole.p50_ms:
                yield f"{name}, {stage_name}", _Figure(result.timing.p50_ms * gflop_per_ms, "cost", "GFLOP of GEMM")
        for title, timing in (("whole", side.whole), ("further", side.further)):
            yield f"{name}, {title}", _Figure(timing.p50_ms * gflop_per_ms, "cost", "GFLOP of GEMM")


def _native_figures(report: NativeReport) -> Iterator[tuple[str, _Figure]]:
    for name, other in (("C++", "Python"), ("Python", "C++")):
        side, beside = report.sides[name], report.sides[other]
        for part in ("cold_start", "encode", "ask", "ask_again"):
            yield f"{name}, {part}", _Figure(getattr(side, part).p50_ms, "cost", "ms", getattr(beside, part).p50_ms)
        if side.peak_mib:
            yield f"{name}, peak memory", _Figure(side.peak_mib, "cost", "MiB")


def _agreement_figures(report: AgreementReport) -> Iterator[tuple[str, _Figure]]:
    for split, result in report.splits.items():
        shares = {
            "same answer": result.end_to_end.same_mask,
            "same answer, A's masks": result.same_proposals.same_mask,
            "mIoU B": result.end_to_end.miou_b,
            "recall": result.recall,
            "lowest cosine": result.lowest_cosine,
        }
        for name, share in shares.items():
            if share is not None:
                yield f"{split}: {name}", _Figure(share, "share")
        yield f"{split}: proposals, A / B", _Figure(result.proposal_ms_a / result.proposal_ms_b, "speed", "x")


def _proposal_figures(report: ProposalsReport) -> Iterator[tuple[str, _Figure]]:
    for case in report.cases:
        for mode, result in case.engine.items():
            yield f"{case.name}, {mode}: whole stage", _Figure(result.whole_speedup, "speed", "x")
            yield f"{case.name}, {mode}: decoder", _Figure(result.decoder_speedup, "speed", "x")
            yield f"{case.name}, {mode}: same masks", _Figure(result.match.same, "share")
