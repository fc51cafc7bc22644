"""Proposals together with what their masks can be drawn from on the GPU, so that they need not be sent there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.generator.device_drawing import draw_held
from risengine.generator.drawing import HeldMask
from risengine.types import Proposals

__all__ = ["Found"]


@dataclass(frozen=True, eq=False)
class Found:
    """N proposals of one image.

    Attributes:
        proposals: What a caller gets.
        held: For each, its mask on the GPU; None where only the host has it.
    """

    proposals: Proposals
    held: tuple[HeldMask | None, ...]

    @staticmethod
    def on_host(proposals: Proposals) -> Found:
        """Wraps proposals that only the host has."""
        return Found(proposals, (None,) * len(proposals))

    @staticmethod
    def joined(parts: Sequence[Found]) -> Found:
        """Joins what was found in one image, at least one part, in the order given."""
        held = tuple(mask for part in parts for mask in part.held)
        return Found(Proposals.joined([part.proposals for part in parts]), held)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, rows: NDArray[np.int64]) -> Found:
        return Found(self.proposals[rows], tuple(self.held[row] for row in rows.tolist()))

    def masks(self, start: int, stop: int) -> Any:
        """Returns some masks for a graph.

        Args:
            start: The first.
            stop: Past the last.

        Returns:
            (n, H, W) bool: a :class:`~risengine.backends.device_array.DeviceArray` where the GPU has all of
            them, else a NumPy array.
        """
        held = [mask for mask in self.held[start:stop] if mask is not None]
        return draw_held(held) if len(held) == stop - start else self.proposals[start:stop].masks
