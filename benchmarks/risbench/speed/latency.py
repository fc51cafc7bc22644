"""Latency of a bundle from the image's file to the mask, stage by stage, beside the reference and the machine's limits.

All sides take turns in one run with the same image, settings and threads, and so do the products of matrices and copies
that tell what the machine can do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from risbench.machine.bandwidth import COPY_GBYTE, copy_call
from risbench.machine.environment import read_environment
from risbench.machine.gemm import GEMM_GFLOP, gemm_calls
from risbench.machine.timing import TimingConfig, clocked, collect_in_turns, summarise_ms
from risbench.quality.accuracy import bundle_facts
from risbench.random_sam import settings_keeping
from risbench.reference.visual import check_method
from risbench.speed.cold_start import ColdJob, ColdStart, measure_cold_start
from risbench.speed.engine_path import EnginePath, open_engine
from risbench.speed.latency_arithmetic import engine_work, reference_work
from risbench.speed.latency_report import (
    RANDOM_WEIGHTS,
    REFERENCE,
    TRAINED_WEIGHTS,
    LatencyConfig,
    LatencyReport,
    Machine,
    Parity,
    SideResult,
    StageResult,
)
from risbench.speed.proposal_cases import match_proposals, shown
from risbench.speed.reference_path import Models, ReferencePath, has_random_weights, load_models, open_reference
from risbench.speed.whole_path import STAGES, PathRun, PathSide, Task, expressions
from risengine import RuntimeConfig, load
from risengine.demo import demo_pictures, mask_iou
from risengine.engine import Engine
from risengine.errors import InputError
from risengine.generator.sam import SamImage
from risengine.images import load_image
from risengine.measures import relative_error
from risengine.method import ProposalSettings
from risengine.types import Proposals
from risexport.checks.references import random_masks

__all__ = ["measure_latency"]

_RANDOM_KEEP, _RANDOM_PROPOSALS = 0.5, 100
"""What a SAM with random weights is measured at unless told otherwise; its own masks are no measure of anything."""

_GEMM, _COPY = "GEMM, ", "copy"


def measure_latency(config: LatencyConfig) -> LatencyReport:
    """Times all sides in turns; progress bars name what is at work.

    PyTorch's number of threads is set for the process.

    Raises:
        BundleError: The bundle is missing, damaged or of another format version.
        BackendError: A device is missing, or a graph cannot be run.
        InputError: A setting or the image cannot be used, the models are not found or not the bundle's, or nothing is
            proposed in the image.
    """
    environment = read_environment()
    threads = config.threads or environment.logical_cores
    torch.set_num_threads(threads)
    with ExitStack() as opened:
        bench = _open(config, threads, opened)
        machine, samples = _take_turns(bench)
        further = _ask_again(bench)
        sides = {name: _side_result(bench, name, (samples[name], further[name]), machine) for name in bench.sides}
        name, path = next(iter(bench.engines.items()))
        run, first = bench.last[name], path.engine
        random = any(has_random_weights(first.manifest, role) for role in ("clip", "sam"))
        return LatencyReport(
            bundle=bundle_facts(first),
            config=bench.config,
            environment=environment,
            threads=threads,
            image_size=run.encoded.size,
            text=run.answer.text,
            machine=machine,
            sides=sides,
            ratios=_ratios(sides),
            parity=None if bench.reference is None else _parity(bench),
            weights=RANDOM_WEIGHTS if random else TRAINED_WEIGHTS,
        )


@dataclass(frozen=True)
class _Sample:
    """Durations of one call."""

    whole_ms: float
    stages_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Bench:
    """What is measured, with the last answer of every side."""

    config: LatencyConfig
    threads: int
    task: Task
    models: Models
    engines: Mapping[str, EnginePath]
    reference: ReferencePath | None
    texts: Iterator[str] = field(default_factory=expressions)
    last: dict[str, PathRun] = field(default_factory=dict)

    @property
    def sides(self) -> dict[str, PathSide]:
        """All sides by name, the engine first."""
        return {**self.engines, **({} if self.reference is None else {REFERENCE: self.reference})}

    def ask(self, name: str) -> _Sample:
        """Asks a side a new question."""
        self.last[name] = run = self.sides[name].ask(next(self.texts))
        return _Sample(run.whole_ms, run.stages_ms)


def _open(config: LatencyConfig, threads: int, opened: ExitStack) -> _Bench:
    """Loads all sides; they are closed with the context."""
    # The paper's score, as in the reference.
    given = [RuntimeConfig(device, threads, strategy="global_local") for device in config.devices]
    runtimes = {f"engine, {runtime.device}": runtime for runtime in given}
    image = config.image or demo_pictures()[0].path
    pixels = load_image(image)
    with load(config.bundle, next(iter(runtimes.values())), **config.settings) as scout:
        manifest = scout.manifest
        config = _resolved(config, random_sam=has_random_weights(manifest, "sam"))
        if config.reference:
            check_method(manifest.method)  # before anything is measured
        settings = scout.proposal_settings if config.keep is None else _settings_keeping(scout, pixels, config.keep)
    task = Task(image, _given_masks(pixels, config.proposals))
    models = load_models(manifest, config.files, weights_needed=config.reference)
    engines = {
        name: EnginePath(opened.enter_context(open_engine(config.bundle, runtime, settings)), task)
        for name, runtime in runtimes.items()
    }
    reference = open_reference(models, manifest.method, settings, task) if config.reference else None
    return _Bench(config, threads, task, models, engines, reference)


def _resolved(config: LatencyConfig, random_sam: bool) -> LatencyConfig:
    """Sets what a SAM with random weights is measured at."""
    if random_sam:
        return dataclasses.replace(
            config, keep=config.keep or _RANDOM_KEEP, proposals=config.proposals or _RANDOM_PROPOSALS
        )
    if config.keep is not None:
        raise InputError(f"keep = {config.keep}, but the bundle's SAM is trained and has thresholds. Leave it out.")
    return config


def _settings_keeping(engine: Engine, pixels: NDArray[np.uint8], share: float) -> ProposalSettings:
    sam = SamImage.encode(engine.sessions, pixels, engine.manifest.sam_image_size_px)
    with shown("predicted IoU of every prompt") as progress:
        return settings_keeping(sam, engine.proposal_settings, [share], progress)[share]


def _given_masks(pixels: NDArray[np.uint8], count: int | None) -> Proposals | None:
    if count is None:
        return None
    return Proposals.from_masks(random_masks(np.random.default_rng(0), (pixels.shape[0], pixels.shape[1]), count))


def _take_turns(bench: _Bench) -> tuple[Machine, dict[str, list[_Sample]]]:
    """Asks all sides from the image's file on, in turns with what measures the machine."""
    with TemporaryDirectory(prefix="risbench-") as folder:
        limits = {f"{_GEMM}{library}": call for library, call in gemm_calls(Path(folder), bench.threads).items()}
        calls: dict[str, Callable[[], _Sample]] = {
            name: _sampled(call) for name, call in {**limits, _COPY: copy_call()}.items()
        }
        for name in bench.sides:
            calls[name] = _asking(bench, name)
        samples = collect_in_turns(calls, bench.config.timing)
    medians = {name: median(sample.whole_ms for sample in found) for name, found in samples.items()}
    rates = {name.removeprefix(_GEMM): 1e3 * GEMM_GFLOP / medians[name] for name in limits}
    return Machine(rates, 1e3 * COPY_GBYTE / medians[_COPY]), samples


def _sampled(call: Callable[[], object]) -> Callable[[], _Sample]:
    timed = clocked(call)
    return lambda: _Sample(timed())


def _asking(bench: _Bench, name: str) -> Callable[[], _Sample]:
    return lambda: bench.ask(name)


def _ask_again(bench: _Bench) -> dict[str, list[float]]:
    """Asks all sides further expressions about the image they have encoded, in turns."""

    def asking(name: str, side: PathSide) -> Callable[[], float]:
        return lambda: side.ask_again(bench.last[name].encoded, next(bench.texts))

    return collect_in_turns({name: asking(name, side) for name, side in bench.sides.items()}, bench.config.timing)


def _side_result(
    bench: _Bench, name: str, found: tuple[Sequence[_Sample], Sequence[float]], machine: Machine
) -> SideResult:
    samples, further_ms = found
    run, engine = bench.last[name], bench.engines.get(name)
    if engine is not None:
        work = engine_work(engine, run, bench.models, next(bench.texts))
    else:
        assert bench.reference is not None
        work = reference_work(bench.reference, run, bench.models)
    timings = {
        stage: summarise_ms([sample.stages_ms[stage] for sample in samples])
        for stage in STAGES
        if stage in run.stages_ms
    }
    return SideResult(
        providers=("torch",) if engine is None else engine.engine.providers,
        stages={
            stage: StageResult.of(timing, work.gflop.get(stage), work.gbyte.get(stage), machine)
            for stage, timing in timings.items()
        },
        whole=summarise_ms([sample.whole_ms for sample in samples]),
        whole_ms=tuple(round(sample.whole_ms, 3) for sample in samples),
        further=summarise_ms(further_ms),
        batch=None if engine is None or not bench.config.batch else summarise_ms(_batches_ms(bench, name)),
        proposed=len(run.proposed),
        described=len(run.encoded.proposals),
        cold=_cold_starts(bench, name),
    )


def _batches_ms(bench: _Bench, name: str) -> list[float]:
    """Answers images one after the other; returns the milliseconds an image of every such batch."""
    config = bench.config

    def batch() -> float:
        return sum(bench.ask(name).whole_ms for _ in range(config.batch)) / config.batch

    return collect_in_turns({f"batch, {name}": batch}, TimingConfig(0, 1, config.timing.seconds))[f"batch, {name}"]


def _cold_starts(bench: _Bench, name: str) -> tuple[ColdStart, ...]:
    config = bench.config
    engine = bench.engines.get(name)
    first = next(iter(bench.engines.values())).engine
    device = config.devices[0] if engine is None else config.devices[list(bench.engines).index(name)]
    job = ColdJob(
        side="reference" if engine is None else "engine",
        bundle=config.bundle,
        runtime=RuntimeConfig(device, bench.threads, strategy="global_local"),
        settings=first.proposal_settings,
        task=bench.task,
        text=next(bench.texts),
        files=config.files,
    )
    runs = min(1, config.cold_starts) if engine is None else config.cold_starts
    return tuple(
        measure_cold_start(job) for _ in tqdm(range(runs), desc=f"cold start, {name}", unit="process", disable=not runs)
    )


def _ratios(sides: Mapping[str, SideResult]) -> dict[str, float]:
    """Divides the reference's medians by the first engine's."""
    reference, engine = sides.get(REFERENCE), next(iter(sides.values()))
    if reference is None:
        return {}
    ratios = {
        stage: reference.stages[stage].timing.p50_ms / result.timing.p50_ms
        for stage, result in engine.stages.items()
        if stage in reference.stages
    }
    ratios |= {"whole": reference.whole.p50_ms / engine.whole.p50_ms}
    ratios |= {"further": reference.further.p50_ms / engine.further.p50_ms}
    if reference.cold and engine.cold:
        starts_ms = [median(start.answered_ms for start in side.cold) for side in (reference, engine)]
        ratios["cold"] = starts_ms[0] / starts_ms[1]
    return ratios


def _parity(bench: _Bench) -> Parity:
    """Compares what the first engine and the reference make of the same image and expression."""
    assert bench.reference is not None
    name, path = next(iter(bench.engines.items()))
    run, reference, text = bench.last[name], bench.last[REFERENCE], next(bench.texts)
    match = match_proposals(run.proposed, reference.proposed)
    with torch.inference_mode():
        features = bench.reference.pipeline.encode_image(run.encoded.image, masks=run.encoded.proposals).features
        expected = bench.reference.pipeline.segment(reference.encoded, text)
    return Parity(
        found=match.found,
        expected=match.expected,
        lowest_mask_iou=match.lowest_iou,
        relative_error=relative_error(run.encoded.features, features),
        answer_iou=float(mask_iou(path.engine.segment(run.encoded, text).mask, expected.mask)),
    )
