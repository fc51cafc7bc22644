"""What a comparison of proposal stages is asked for, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from risbench.machine.arithmetic import Measured
from risbench.machine.environment import Environment
from risbench.machine.timing import Timing
from risbench.speed.peak_memory import PeakMemory
from risengine.errors import InputError
from risengine.manifest import Role
from risengine.method import ProposalSettings
from risexport.checkpoints.sam_checkpoints import SamFacts

__all__ = [
    "DEFAULT_BATCH",
    "CaseResult",
    "EngineResult",
    "Match",
    "MemoryCase",
    "ProposalsConfig",
    "ProposalsReport",
    "StockResult",
]

DEFAULT_BATCH = ProposalSettings().points_per_batch
"""segment-anything's own batch size."""

MemoryCase: TypeAlias = Literal["same", "large"]
"""Where peak memory is measured: at the image and grid of the latencies, or at 64 x 64 points on 4000 x 3000 pixels."""


@dataclass(frozen=True)
class ProposalsConfig:
    """What is measured.

    Attributes:
        sam: As :func:`risexport.checkpoints.sam_checkpoints.load_sam` takes it.
        bundle: Embedded name or directory of a bundle made from ``sam_checkpoint``; None for graphs exported from
            random weights.
        sam_checkpoint: The bundle's weights for PyTorch.
        points_per_side: Points of the grid along each side; None for the bundle's, or 32.
        keep: Shares of the prompts that are to keep a mask, by choice of the thresholds; None for a tenth, half and
            all, or for the thresholds of the bundle.
        stock_batches: Further batch sizes of segment-anything's, beside its default.
        threads: Threads of either side; 0 for all processors of this process.
        image_size: (H, W) of the image in pixels.
        rounds: Runs of each side.
        memory: Where peak memory is measured too.

    Raises:
        InputError: A value is outside its range, or one of bundle and checkpoint is missing.
    """

    sam: str = "vit_b"
    bundle: str | None = None
    sam_checkpoint: Path | None = None
    points_per_side: int | None = None
    keep: tuple[float, ...] | None = None
    stock_batches: tuple[int, ...] = (16, 4)
    threads: int = 0
    image_size: tuple[int, int] = (480, 640)
    rounds: int = 1
    memory: tuple[MemoryCase, ...] = ()

    def __post_init__(self) -> None:
        if (self.bundle is None) != (self.sam_checkpoint is None):
            raise InputError(
                f"bundle = {self.bundle}, sam_checkpoint = {self.sam_checkpoint}; expected both or neither. Pass the "
                "bundle with the checkpoint its SAM was exported from."
            )
        if self.keep is not None and (self.bundle is not None or not self.keep):
            raise InputError(f"keep = {self.keep}, bundle = {self.bundle}; expected one. A bundle has thresholds.")
        if not all(0 < share <= 1 for share in self.keep or ()):
            raise InputError(f"keep = {self.keep}; expected shares in (0, 1].")
        if min(self.stock_batches, default=1) < 1:
            raise InputError(f"stock_batches = {self.stock_batches}; expected batches of at least 1.")
        if self.threads < 0:
            raise InputError(f"threads = {self.threads}; expected 0 (all processors) or a positive whole number.")
        for name in ("points_per_side", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}; expected at least 1.")


@dataclass(frozen=True)
class Match:
    """Whether masks are those of segment-anything's generator.

    Attributes:
        found: Number of masks.
        expected: Number of the generator's masks.
        lowest_iou: The lowest, over the generator's masks, of the highest IoU with a mask found; None where the
            generator has none.
        same: Share of the generator's masks with an IoU of at least 0.99; 1 where it has none.
        similar: The same at 0.9: the recall of an approximation.
    """

    found: int
    expected: int
    lowest_iou: float | None
    same: float
    similar: float


@dataclass(frozen=True)
class StockResult:
    """segment-anything's generator at one batch size.

    Attributes:
        encoder: From the image's pixels to the embedding; None where an earlier embedding was used.
        decoder: Everything after that: decoder and post-processing.
        whole: Both together; None where an earlier embedding was used.
        proposals: Number of masks.
    """

    encoder: Measured | None
    decoder: Measured
    whole: Timing | None
    proposals: int


@dataclass(frozen=True)
class EngineResult:
    """The engine at the same settings.

    Attributes:
        encoder: From the image's pixels to what the decoder takes.
        decoder: Everything after that: decoder and post-processing.
        whole: Both together.
        prompts: Number of prompts decoded.
        survivors: Number of those for which the mask branch ran.
        masks: Number of masks whose logits were computed.
        match: Against the generator at its default batch size.
        decoder_speedup: ``decoder`` of the generator at its default batch size, divided by the engine's; medians.
        best_decoder_speedup: The same at the generator's best batch size.
        whole_speedup: ``whole`` of the generator at its default batch size, divided by the engine's.
    """

    encoder: Measured
    decoder: Measured
    whole: Timing
    prompts: int
    survivors: int
    masks: int
    match: Match
    decoder_speedup: float
    best_decoder_speedup: float
    whole_speedup: float


@dataclass(frozen=True)
class CaseResult:
    """Both sides at one choice of thresholds.

    Attributes:
        name: The case.
        settings: The generator's settings.
        gemm_gflop_per_s: The machine's GEMM rate in float32 just before, at the median, by library.
        engine: The engine by mode.
        stock: segment-anything's generator by batch size.
        best_batch: The batch size of those at which its decoder and post-processing took the least time.
    """

    name: str
    settings: ProposalSettings
    gemm_gflop_per_s: dict[str, float]
    engine: dict[str, EngineResult]
    stock: dict[int, StockResult]
    best_batch: int


@dataclass(frozen=True)
class ProposalsReport:
    """All figures of a run with the conditions they were measured under.

    Attributes:
        config: What was measured.
        threads: Threads of either side.
        environment: Machine and software.
        sam: The weights.
        graph_sha256: The graphs by role.
        bundle_id: The bundle; empty for graphs exported for this run.
        precision: Of the graphs.
        providers: What ran the graphs.
        cases: The latencies.
        memory: Peak memory, of the last case.
    """

    config: ProposalsConfig
    threads: int
    environment: Environment
    sam: SamFacts
    graph_sha256: dict[Role, str]
    bundle_id: str
    precision: str
    providers: tuple[str, ...]
    cases: tuple[CaseResult, ...]
    memory: tuple[PeakMemory, ...]
    schema_version: int = 1
