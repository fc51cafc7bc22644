"""Reports with known figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench_samples import CLEAN

from risbench.machine.environment import read_environment
from risbench.machine.timing import summarise_ms
from risbench.quality.accuracy import BundleFacts
from risbench.reports.stored import Report, read_report
from risbench.speed.cold_start import ColdStart
from risbench.speed.latency_report import LatencyConfig, LatencyReport, Machine, Parity, SideResult, StageResult
from risengine.method import ProposalSettings

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def stored(name: str) -> Report:
    """A report of the repository."""
    return read_report(RESULTS / f"{name}.json")


def latency_report(prompts_ms: float = 100.0, features_ms: float = 50.0, gemm: float = 100.0) -> LatencyReport:
    """An engine that takes so long in its two stages, beside a reference that takes 1,200 and 60 ms."""
    machine = Machine({"torch": gemm}, 10.0)
    bundle = BundleFacts("known", "0123456789abcdef", "fp32", "cpu", ("Fake",), CLEAN, ProposalSettings())
    sides = {
        "engine, cpu": _side(machine, {"prompts": prompts_ms, "proposal_features": features_ms}),
        "reference": _side(machine, {"prompts": 1200.0, "proposal_features": 60.0}),
    }
    engine, reference = sides.values()
    ratios = {name: reference.stages[name].timing.p50_ms / stage.timing.p50_ms for name, stage in engine.stages.items()}
    return LatencyReport(
        bundle=bundle,
        config=LatencyConfig("known", reference=True),
        environment=read_environment(),
        threads=2,
        image_size=(480, 640),
        text="the red mug",
        machine=machine,
        sides=sides,
        ratios={**ratios, "whole": reference.whole.p50_ms / engine.whole.p50_ms},
        parity=Parity(3, 3, 1.0, 1e-7, 1.0),
        weights="trained",
    )


def without_reference(report: LatencyReport) -> LatencyReport:
    """The same, had only the engine been measured."""
    sides = {name: side for name, side in report.sides.items() if name != "reference"}
    return dataclasses.replace(report, sides=sides, ratios={}, parity=None)


def _side(machine: Machine, stages_ms: dict[str, float]) -> SideResult:
    whole_ms = sum(stages_ms.values())
    return SideResult(
        providers=("Fake",),
        stages={name: StageResult.of(summarise_ms([ms]), 1.0, 0.5, machine) for name, ms in stages_ms.items()},
        whole=summarise_ms([whole_ms, whole_ms]),
        whole_ms=(whole_ms, whole_ms),
        further=summarise_ms([10.0]),
        batch=None,
        proposed=3,
        described=3,
        cold=(ColdStart(1.0, 2.0, 3.0, 4.0, 5.0),),
    )
