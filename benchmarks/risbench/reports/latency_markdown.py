"""The latency report in Markdown, which is also what a terminal shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from risbench.machine.timing import UNSTABLE_CV, Timing
from risbench.speed.latency_report import REFERENCE, LatencyReport, SideResult, StageResult, worst_stage
from risbench.speed.whole_path import STAGES

__all__ = ["markdown_latency"]


def markdown_latency(report: LatencyReport) -> str:
    """Returns the figures as Markdown tables with their conditions."""
    parts = [
        _stage_table(report),
        _remarks(report),
        _distribution_table(report),
        _start_table(report),
        _conditions(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _stage_table(report: LatencyReport) -> str:
    reference = report.sides.get(REFERENCE)
    header = ["median ms (share of GEMM rate)", *report.sides, *([] if reference is None else ["ratio"])]
    rows = []
    for stage, meaning in STAGES.items():
        cells = [_stage_cell(side.stages.get(stage)) for side in report.sides.values()]
        rows.append([f"{stage}: {meaning}", *cells, *_ratio(report, stage)])
    totals = {"whole": "**image file to mask**", "further": "further expression, same image"}
    for name, title in totals.items():
        rows.append(
            [title, *(_ms(getattr(side, name).p50_ms) for side in report.sides.values()), *_ratio(report, name)]
        )
    return _table(header, rows)


def _ratio(report: LatencyReport, name: str) -> list[str]:
    if REFERENCE not in report.sides:
        return []
    return [f"{report.ratios[name]:.2f} x" if name in report.ratios else ""]


def _stage_cell(stage: StageResult | None) -> str:
    if stage is None:
        return "-"
    share = "" if stage.gemm_share is None else f" ({100 * stage.gemm_share:.0f} %)"
    return f"{_ms(stage.timing.p50_ms)}{share}"


def _remarks(report: LatencyReport) -> str:
    side = report.engine
    name, lost_ms = worst_stage(side)
    stage = side.stages[name]
    share = 100 * stage.timing.p50_ms / side.whole.p50_ms
    worst = f"Worst stage: `{name}`, {share:.0f} % of the engine's time, "
    if stage.gemm_share is None:
        worst += "without arithmetic to set beside it"
    else:
        worst += (
            f"at {100 * stage.gemm_share:.0f} % of the GEMM rate: {_ms(lost_ms)} ms more than its "
            f"{stage.gflop:.4g} GFLOP would take at that rate"
        )
        if stage.roof_share is not None and stage.gbyte:
            worst += (
                f"; {100 * stage.roof_share:.0f} % of what GEMM rate and memory allow for the {stage.gbyte:.3g} GB "
                "that go in and out of its graphs"
            )
    sentences = [worst + "."]
    if report.parity is not None:
        parity = report.parity
        iou = "" if parity.lowest_mask_iou is None else f", lowest IoU {parity.lowest_mask_iou:.4f}"
        sentences.append(
            f"Engine against reference: {parity.found} of {parity.expected} masks{iou}; features of the same masks "
            f"within {parity.relative_error:.1e}; IoU of the answers {parity.answer_iou:.4f}."
        )
    sentences += [f"**Unstable**: {text}." for text in _unstable(report)]
    return " ".join(sentences)


def _unstable(report: LatencyReport) -> Iterator[str]:
    for name, side in report.sides.items():
        for what, timing in (("image file to mask", side.whole), ("further expression", side.further)):
            if timing.unstable:
                yield f"{name}, {what}: coefficient of variation {timing.cv:.2f} > {UNSTABLE_CV:g}"


def _distribution_table(report: LatencyReport) -> str:
    header = ["ms", "runs", "min", "mean", "p50", "p90", "p95", "p99", "cv", "a second"]
    rows = []
    for name, side in report.sides.items():
        timings = {"image file to mask": side.whole, "further expression": side.further}
        if side.batch is not None:
            timings[f"image of {report.config.batch} in a row"] = side.batch
        rows += [[f"{name}: {what}", *_distribution(timing)] for what, timing in timings.items()]
    return _table(header, rows)


def _distribution(timing: Timing) -> list[str]:
    points = (timing.min_ms, timing.mean_ms, timing.p50_ms, timing.p90_ms, timing.p95_ms, timing.p99_ms)
    return [
        str(timing.runs),
        *("-" if value is None else _ms(value) for value in points),
        f"{timing.cv:.2f}",
        f"{timing.per_s:.3g}",
    ]


def _start_table(report: LatencyReport) -> str:
    sides = {name: side for name, side in report.sides.items() if side.cold}
    if not sides:
        return ""
    header = ["new process, median", "processes", "imports, ms", "load, ms", "to the first mask, ms", "MiB", "peak MiB"]
    table = _table(header, [[name, *_start_cells(side)] for name, side in sides.items()])
    ratio = report.ratios.get("cold")
    had = any(start.torch for name, side in sides.items() if name != REFERENCE for start in side.cold)
    note = (
        "Files were in the system's cache. The engine's processes "
        + ("imported torch, as spaCy does where it is installed" if had else "had no torch, as on a target")
        + ". MiB: resident when loaded, and at most while answering"
    )
    return f"{table}\n\n{note}" + (
        "." if ratio is None else f". To the first mask, reference over engine: {ratio:.2f} x."
    )


def _start_cells(side: SideResult) -> list[str]:
    def middle(name: str) -> str:
        values = [value for start in side.cold if (value := getattr(start, name)) is not None]
        return _ms(median(values)) if values else "-"

    names = ("imported_ms", "load_ms", "answered_ms", "loaded_mib", "peak_mib")
    return [str(len(side.cold)), *(middle(name) for name in names)]


def _conditions(report: LatencyReport) -> str:
    bundle, environment, config = report.bundle, report.environment, report.config
    height, width = report.image_size
    settings = bundle.proposals
    points = f"{settings.points_per_side} x {settings.points_per_side} points"
    if config.keep is not None:
        points += f", a threshold of predicted IoU that {100 * config.keep:g} % of them pass, no box NMS"
    masks = f"{report.engine.proposed} masks proposed, {report.engine.described} described"
    if config.proposals is not None:
        masks += " (the same random ones on all sides)"
    rates = ", ".join(f"{library} {rate:.0f}" for library, rate in report.machine.gemm_gflop_per_s.items())
    versions = ", ".join(f"{name} {environment.packages.get(name, '?')}" for name in ("onnxruntime", "torch"))
    facts = [
        f"Bundle `{bundle.name}` ({bundle.precision}, {bundle.method.preset} preset, {bundle.id[:12]}), "
        f"weights {report.weights}",
        f"{width} x {height} image, {points}, {settings.search} search, {masks}",
        f"{report.threads} threads, {', '.join(report.engine.providers)}, {environment.cpu}, {versions}",
        f"GEMM rate of this run, GFLOP/s: {rates}; copies: {report.machine.copy_gbyte_per_s:.1f} GB/s",
        f"{config.timing.warmups} warm-up and {report.engine.whole.runs} measured rounds, sides in turns",
        *([f"load average before: {environment.load_average:g}"] if environment.load_average is not None else []),
        *[fact for fact in (environment.cpu_clock, *environment.gpus, environment.power_mode) if fact],
    ]
    if set(report.engine.providers) == {"CPUExecutionProvider"}:
        facts.append("no device: no transfers, no CUDA graph")
    return ". ".join(facts) + "."


def _ms(value: float) -> str:
    """Four figures, as many decimals as they leave."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}" if value >= 1 else f"{value:.2g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
