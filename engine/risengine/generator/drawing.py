"""From a mask decoder's logits to measures and masks at the image's size: one interface for the host and for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Drawer", "HeldMask", "stability_scores"]


class HeldMask(Protocol):
    """One mask that can be drawn on the GPU again, from logits that lie there."""

    @property
    def drawer(self) -> Any:
        """What draws it; masks of one drawer are drawn together."""
        ...

    @property
    def logits(self) -> Any:
        """(M, h, w) on the GPU."""
        ...

    @property
    def row(self) -> int:
        """Which of the logits are the mask's."""
        ...


class Drawer(Protocol):
    """Measures and draws the masks ``logits > 0`` of one image, or of one crop of it, where their logits lie.

    Logits are (M, h, w) float32: NumPy arrays, or :class:`~risengine.backends.device_array.DeviceArray`.
    """

    @property
    def held_bytes(self) -> int:
        """Most bytes of logits that a search should hold."""
        ...

    def measure(self, logits: Any, stability_score_offset: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns the masks' stability scores (M,) float32 and boxes (M, 4) float32, half-open xyxy in pixels."""
        ...

    def covering(self, logits: Any, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """Returns how many masks cover each point, (P,) int64, of (P, 2) float32 xy in pixels."""
        ...

    def windows(self, logits: Any, boxes: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        """Yields the masks inside their boxes of :meth:`measure`, (y1 - y0, x1 - x0) bool in the host's memory."""
        ...

    def joined(self, parts: Sequence[Any]) -> Any:
        """Joins logits, at least one part."""
        ...

    def kept(self, logits: Any, corner: tuple[int, int], size: tuple[int, int]) -> Sequence[HeldMask | None]:
        """Keeps masks to be drawn again on the GPU.

        Args:
            logits: Of M masks.
            corner: (y, x) in the image of the first pixel that is drawn: a crop's.
            size: (H, W) of the whole image.

        Returns:
            M masks; None for each where the host draws.
        """
        ...


def stability_scores(inner: NDArray[Any], outer: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the IoU of masks cut at two logits, one of which lies inside the other; NaN where both are empty.

    Args:
        inner: (M,) whole numbers, pixels above the higher cut-off.
        outer: (M,) whole numbers, pixels above the lower one.

    Returns:
        (M,) float32.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scores: NDArray[np.float32] = np.divide(inner, outer, dtype=np.float32)
    return scores
