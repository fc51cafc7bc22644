"""The proposal stage against segment-anything's own: latency, arithmetic, peak memory, and whether masks are the same.

One side is the exported graphs in ONNX Runtime through ``risengine``, the other ``SamAutomaticMaskGenerator`` in
PyTorch's inference mode at several batch sizes. Both get the same weights, image, settings and number of threads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from risbench.machine.environment import read_environment
from risbench.machine.gemm import gemm_calls
from risbench.machine.host_memory import check_measurable
from risbench.random_sam import settings_keeping
from risbench.speed.engine_side import EngineSource
from risbench.speed.peak_memory import MemoryJob, measure_memory
from risbench.speed.proposal_cases import Bench, engine_modes, measure_case, shown
from risbench.speed.proposal_report import DEFAULT_BATCH, CaseResult, ProposalsConfig, ProposalsReport
from risbench.speed.stock_side import StockSource
from risengine.bundle import Bundle, open_bundle
from risengine.demo import demo_pictures
from risengine.errors import InputError
from risengine.generator.sam import SamImage
from risengine.images import load_image
from risengine.method import ProposalSettings
from risexport.checkpoints.sam_checkpoints import SamFacts
from risexport.checks.references import random_image
from risexport.graphs import sam_graphs

__all__ = ["measure_proposals"]

_KEEP = (0.1, 0.5, 1.0)
_LARGE_SIZE = (3000, 4000)
_LARGE_POINTS = 64
_LARGE_STOCK_POINTS = 16  # 64 x 64 would take segment-anything's generator hours


def measure_proposals(config: ProposalsConfig) -> ProposalsReport:
    """Times both sides in turns; progress bars count the prompts of the run at work.

    PyTorch's number of threads is set for the process.

    Raises:
        InputError: The model is unknown, or the checkpoint is not the bundle's.
        BundleError: The bundle is missing, damaged or of another format version.
        BackendError: A graph cannot be exported or run, or memory cannot be measured here.
    """
    if config.memory:
        check_measurable()
    environment = read_environment()
    threads = config.threads or environment.logical_cores
    bundle = None if config.bundle is None else open_bundle(config.bundle)
    stock_source = StockSource(config.sam, config.sam_checkpoint)
    with TemporaryDirectory(prefix="risbench-") as name:
        folder = Path(name)
        stock = stock_source.open(threads)
        plans = {plan.role: plan for plan in sam_graphs(stock.sam)}
        if bundle is None:
            specs = {role: plan.export(folder) for role, plan in plans.items()}
            engine_source = EngineSource(folder, specs, stock.facts.image_size_px)
        else:
            _check_weights(bundle, stock.facts)
            engine_source = EngineSource.of_bundle(bundle)
        engine = engine_source.open(threads)
        bench = Bench(engine, stock, plans, gemm_calls(folder, threads), _image(config), config.rounds)
        cases = _measure_cases(bench, _settings_by_case(bench, config, bundle), config.stock_batches)
        jobs = list(_memory_jobs(bench.image, cases[-1], engine_source, stock_source, config, threads))
        memory = [measure_memory(job) for job in tqdm(jobs, desc="peak memory", unit="run", disable=not jobs)]
    return ProposalsReport(
        config=config,
        threads=threads,
        environment=environment,
        sam=stock.facts,
        graph_sha256={role: spec.sha256 for role, spec in engine_source.graphs.items()},
        bundle_id="" if bundle is None else bundle.id,
        precision="fp32" if bundle is None else bundle.manifest.precision,
        providers=engine.providers,
        cases=tuple(cases),
        memory=tuple(memory),
    )


def _check_weights(bundle: Bundle, facts: SamFacts) -> None:
    hashes = [source.sha256 for source in bundle.manifest.sources if source.role == "sam"]
    if facts.sha256 not in hashes:
        raise InputError(
            f"{facts.checkpoint} has SHA-256 {facts.sha256[:16]}...; expected {', '.join(hashes)[:16]}..., from which "
            f"bundle {bundle.manifest.name} was made. Pass the bundle's own checkpoint."
        )


def _image(config: ProposalsConfig) -> NDArray[np.uint8]:
    if config.bundle is None:
        return random_image(config.image_size)
    return _resized(load_image(demo_pictures()[0].path), config.image_size)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _settings_by_case(bench: Bench, config: ProposalsConfig, bundle: Bundle | None) -> dict[str, ProposalSettings]:
    """Returns the bundle's own settings, or those that keep the shares asked for."""
    settings = ProposalSettings() if bundle is None else bundle.manifest.proposals
    if config.points_per_side is not None:
        settings = dataclasses.replace(settings, points_per_side=config.points_per_side)
    if bundle is not None:
        return {"the bundle's thresholds": settings}
    sam = SamImage.encode(bench.engine.sessions, bench.image, bench.engine.sam_image_size_px)
    with shown("predicted IoU of every prompt") as progress:
        chosen = settings_keeping(sam, settings, config.keep or _KEEP, progress)
    return {f"{100 * share:g} % of prompts kept": of_share for share, of_share in chosen.items()}


def _measure_cases(
    bench: Bench, cases: Mapping[str, ProposalSettings], stock_batches: tuple[int, ...]
) -> list[CaseResult]:
    """Measures all batch sizes in the first case, in the others the default and the one that was best there."""
    few = dataclasses.replace(next(iter(cases.values())), points_per_side=2, point_grids=None, crop_n_layers=0)
    for mode in engine_modes(few).values():
        bench.engine.run(bench.image, mode)
    bench.stock.run(bench.image, few, remember_embedding=True)
    batches = [DEFAULT_BATCH, *stock_batches]
    results: list[CaseResult] = []
    for name, settings in cases.items():
        results.append(measure_case(bench, name, settings, list(dict.fromkeys(batches))))
        batches = [DEFAULT_BATCH, results[0].best_batch]
    return results


def _memory_jobs(
    image: NDArray[np.uint8],
    case: CaseResult,
    engine: EngineSource,
    stock: StockSource,
    config: ProposalsConfig,
    threads: int,
) -> Iterator[MemoryJob]:
    """Yields the runs whose peak is measured, each to be made in a process of its own."""
    same = case.settings
    if config.bundle is None:  # the masks of a result without box NMS would be most of what either side holds
        same = dataclasses.replace(same, box_nms_thresh=ProposalSettings().box_nms_thresh)
    for where in config.memory:
        large = where == "large"
        settings = dataclasses.replace(same, points_per_side=_LARGE_POINTS) if large else same
        few = dataclasses.replace(same, points_per_side=_LARGE_STOCK_POINTS) if large else same
        picture = _resized(image, _LARGE_SIZE) if large else image
        for mode, of_mode in engine_modes(settings).items():
            yield MemoryJob(f"engine, {mode}", engine, picture, of_mode, threads)
        for batch in dict.fromkeys([DEFAULT_BATCH, case.best_batch]):
            at_batch = dataclasses.replace(few, points_per_batch=batch)
            yield MemoryJob(f"stock, batches of {batch}", stock, picture, at_batch, threads)
