"""Both sides of a comparison of proposal stages at one choice of thresholds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from tqdm import tqdm

from risbench.machine.arithmetic import graph_gflop, with_rate
from risbench.machine.gemm import GEMM_GFLOP
from risbench.machine.timing import Timing, TimingConfig, summarise_ms, time_in_turns
from risbench.speed.engine_side import DECODER_ROLES, EngineRun, EngineSide, StageRun
from risbench.speed.proposal_report import DEFAULT_BATCH, CaseResult, EngineResult, Match, StockResult
from risbench.speed.stock_side import StockSide
from risengine.generator.prompts import generator_crops
from risengine.generator.proposals import Progress
from risengine.manifest import Role
from risengine.method import ProposalSettings
from risengine.types import Proposals
from risexport.graphs import GraphPlan

__all__ = ["Bench", "engine_modes", "match_proposals", "measure_case", "shown"]

_GEMM_TIMING = TimingConfig(warmups=1, rounds=5, seconds=1.0)


@dataclass(frozen=True)
class Bench:
    """What all cases share.

    Attributes:
        engine: The engine's side.
        stock: segment-anything's side.
        plans: The modules that the graphs were exported from, by role.
        gemm: One product of matrices as each library computes it.
        image: (H, W, 3) uint8 RGB.
        rounds: Runs of each side.
    """

    engine: EngineSide
    stock: StockSide
    plans: Mapping[Role, GraphPlan]
    gemm: Mapping[str, Callable[[], object]]
    image: NDArray[np.uint8]
    rounds: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]


def measure_case(bench: Bench, name: str, settings: ProposalSettings, batches: Sequence[int]) -> CaseResult:
    """Times both sides in turns.

    Args:
        bench: What is measured.
        name: The case.
        settings: The generator's settings.
        batches: Batch sizes of segment-anything's generator; its default must be one.
    """
    timings = time_in_turns(bench.gemm, _GEMM_TIMING)
    gemm = {library: 1e3 * GEMM_GFLOP / timing.p50_ms for library, timing in timings.items()}
    modes = engine_modes(settings)
    engine_runs: dict[str, list[EngineRun]] = {mode: [] for mode in modes}
    stock_runs: dict[int, list[StageRun]] = {batch: [] for batch in batches}

    def run_engine(mode: str, progress: Progress) -> None:
        engine_runs[mode].append(bench.engine.run(bench.image, modes[mode], progress))

    def run_stock(batch: int, progress: Progress) -> None:
        at_batch = dataclasses.replace(settings, points_per_batch=batch)
        stock_runs[batch].append(bench.stock.run(bench.image, at_batch, progress, batch != DEFAULT_BATCH))

    order: list[tuple[str, Callable[[Progress], None]]] = [
        *((f"engine, {mode}", functools.partial(run_engine, mode)) for mode in modes),
        *((f"stock, batches of {batch}", functools.partial(run_stock, batch)) for batch in batches),
    ]
    for number in range(bench.rounds):
        for side, run in order:
            with shown(f"{name}: {side}, round {number + 1}/{bench.rounds}") as progress:
                run(progress)
        order.reverse()
    limit = max(gemm.values())
    best = min(stock_runs, key=lambda batch: _summary(stock_runs[batch], "decoder_ms").p50_ms)
    return CaseResult(
        name=name,
        settings=settings,
        gemm_gflop_per_s=gemm,
        engine={
            mode: _engine_result(bench, runs, stock_runs[DEFAULT_BATCH], stock_runs[best], limit)
            for mode, runs in engine_runs.items()
        },
        stock={batch: _stock_result(bench, settings, batch, runs, limit) for batch, runs in stock_runs.items()},
        best_batch=best,
    )


def engine_modes(settings: ProposalSettings) -> dict[str, ProposalSettings]:
    """Returns the settings of every way in which the engine searches, by its name."""
    searches = get_args(get_type_hints(ProposalSettings)["search"])
    return {search: dataclasses.replace(settings, search=search) for search in searches}


@contextmanager
def shown(what: str) -> Iterator[Progress]:
    """Shows a bar for as long as the context lasts; yields what moves it."""
    with tqdm(desc=what, unit="prompt", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def match_proposals(found: Proposals, expected: Proposals) -> Match:
    """Compares the masks of one image, each expected one with the most similar that was found."""
    if not len(expected):
        return Match(len(found), 0, None, 1.0, 1.0)
    best = np.zeros(len(expected))
    if len(found):
        records = [[record["segmentation"] for record in side.to_coco()] for side in (found, expected)]
        best = np.asarray(coco.iou(*records, [0] * len(expected))).max(axis=0)
    return Match(
        found=len(found),
        expected=len(expected),
        lowest_iou=float(best.min()),
        same=float((best >= 0.99).mean()),
        similar=float((best >= 0.9).mean()),
    )


def _summary(runs: Sequence[StageRun], part: Literal["encoder_ms", "decoder_ms", "whole_ms"]) -> Timing:
    return summarise_ms([getattr(run, part) for run in runs])


def _stock_result(
    bench: Bench, settings: ProposalSettings, batch: int, runs: Sequence[StageRun], gemm_gflop_per_s: float
) -> StockResult:
    at_batch = dataclasses.replace(settings, points_per_batch=batch)
    gflop = bench.stock.decoder_gflop(at_batch, bench.size)
    decoder = with_rate(_summary(runs, "decoder_ms"), gflop, gemm_gflop_per_s)
    if batch != DEFAULT_BATCH:
        return StockResult(None, decoder, None, len(runs[-1].proposals))
    gflop = len(generator_crops(settings, bench.size)) * bench.stock.encoder_gflop()
    encoder = with_rate(_summary(runs, "encoder_ms"), gflop, gemm_gflop_per_s)
    return StockResult(encoder, decoder, _summary(runs, "whole_ms"), len(runs[-1].proposals))


def _engine_result(
    bench: Bench,
    runs: Sequence[EngineRun],
    default: Sequence[StageRun],
    best: Sequence[StageRun],
    gemm_gflop_per_s: float,
) -> EngineResult:
    run = runs[-1]
    gflop = _gflop_by_role(bench.plans, run)
    decoder_gflop = sum(gflop.pop(role) for role in DECODER_ROLES)
    encoder, decoder, whole = (_summary(runs, part) for part in ("encoder_ms", "decoder_ms", "whole_ms"))
    return EngineResult(
        encoder=with_rate(encoder, sum(gflop.values()), gemm_gflop_per_s),
        decoder=with_rate(decoder, decoder_gflop, gemm_gflop_per_s),
        whole=whole,
        prompts=run.rows("point_decoder", "points"),
        survivors=run.rows("mask_decoder", "image_features"),
        masks=run.rows("mask_decoder", "mask_tokens"),
        match=match_proposals(run.proposals, default[-1].proposals),
        decoder_speedup=_summary(default, "decoder_ms").p50_ms / decoder.p50_ms,
        best_decoder_speedup=_summary(best, "decoder_ms").p50_ms / decoder.p50_ms,
        whole_speedup=_summary(default, "whole_ms").p50_ms / whole.p50_ms,
    )


def _gflop_by_role(plans: Mapping[Role, GraphPlan], run: EngineRun) -> dict[Role, float]:
    """Counts what each graph did by the module it was exported from, at the shapes of its calls."""
    return {
        role: sum(count * graph_gflop(plans[role], dict(shapes)) for shapes, count in calls.items())
        for role, calls in run.calls.items()
    }
