"""Peak memory of a proposal stage, in a process of its own: what one run takes beyond the loaded models."""

from __future__ import annotations

import dataclasses
import logging
import re
import resource
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from risbench.machine.host_memory import MIB, begin_peak, peak_bytes, read_bytes
from risbench.speed.engine_side import StageRun
from risengine.method import ProposalSettings

__all__ = ["MemoryJob", "PeakMemory", "measure_memory"]

_logger = logging.getLogger(__name__)

_RESERVE = 0.1  # share of the free memory that a run is not given: exhausting it would end other processes


class Side(Protocol):
    """Anything that proposes masks."""

    def run(self, image: NDArray[np.uint8], settings: ProposalSettings) -> StageRun:
        """Proposes masks for an image, (H, W, 3) uint8 RGB."""
        ...


class Source(Protocol):
    """What another process makes a side from."""

    def open(self, threads: int) -> Side:
        """Loads the models."""
        ...


@dataclass(frozen=True)
class MemoryJob:
    """One run whose memory is measured.

    Attributes:
        name: What the report calls it.
        source: What is run; it is loaded in a process of its own.
        image: (H, W, 3) uint8 RGB.
        settings: The generator's settings.
        threads: Threads of the run.
    """

    name: str
    source: Source
    image: NDArray[np.uint8] = field(repr=False)
    settings: ProposalSettings
    threads: int


@dataclass(frozen=True)
class PeakMemory:
    """What one run took, in MiB.

    Attributes:
        name: What ran.
        image_size: (H, W) of the image in pixels.
        points_per_side: Points of the grid along each side.
        proposals: Number of masks it found.
        loaded_mib: Resident memory of the process when its models had been loaded.
        peak_mib: Highest resident memory of the run beyond that.
        limit_mib: How much the run was allowed to take.

    None is what is not known: masks and peak of a run for which there was not enough memory, all figures of a process
    that the system ended.
    """

    name: str
    image_size: tuple[int, int]
    points_per_side: int
    proposals: int | None = None
    loaded_mib: float | None = None
    peak_mib: float | None = None
    limit_mib: float | None = None


def measure_memory(job: MemoryJob) -> PeakMemory:
    """Runs a job once in a new process, where :func:`~risbench.machine.host_memory.check_measurable` passes.

    The run is limited to nine tenths of the memory that is free when its models have been loaded.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_measure, job).result()
    except BrokenProcessPool:
        _logger.warning("the process that measured %s was ended: the system may have run out of memory", job.name)
        return _unmeasured(job)


def _unmeasured(job: MemoryJob) -> PeakMemory:
    return PeakMemory(job.name, (job.image.shape[0], job.image.shape[1]), job.settings.points_per_side)


def _measure(job: MemoryJob) -> PeakMemory:
    side = job.source.open(job.threads)
    begin_peak()
    loaded = peak_bytes()
    limit = int((1 - _RESERVE) * read_bytes("/proc/meminfo", "MemAvailable"))
    ceiling = read_bytes("/proc/self/status", "VmSize") + limit
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, resource.getrlimit(resource.RLIMIT_AS)[1]))
    unfinished = dataclasses.replace(_unmeasured(job), loaded_mib=loaded / MIB, limit_mib=limit / MIB)
    try:
        proposals = len(side.run(job.image, job.settings).proposals)
    except (MemoryError, RuntimeError) as error:  # PyTorch and ONNX Runtime raise the latter
        if isinstance(error, RuntimeError) and not re.search(r"alloc|memory", str(error)):
            raise
        return unfinished
    peak = peak_bytes() - loaded
    return dataclasses.replace(unfinished, proposals=proposals, peak_mib=peak / MIB)
