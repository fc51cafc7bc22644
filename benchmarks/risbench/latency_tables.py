"""Latency reports as aligned plain text, and the lines of a README."""

from __future__ import annotations

from risbench.features import Comparison, FeaturesReport, Measured
from risbench.tables import format_table

__all__ = ["format_features", "markdown_features"]


def format_features(report: FeaturesReport) -> str:
    """Returns the report for a terminal: conditions, then a table."""
    rows = []
    for name, comparison in _stages(report).items():
        rows.append([f"{name}, graph in ONNX Runtime", *_cells(comparison.engine), f"{comparison.speedup:.2f} x"])
        rows.append([f"{name}, reference in PyTorch", *_cells(comparison.reference), "1"])
    header = ["", "runs", "median ms", "min ms", "p90 ms", "cv", "GFLOP", "GFLOP/s", "of GEMM", "speed"]
    errors = ", ".join(f"{name} {comparison.relative_error:.1e}" for name, comparison in _stages(report).items())
    return "\n\n".join(
        [
            f"{_conditions(report)}\nGEMM rate of this machine in this run: {_rates(report)}",
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
    return "\n".join([*rows, "", f"{_conditions(report)}. GEMM rate: {_rates(report)}. Weights {report.weights}."])


def _stages(report: FeaturesReport) -> dict[str, Comparison]:
    stages = {"features": report.features, "masked tail": report.tail}
    return {
        f"{name} ({100 * comparison.kept_tokens:.0f} % of tokens kept)": comparison
        for name, comparison in stages.items()
        if comparison is not None
    }


def _conditions(report: FeaturesReport) -> str:
    config, environment = report.config, report.environment
    height, width = config.image_size
    versions = ", ".join(f"{name} {environment.packages.get(name, '?')}" for name in ("onnxruntime", "torch"))
    return (
        f"{config.clip}, {config.preset} preset, {config.proposals} masks of a {width} x {height} image, fp32, "
        f"{report.threads} threads, {', '.join(report.features.providers)}, {environment.cpu}, {versions}, "
        f"graph {report.features.graph_sha256[:12]}"
    )


def _rates(report: FeaturesReport) -> str:
    return ", ".join(f"{library} {rate:.0f} GFLOP/s" for library, rate in report.gemm_gflop_per_s.items())


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
