"""Latency reports as aligned plain text, and the lines of a README."""

from __future__ import annotations

from collections.abc import Mapping

from risbench.machine.arithmetic import Measured
from risbench.machine.environment import Environment
from risbench.machine.timing import Timing
from risbench.reports.tables import format_table
from risbench.speed.features import Comparison, FeaturesReport
from risbench.speed.peak_memory import PeakMemory
from risbench.speed.proposal_report import DEFAULT_BATCH, CaseResult, EngineResult, Match, ProposalsReport

__all__ = ["format_features", "format_proposals", "markdown_features", "markdown_proposals"]

_MEASURED = ["runs", "median ms", "min ms", "p90 ms", "cv", "GFLOP", "GFLOP/s", "of GEMM"]


def format_features(report: FeaturesReport) -> str:
    """Returns the report for a terminal: conditions, then a table."""
    rows = []
    for name, comparison in _stages(report).items():
        rows.append([f"{name}, graph in ONNX Runtime", *_cells(comparison.engine), f"{comparison.speedup:.2f} x"])
        rows.append([f"{name}, reference in PyTorch", *_cells(comparison.reference), "1"])
    header = ["", *_MEASURED, "speed"]
    errors = ", ".join(f"{name} {comparison.relative_error:.1e}" for name, comparison in _stages(report).items())
    return "\n\n".join(
        [
            f"{_conditions(report)}\nGEMM rate of this machine in this run: {_rates(report.gemm_gflop_per_s)}",
            format_table(header, rows),
            "speed: ratio of the medians. GFLOP: two operations a multiply-add, at these inputs. Both sides ran in "
            f"turns.\nrelative error of the graph's features, worst mask: {errors}. Weights are {report.weights}.",
        ]
    )


def markdown_features(report: FeaturesReport) -> str:
    """Returns the figures a README shows, as a Markdown table with its conditions."""
    rows = ["| median ms (share of GEMM rate) | graph, ONNX Runtime | reference, PyTorch | |", "|---|---|---|---|"]
    for name, comparison in _stages(report).items():
        sides = [
            f"{side.timing.p50_ms:.0f} ({100 * side.gemm_share:.0f} %)"
            for side in (comparison.engine, comparison.reference)
        ]
        rows.append(f"| {name} | {' | '.join(sides)} | {comparison.speedup:.2f} x |")
    return "\n".join(
        [*rows, "", f"{_conditions(report)}. GEMM rate: {_rates(report.gemm_gflop_per_s)}. Weights {report.weights}."]
    )


def _stages(report: FeaturesReport) -> dict[str, Comparison]:
    stages = {"features": report.features, "masked tail": report.tail}
    return {
        f"{name} ({100 * comparison.kept_tokens:.0f} % of tokens kept)": comparison
        for name, comparison in stages.items()
        if comparison is not None
    }


def _conditions(report: FeaturesReport) -> str:
    config = report.config
    height, width = config.image_size
    return (
        f"{config.clip}, {config.preset} preset, {config.proposals} masks of a {width} x {height} image, fp32, "
        f"{_machine(report.environment, report.threads, report.features.providers)}, "
        f"graph {report.features.graph_sha256[:12]}"
    )


def format_proposals(report: ProposalsReport) -> str:
    """Returns the report for a terminal: conditions, then a table a case, then the table of memory."""
    parts = [_proposal_conditions(report), *(_format_case(case) for case in report.cases)]
    if report.memory:
        header = ["peak memory beyond the models", "image", "points", "models MiB", "peak MiB", "masks"]
        parts.append(format_table(header, [_memory_cells(row) for row in report.memory]))
    parts.append(
        "decoder: everything after the encoder, post-processing included. GFLOP: two operations a multiply-add, of the "
        "products that\nwere run; resizing and drawing masks are not counted. vs: ratio of the medians."
    )
    return "\n\n".join(parts)


def markdown_proposals(report: ProposalsReport) -> str:
    """Returns the figures a README shows, as Markdown tables with their conditions."""
    best = report.cases[0].best_batch
    rows = [
        f"| seconds, whole stage = encoder + decoder | engine | stock, batches of {DEFAULT_BATCH} | decoder GFLOP, "
        f"share of GEMM | whole | decoder | decoder, best batch ({best}) | masks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in report.cases:
        stock = case.stock[DEFAULT_BATCH]
        for mode, result in case.engine.items():
            cells = [
                f"{case.name}, {mode}",
                _seconds(result.encoder, result.decoder),
                "-" if stock.encoder is None else _seconds(stock.encoder, stock.decoder),
                f"{_share(result.decoder)}, {_share(stock.decoder)}",
                *(f"{speedup:.1f} x" for speedup in _speedups(result)),
                # Turbo follows the image's features, and random ones lead nowhere.
                "weights random" if mode != "exact" and report.config.sam_checkpoint is None else _match(result.match),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    if report.memory:
        rows += [
            "",
            "| peak memory | image | points | models, MiB | beyond them, MiB | masks |",
            "|---|---|---|---|---|---|",
        ]
        rows += [f"| {' | '.join(_memory_cells(row))} |" for row in report.memory]
    rates = "; ".join(_rates(case.gemm_gflop_per_s) for case in report.cases)
    return "\n".join([*rows, "", f"{_proposal_conditions(report)}. GEMM rate by row: {rates}."])


def _format_case(case: CaseResult) -> str:
    rows = []
    for mode, result in case.engine.items():
        rows.append([f"engine, {mode}: encoder", *_cells(result.encoder), "", ""])
        speedups = [f"{speedup:.2f} x" for speedup in (result.decoder_speedup, result.best_decoder_speedup)]
        rows.append([f"engine, {mode}: decoder", *_cells(result.decoder), *speedups])
    for batch, stock in case.stock.items():
        name = f"stock, batches of {batch}" + (" (best)" if batch == case.best_batch else "")
        if stock.encoder is not None:
            rows.append([f"{name}: encoder", *_cells(stock.encoder), "", ""])
        rows.append([f"{name}: decoder", *_cells(stock.decoder), "", ""])
    settings = case.settings
    lines = [
        f"{case.name}: pred_iou_thresh {settings.pred_iou_thresh:.4g}, stability_score_thresh "
        f"{settings.stability_score_thresh:.4g}, box_nms_thresh {settings.box_nms_thresh:g}. "
        f"GEMM rate just before: {_rates(case.gemm_gflop_per_s)}",
        format_table(["", *_MEASURED, f"vs {DEFAULT_BATCH}", "vs best"], rows),
    ]
    default = case.stock[DEFAULT_BATCH]
    for mode, result in case.engine.items():
        lines += [
            f"{mode}: {result.prompts} prompts decoded, {result.survivors} with a survivor, {result.masks} masks; "
            f"arithmetic of the decoder {result.decoder.gflop / default.decoder.gflop:.2f} of the stock generator's",
            f"{mode}: whole stage {_whole(result.whole)}, stock in batches of {DEFAULT_BATCH} {_whole(default.whole)}, "
            f"{result.whole_speedup:.2f} x; masks {_match(result.match)}",
        ]
    return "\n".join(lines)


def _proposal_conditions(report: ProposalsReport) -> str:
    config, case = report.config, report.cases[0]
    height, width = config.image_size
    points = case.settings.points_per_side
    weights = "random weights" if config.sam_checkpoint is None else f"weights {report.sam.checkpoint}"
    source = f"bundle {config.bundle} ({report.bundle_id[:12]})" if report.bundle_id else "graphs exported for this run"
    graphs = ", ".join(f"{role} {sha256[:12]}" for role, sha256 in report.graph_sha256.items())
    return (
        f"SAM {report.sam.model}, {weights}, {source}, {points} x {points} points on a {width} x {height} image, "
        f"box NMS at {case.settings.box_nms_thresh:g}, {report.precision}, "
        f"{_machine(report.environment, report.threads, report.providers)}, runs of each side: "
        f"{config.rounds}; {graphs}"
    )


def _seconds(encoder: Measured, decoder: Measured) -> str:
    parts = [1e-3 * side.timing.p50_ms for side in (encoder, decoder)]
    return f"{sum(parts):.3g} = {parts[0]:.3g} + {parts[1]:.3g}"


def _whole(timing: Timing | None) -> str:
    return "-" if timing is None else f"{1e-3 * timing.p50_ms:.2f} s"


def _share(side: Measured) -> str:
    return f"{side.gflop:.4g} ({100 * side.gemm_share:.0f} %)"


def _speedups(result: EngineResult) -> tuple[float, float, float]:
    return result.whole_speedup, result.decoder_speedup, result.best_decoder_speedup


def _match(match: Match) -> str:
    text = f"{match.found} of {match.expected}"
    if match.lowest_iou is not None:
        text += f", lowest IoU {match.lowest_iou:.4f}"
    if match.same < 1:
        text += f", {100 * match.same:.1f} % at 0.99, {100 * match.similar:.1f} % at 0.9"
    return text


def _memory_cells(row: PeakMemory) -> list[str]:
    height, width = row.image_size
    loaded, peak = ("-" if value is None else f"{value:.0f}" for value in (row.loaded_mib, row.peak_mib))
    if row.peak_mib is None:
        peak = "out of memory" if row.limit_mib is None else f"more than {row.limit_mib:.0f}"
    masks = "-" if row.proposals is None else str(row.proposals)
    return [row.name, f"{width} x {height}", f"{row.points_per_side} x {row.points_per_side}", loaded, peak, masks]


def _machine(environment: Environment, threads: int, providers: tuple[str, ...]) -> str:
    versions = ", ".join(f"{name} {environment.packages.get(name, '?')}" for name in ("onnxruntime", "torch"))
    return f"{threads} threads, {', '.join(providers)}, {environment.cpu}, {versions}"


def _rates(gemm_gflop_per_s: Mapping[str, float]) -> str:
    return ", ".join(f"{library} {rate:.0f} GFLOP/s" for library, rate in gemm_gflop_per_s.items())


def _cells(side: Measured) -> list[str]:
    timing = side.timing
    return [
        str(timing.runs),
        f"{timing.p50_ms:.1f}",
        f"{timing.min_ms:.1f}",
        f"{timing.p90_ms:.1f}",
        f"{timing.cv:.2f}",
        f"{side.gflop:.1f}",
        f"{side.gflop_per_s:.1f}",
        f"{100 * side.gemm_share:.0f} %",
    ]
