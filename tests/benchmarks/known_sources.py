"""Sides whose use of memory is known; a module of its own because another process imports them by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from risbench.speed.engine_side import StageRun
from risengine.types import Proposals


@dataclass(frozen=True)
class KnownSource:
    """Takes ``loading`` bytes for a moment while it is opened, and ``running`` bytes while it runs."""

    loading: int
    running: int

    def open(self, threads: int) -> KnownSource:
        np.ones(self.loading, np.uint8)
        return self

    def run(self, image: np.ndarray, settings: Any) -> StageRun:
        np.ones(self.running, np.uint8)
        return StageRun(Proposals.from_masks(np.ones((2, *image.shape[:2]), np.bool_)), 1.0, 1.0)


@dataclass(frozen=True)
class BrokenSource:
    def open(self, threads: int) -> BrokenSource:
        return self

    def run(self, image: np.ndarray, settings: Any) -> StageRun:
        raise RuntimeError("a defect")


@dataclass(frozen=True)
class KilledSource:
    def open(self, threads: int) -> KilledSource:
        os._exit(1)
