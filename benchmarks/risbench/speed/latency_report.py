"""What a latency run is asked for, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risbench.machine.environment import Environment
from risbench.machine.timing import Timing, TimingConfig
from risbench.quality.accuracy import BundleFacts
from risbench.speed.cold_start import ColdStart
from risbench.speed.whole_path import ModelFiles
from risengine.errors import InputError
from risengine.manifest import Target

__all__ = [
    "RANDOM_WEIGHTS",
    "REFERENCE",
    "TRAINED_WEIGHTS",
    "LatencyConfig",
    "LatencyReport",
    "Machine",
    "Parity",
    "SideResult",
    "StageResult",
    "worst_stage",
]

REFERENCE = "reference"
"""Name of the PyTorch reference among the sides."""

TRAINED_WEIGHTS, RANDOM_WEIGHTS = "trained", "random: latency only"


@dataclass(frozen=True)
class LatencyConfig:
    """What is measured.

    Attributes:
        bundle: Embedded name or directory.
        image: File of the image; None for the first of the shipped pictures.
        reference: Measure the PyTorch reference too, in turns with the engine.
        devices: Where the engine runs, each in turn.
        threads: Threads of every side; 0 for all processors of this process.
        proposals: So many masks, always the same, are described in place of what SAM proposes, after SAM has run all
            the same; None for SAM's own, or 100 where SAM's weights are random.
        keep: Share of the prompts with a mask of sufficient predicted IoU, by choice of the threshold, where SAM's
            weights are random; None for half there, and for the settings' own thresholds elsewhere.
        settings: What differs from the bundle's proposal settings, by name.
        timing: How often a question is asked.
        batch: Images that are answered one after the other and timed together; 0 for none.
        cold_starts: Processes started to time a first mask; 0 for none. The reference is started once.
        files: Where the reference's models are.

    Raises:
        InputError: A value is outside its range.
    """

    bundle: str
    image: Path | None = None
    reference: bool = False
    devices: tuple[Target, ...] = ("cpu",)
    threads: int = 0
    proposals: int | None = None
    keep: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    timing: TimingConfig = field(default_factory=TimingConfig)
    batch: int = 4
    cold_starts: int = 3
    files: ModelFiles = field(default_factory=ModelFiles)

    def __post_init__(self) -> None:
        if self.proposals is not None and self.proposals < 2:
            raise InputError(f"proposals = {self.proposals}; expected at least 2, one of which covers the image.")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InputError(f"keep = {self.keep}; expected a share in (0, 1].")
        for name in ("threads", "batch", "cold_starts"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}; expected 0 or more.")
        if not self.devices or len(set(self.devices)) < len(self.devices):
            raise InputError(f"devices = {self.devices}; expected at least one, each once.")


@dataclass(frozen=True)
class Machine:
    """What this machine can do at most, measured in turns with the sides.

    Attributes:
        gemm_gflop_per_s: Rate of float32 matrix products at the median, by library.
        copy_gbyte_per_s: Bytes read and written a second, at the median, when a large array is copied.
    """

    gemm_gflop_per_s: dict[str, float]
    copy_gbyte_per_s: float

    @property
    def gemm(self) -> float:
        """The better library's rate."""
        return max(self.gemm_gflop_per_s.values())

    def roof(self, flop_per_byte: float) -> float:
        """Returns the highest possible rate, in 1e9 operations a second, of work that does so much with each byte."""
        return min(self.gemm, flop_per_byte * self.copy_gbyte_per_s)


@dataclass(frozen=True)
class StageResult:
    """One stage of one side.

    Attributes:
        timing: Durations.
        gflop: Arithmetic of its graphs in 1e9 operations, two a multiply-add, counted at the shapes they were given;
            None where there is none or it is not known.
        gbyte: Weights, inputs and outputs of its graphs, once a run of each, in 1e9 bytes; None where not known.
        gflop_per_s: ``gflop`` a second, at the median.
        gemm_share: The same as a share of the machine's GEMM rate.
        roof_share: The same as a share of what GEMM rate and memory allow.
    """

    timing: Timing
    gflop: float | None = None
    gbyte: float | None = None
    gflop_per_s: float | None = None
    gemm_share: float | None = None
    roof_share: float | None = None

    @staticmethod
    def of(timing: Timing, gflop: float | None, gbyte: float | None, machine: Machine) -> StageResult:
        """Sets durations beside arithmetic and memory."""
        if not gflop:
            return StageResult(timing, None, gbyte)
        rate = 1e3 * gflop / timing.p50_ms
        roof = rate / machine.roof(gflop / gbyte) if gbyte else None
        return StageResult(timing, gflop, gbyte, rate, rate / machine.gemm, roof)


@dataclass(frozen=True)
class SideResult:
    """The engine on one device, or the reference.

    Attributes:
        providers: What ran it.
        stages: By name, in order; see :data:`risbench.speed.whole_path.STAGES`.
        whole: From the image's file to the mask, for an expression never asked before.
        whole_ms: Every run of the same.
        further: A further expression on an image that is encoded.
        batch: Images answered one after the other, an image; None where it was not measured.
        proposed: Number of masks that SAM proposed.
        described: Number of masks that CLIP described.
        cold: Cold starts.
    """

    providers: tuple[str, ...]
    stages: dict[str, StageResult]
    whole: Timing
    whole_ms: tuple[float, ...]
    further: Timing
    batch: Timing | None
    proposed: int
    described: int
    cold: tuple[ColdStart, ...]


@dataclass(frozen=True)
class Parity:
    """The engine's results beside the reference's at the same question.

    Attributes:
        found: Number of masks that the engine proposes.
        expected: Number of the reference's.
        lowest_mask_iou: The lowest, over the reference's masks, of the highest IoU with a mask of the engine's; None
            where the reference proposes none.
        relative_error: Of the features of the same masks, the worst mask's.
        answer_iou: IoU of the two answers.
    """

    found: int
    expected: int
    lowest_mask_iou: float | None
    relative_error: float
    answer_iou: float


@dataclass(frozen=True)
class LatencyReport:
    """All figures of a run with the conditions they were measured under.

    Attributes:
        bundle: What was measured, with the settings in force.
        config: How.
        environment: Machine and software.
        threads: Threads of every side.
        image_size: (H, W) in pixels.
        text: One of the expressions.
        machine: The limits, measured in the same run.
        sides: By name: ``engine, <device>`` and :data:`REFERENCE`.
        ratios: The reference's median divided by the first engine's, by stage, and for ``whole``, ``further`` and
            ``cold``; empty without a reference.
        parity: Whether both compute the same; None without a reference.
        weights: ``trained``, or that they are random.
    """

    bundle: BundleFacts
    config: LatencyConfig
    environment: Environment
    threads: int
    image_size: tuple[int, int]
    text: str
    machine: Machine
    sides: dict[str, SideResult]
    ratios: dict[str, float]
    parity: Parity | None
    weights: str
    schema_version: int = 1

    @property
    def engine(self) -> SideResult:
        """The engine on the first device."""
        return next(iter(self.sides.values()))


def worst_stage(side: SideResult) -> tuple[str, float]:
    """Finds the stage in which most time is spent beyond what the machine's GEMM rate asks for.

    Returns:
        Its name, and the milliseconds beyond; a stage without arithmetic is all beyond.
    """
    lost = {name: stage.timing.p50_ms * (1 - min(1.0, stage.gemm_share or 0.0)) for name, stage in side.stages.items()}
    name = max(lost, key=lambda stage: lost[stage])
    return name, lost[name]
