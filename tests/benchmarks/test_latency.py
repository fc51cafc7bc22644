"""The latency report: by hand with a clock that is told what passes, and of the embedded bundle for real."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from risbench.cli import main
from risbench.machine.bandwidth import COPY_GBYTE, copy_call
from risbench.machine.gemm import GEMM_GFLOP
from risbench.machine.timing import TimingConfig, summarise_ms
from risbench.reports.latency_markdown import markdown_latency
from risbench.reports.stored import read_report
from risbench.speed import latency
from risbench.speed.cold_start import ColdJob, ColdStart, measure_cold_start
from risbench.speed.latency import measure_latency
from risbench.speed.latency_report import LatencyConfig, LatencyReport, Machine, StageResult, worst_stage
from risbench.speed.whole_path import STAGES, ModelFiles, PathRun, Task, expressions
from risengine import RuntimeConfig
from risengine.bundle import open_bundle
from risengine.demo import demo_pictures
from risengine.errors import BackendError, InputError
from risengine.manifest import MANIFEST_NAME
from risengine.method import ProposalSettings
from risengine.text import parse_expression
from risengine.types import EncodedImage

QUICK = LatencyConfig(
    "tabletop",
    reference=True,
    threads=1,
    settings={"points_per_side": 4},
    timing=TimingConfig(warmups=0, rounds=2, seconds=0),
    batch=2,
    cold_starts=0,
)
IMAGE = demo_pictures()[0].path


pytestmark = pytest.mark.usefixtures("torch_threads")


@pytest.fixture(scope="module")
def report() -> LatencyReport:
    return measure_latency(QUICK)


def test_both_sides_answer_alike(report: LatencyReport) -> None:
    assert list(report.sides) == ["engine, cpu", "reference"]
    parity = report.parity
    assert parity is not None
    assert parity.found == parity.expected == report.engine.proposed > 0
    assert parity.lowest_mask_iou is not None
    assert parity.lowest_mask_iou > 0.99
    assert parity.relative_error < 1e-4
    assert parity.answer_iou > 0.99


def test_stages_are_the_whole(report: LatencyReport) -> None:
    engine, reference = report.sides.values()
    assert list(engine.stages) == list(STAGES)
    assert list(reference.stages) == [stage for stage in STAGES if stage != "mask_out"]
    for side in report.sides.values():
        assert all(stage.timing.runs == 2 and stage.timing.min_ms > 0 for stage in side.stages.values())
        mean_ms = sum(stage.timing.mean_ms for stage in side.stages.values())
        assert 0.9 * side.whole.mean_ms < mean_ms <= 1.001 * side.whole.mean_ms
        assert side.whole.mean_ms == pytest.approx(np.mean(side.whole_ms), abs=1e-3)
    assert engine.batch is not None
    assert reference.batch is None


def test_ratios_follow_from_the_medians(report: LatencyReport) -> None:
    engine, reference = report.sides.values()
    assert set(report.ratios) == {*reference.stages, "whole", "further"}
    assert (
        report.ratios["prompts"] == reference.stages["prompts"].timing.p50_ms / engine.stages["prompts"].timing.p50_ms
    )
    assert report.ratios["whole"] == reference.whole.p50_ms / engine.whole.p50_ms


def test_arithmetic_of_both_sides(report: LatencyReport) -> None:
    engine, reference = report.sides.values()
    counted = {name for name, stage in engine.stages.items() if stage.gflop}
    assert counted == {"image_encode", "prompts", "proposal_features", "text"}
    assert counted == {name for name, stage in reference.stages.items() if stage.gflop}
    graphs = open_bundle("tabletop").manifest.graphs
    encoded = graphs["image_encoder"].flops + graphs["image_projector"].flops
    assert engine.stages["image_encode"].gflop == pytest.approx(1e-9 * encoded)
    assert engine.stages["prompts"].gflop < reference.stages["prompts"].gflop  # type: ignore[operator]
    assert engine.stages["text"].gflop == pytest.approx(1e-9 * graphs["text_encoder"].flops, rel=0.5)
    for stage in engine.stages.values():
        assert (stage.gflop is None) == (stage.gemm_share is None) == (stage.roof_share is None)


def test_a_stored_report_is_read_again(report: LatencyReport, tmp_path: Path) -> None:
    from risbench.options import write_json

    write_json(tmp_path / "report.json", report)
    assert markdown_latency(read_report(tmp_path / "report.json")) == markdown_latency(report)  # type: ignore[arg-type]


def test_markdown_names_everything(report: LatencyReport) -> None:
    text = markdown_latency(report)
    for expected in (*STAGES, "Worst stage: `", "weights trained", "GEMM rate of this run", "no transfers", "4 x 4"):
        assert expected in text


def test_a_stage_by_hand() -> None:
    machine = Machine({"a": 80.0, "b": 100.0}, copy_gbyte_per_s=10.0)
    assert machine.gemm == 100
    assert (machine.roof(2.0), machine.roof(10.0), machine.roof(50.0)) == (20, 100, 100)
    stage = StageResult.of(summarise_ms([100, 200, 300]), gflop=4.0, gbyte=1.0, machine=machine)
    assert stage.gflop_per_s == pytest.approx(20)
    assert stage.gemm_share == pytest.approx(0.2)
    assert stage.roof_share == pytest.approx(0.5)  # 4 operations a byte: memory allows 40
    nothing = StageResult.of(summarise_ms([1]), gflop=None, gbyte=None, machine=machine)
    assert (nothing.gflop, nothing.gflop_per_s, nothing.roof_share) == (None, None, None)


def test_the_worst_stage_loses_most_time() -> None:
    machine = Machine({"a": 100.0}, 10.0)
    stages = {
        "long": StageResult.of(summarise_ms([100]), 9.0, None, machine),  # at 90 %
        "slack": StageResult.of(summarise_ms([40]), 1.0, None, machine),  # at 25 %
        "plain": StageResult.of(summarise_ms([20]), None, None, machine),
    }
    name, lost_ms = worst_stage(SimpleNamespace(stages=stages))  # type: ignore[arg-type]
    assert (name, lost_ms) == ("slack", pytest.approx(30))


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def passing(self, *durations_ms: float) -> Callable[[], None]:
        turns = itertools.cycle(durations_ms)

        def call() -> None:
            self.now += 1e-3 * next(turns)

        return call


class FakeSide:
    def __init__(self, clock: Clock, *durations_ms: float) -> None:
        self.pass_by, self.clock = clock.passing(*durations_ms), clock

    def ask(self, text: str) -> PathRun:
        start = self.clock.now
        self.pass_by()
        whole_ms = 1e3 * (self.clock.now - start)
        nothing: Any = None
        encoded = EncodedImage(np.zeros((1, 1, 3), np.uint8), nothing, np.zeros((0, 1), np.float32), "", {}, 0.5)
        return PathRun({"prompts": whole_ms / 4}, whole_ms, nothing, encoded, nothing)

    def ask_again(self, encoded: EncodedImage, text: str) -> float:
        return 1.0


def test_rates_with_a_fake_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gemm = {"slow": clock.passing(400, 200, 300), "fast": clock.passing(100)}
    monkeypatch.setattr(latency, "gemm_calls", lambda folder, threads: gemm)
    monkeypatch.setattr(latency, "copy_call", lambda: clock.passing(50))
    timing = TimingConfig(warmups=0, rounds=3, seconds=0)
    config = dataclasses.replace(QUICK, timing=timing)
    engine: Any = FakeSide(clock, 10, 30, 20)
    reference: Any = FakeSide(clock, 60)
    bench = latency._Bench(config, 1, Task(IMAGE), None, {"engine, cpu": engine}, reference)  # type: ignore[arg-type]
    machine, samples = latency._take_turns(bench)
    assert machine.gemm_gflop_per_s == pytest.approx({"slow": GEMM_GFLOP / 0.3, "fast": GEMM_GFLOP / 0.1})
    assert machine.copy_gbyte_per_s == pytest.approx(COPY_GBYTE / 0.05)
    assert [sample.whole_ms for sample in samples["engine, cpu"]] == pytest.approx([10, 30, 20])
    assert [sample.stages_ms["prompts"] for sample in samples["reference"]] == pytest.approx([15, 15, 15])


def test_a_copy_moves_what_it_says() -> None:
    copied = copy_call()()
    assert isinstance(copied, torch.Tensor)
    assert pytest.approx(1e-9 * 2 * copied.numel() * 4) == COPY_GBYTE
    assert copied.min() == 1


def test_no_expression_comes_back_before_the_engine_has_forgotten_it() -> None:
    texts = list(itertools.islice(expressions(), 5120))
    assert len(set(texts)) == 5120
    method = open_bundle("tabletop").manifest.method
    phrases = [parse_expression(text, method).phrase for text in texts[::512]]
    assert len(set(phrases)) == len(phrases)
    assert all(text.startswith(phrase) for text, phrase in zip(texts[::512], phrases, strict=True))


def test_given_masks_take_the_place_of_sams() -> None:
    config = dataclasses.replace(
        QUICK, reference=False, proposals=5, batch=0, settings={"points_per_side": 2}, timing=TimingConfig(0, 1, 0)
    )
    report = measure_latency(config)
    assert report.engine.described == 5
    assert report.engine.proposed != 5
    assert (report.ratios, report.parity, report.engine.batch) == ({}, None, None)
    assert "5 described (the same random ones on all sides)" in markdown_latency(report)
    assert "ratio" not in markdown_latency(report)


def test_cold_start_of_the_engine() -> None:
    settings = dataclasses.replace(open_bundle("tabletop").manifest.proposals, points_per_side=4)
    job = ColdJob("engine", "tabletop", RuntimeConfig(threads=1), settings, Task(IMAGE), "the red mug", ModelFiles())
    start = measure_cold_start(job)
    assert 0 < start.imported_ms < start.loaded_ms < start.answered_ms
    assert start.load_ms == pytest.approx(start.loaded_ms - start.imported_ms)
    assert start.loaded_mib is not None
    assert start.peak_mib is not None
    assert 0 < start.loaded_mib <= start.peak_mib
    assert start.loaded_mib < 500  # about 300, and 700 where spaCy found torch
    assert not start.torch
    missing = dataclasses.replace(job, bundle="/nowhere")
    with pytest.raises(BackendError, match="loads /nowhere and answers once ended with status 1"):
        measure_cold_start(missing)


def test_the_engines_cold_start_is_free_of_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import risbench.speed.cold_start, risbench.speed.engine_path"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposals": 1}, "proposals = 1; expected at least 2"),
        ({"keep": 1.5}, r"keep = 1.5; expected a share in \(0, 1\]"),
        ({"threads": -1}, "threads = -1"),
        ({"batch": -1}, "batch = -1"),
        ({"devices": ()}, "devices = \\(\\); expected at least one"),
        ({"devices": ("cpu", "cpu")}, "each once"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(QUICK, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "0.5"], "the bundle's SAM is trained and has thresholds"),
        (["--devices", "cuda"], "device 'cuda' cannot be used"),
        (["--image", "/nowhere.jpg"], "/nowhere.jpg"),
        (["--points-per-side", "2", "--sam-checkpoint", str(IMAGE)], "checkpoint"),
    ],
)
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "tabletop", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: LatencyReport) -> None:
    asked: list[LatencyConfig] = []

    def measure(config: LatencyConfig) -> LatencyReport:
        asked.append(config)
        return report

    monkeypatch.setattr(latency, "measure_latency", measure)
    outputs = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "html")}
    options = [part for name, path in outputs.items() for part in (f"--{name}", str(path))]
    arguments = ["--reference", "--threads", "2", "--iterations", "4", "--duration", "5", "--warmup", "0", *options]
    assert main(["latency", "tabletop", *arguments, "--points-per-side", "8", "--clip", "ViT-B-32"]) == 0
    (config,) = asked
    assert (config.reference, config.threads, config.timing) == (True, 2, TimingConfig(0, 4, 5.0))
    assert (config.settings, config.files.clip) == ({"points_per_side": 8}, "ViT-B-32")
    assert isinstance(read_report(outputs["json"]), LatencyReport)
    assert outputs["markdown"].read_text() == markdown_latency(report) + "\n"
    assert 'data-plot="roofline"' in outputs["html"].read_text()


def test_start_table(report: LatencyReport) -> None:
    start = ColdStart(100.0, 400.0, 900.0, 50.0, None)
    side = dataclasses.replace(report.engine, cold=(start, dataclasses.replace(start, answered_ms=1100.0)))
    text = markdown_latency(dataclasses.replace(report, sides={"engine, cpu": side}))
    assert "| engine, cpu | 2 | 100 | 300 | 1000 | 50 | - |" in text


@pytest.mark.slow
def test_a_bundle_with_random_weights(tmp_path: Path) -> None:
    """Built by the exporter from nothing but names, and measured beside the reference made from the same names."""
    from risexport.build import build
    from risexport.config import BuildConfig

    clip = tmp_path / "small.json"
    clip.write_text(
        '{"embed_dim": 24, "vision_cfg": {"layers": 5, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 40}'
        ', "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}'
    )
    bundle = build(
        BuildConfig(
            tmp_path / "bundle",
            str(clip),
            "random_models:small_sam",
            proposals=ProposalSettings(points_per_side=8),
        )
    )
    config = dataclasses.replace(QUICK, bundle=str(bundle), settings={}, proposals=6, cold_starts=1)
    report = measure_latency(dataclasses.replace(config, keep=1.0, files=ModelFiles(clip=str(clip))))
    assert report.weights == "random: latency only"
    assert report.parity is not None
    assert report.parity.found == report.parity.expected > 0
    assert report.parity.relative_error < 1e-4
    assert report.ratios["cold"] > 0
    assert report.engine.described == 6


def test_a_fused_bundle_has_no_reference_which_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Path(shutil.copytree(open_bundle("tabletop").path, tmp_path / "fused"))
    manifest = open_bundle(bundle).manifest
    fused = dataclasses.replace(manifest, method=dataclasses.replace(manifest.method, fusion="g2l", global_weight=0.0))
    (bundle / MANIFEST_NAME).write_bytes(fused.encode())
    monkeypatch.setattr("risbench.speed.latency.load_models", lambda *given, **named: pytest.fail("models were loaded"))
    with pytest.raises(InputError, match=r"fusion g2l; expected none.*without the reference, or build"):
        measure_latency(dataclasses.replace(QUICK, bundle=str(bundle)))
