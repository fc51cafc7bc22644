"""Measuring and drawing masks on the GPU that decoded them, by the graph ``mask_measurer``.

The graph takes the logits' weights for the pixels of both axes, which the host makes for an image's size, and returns
counts of pixels, boxes and the masks. So the sizes of its outputs follow from the shapes of its inputs, as native
engines need, and other weights make it do other things: weights that are zero outside a crop draw a crop's masks into
the image, and weights that are one at some logits read these.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.device_array import DeviceArray
from risengine.backends.session import DeviceSession
from risengine.generator.drawing import HeldMask, stability_scores
from risengine.generator.placement import TAPS, Taps, axis_taps, nearest_logits, tap_feeds

__all__ = ["MASKS_PER_CALL", "DeviceDrawer", "draw_held"]

MASKS_PER_CALL = 32
"""Most masks measured in one call, as native engines are compiled for unless a --profile says less."""

_MEASURED_PIXELS = 1 << 24
"""Of all masks in one call. TensorRT-RTX resizes and thresholds in one kernel. ONNX Runtime's CUDA provider runs
node by node and has about four float32 arrays of this many pixels at a time, 270 MB (counted, not measured). That is 32
masks of 640 x 480 and 8 of 1920 x 1080, which leave no part of a GPU idle."""


class DeviceDrawer:
    """Measures and draws masks on the GPU; see :class:`risengine.generator.drawing.Drawer`.

    Attributes:
        held_bytes: Logits that a search may hold: those of 2048 masks at SAM's own sizes. What is drawn for want of
            room visits the host, so there is more of it than in the host's memory.
    """

    held_bytes = 1 << 29

    def __init__(self, session: DeviceSession, rows: Taps, columns: Taps) -> None:
        """Prepares the weights.

        Args:
            session: Of ``mask_measurer``.
            rows: Weights of the logits in each of H rows of pixels.
            columns: In each of W columns.
        """
        self._session = session
        self._taps = rows, columns
        self._uploaded: dict[str, DeviceArray] = {}
        self._whole: DeviceDrawer | None = None  # draws a crop's masks into the image

    @staticmethod
    def of_image(
        session: DeviceSession, size: tuple[int, int], logits_size: tuple[int, int], sam_image_size_px: int
    ) -> DeviceDrawer:
        """Returns the drawer of an image's masks.

        Args:
            session: Of ``mask_measurer``.
            size: (H, W) of the image in pixels.
            logits_size: (h, w) of the logits, which cover the padded square.
            sam_image_size_px: Side of SAM's square input.
        """
        rows, columns = (
            axis_taps(side, max(size), low, sam_image_size_px) for side, low in zip(size, logits_size, strict=True)
        )
        return DeviceDrawer(session, rows, columns)

    def measure(
        self, logits: DeviceArray, stability_score_offset: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :class:`risengine.generator.drawing.Drawer`; six numbers a mask visit the host."""
        found = [  # and not the masks, which fill the GPU's memory if they outlive their call
            (output["areas"], output["boxes"])
            for output in self._run(logits, ("areas", "boxes"), stability_score_offset)
        ]
        areas, boxes = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return stability_scores(areas[:, 0], areas[:, 1]), boxes

    def covering(self, logits: DeviceArray, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """See :class:`risengine.generator.drawing.Drawer`.

        Of each mask a byte visits the host for every row of points times every column: of a grid, for every point.
        """
        covered = np.zeros(len(points), np.int64)
        if not len(logits):
            return covered
        height, width = logits.shape[1:]
        (rows, row), (columns, column) = (
            np.unique(nearest, return_inverse=True) for nearest in nearest_logits(points, self._size, (height, width))
        )
        picker = DeviceDrawer(self._session, _selection(rows, height), _selection(columns, width))
        for output in picker._run(logits, ("masks",)):
            covered += np.count_nonzero(output["masks"][:, row, column], axis=0)
        return covered

    def windows(self, logits: DeviceArray, boxes: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        """See :class:`risengine.generator.drawing.Drawer`; of each mask the rows that its box spans visit the host."""
        edges = iter(boxes.astype(np.int64).tolist())
        height, width = self._size
        for output in self._run(logits, ()):
            masks: DeviceArray = output["masks"]
            for index, (x0, y0, x1, y1) in enumerate(itertools.islice(edges, len(masks))):
                rows = np.empty((y1 - y0, width), np.bool_)
                masks.memory.to_host(rows, masks.address + (index * height + y0) * width)
                yield rows[:, x0:x1]

    def draw(self, logits: DeviceArray) -> DeviceArray:
        """Draws masks that stay on the GPU.

        Args:
            logits: (M, h, w) float32.

        Returns:
            (M, H, W) bool.
        """
        drawn = [output["masks"] for output in self._run(logits, ())]
        return drawn[0] if len(drawn) == 1 else DeviceArray.joined(drawn)

    def joined(self, parts: Sequence[DeviceArray]) -> DeviceArray:
        """See :class:`risengine.generator.drawing.Drawer`."""
        return DeviceArray.joined(parts)

    def kept(self, logits: DeviceArray, corner: tuple[int, int], size: tuple[int, int]) -> list[HeldMask]:
        """See :class:`risengine.generator.drawing.Drawer`."""
        if self._whole is None and self._size != size:
            self._whole = DeviceDrawer(self._session, *map(_placed, self._taps, corner, size))
        return [_OnDevice(self._whole or self, logits, row) for row in range(len(logits))]

    @property
    def _size(self) -> tuple[int, int]:
        return len(self._taps[0]), len(self._taps[1])

    def _run(self, logits: DeviceArray, to_host: Collection[str], offset: float = 0.0) -> Iterator[dict[str, Any]]:
        """Runs the graph on as many masks at a time as there is room for."""
        if not self._uploaded:
            taps = tap_feeds(*self._taps)
            self._uploaded = {name: self._session.to_device(part) for name, part in taps.items()}
        most = min(MASKS_PER_CALL, self._session.largest("D") or MASKS_PER_CALL)
        step = max(1, min(most, _MEASURED_PIXELS // (self._size[0] * self._size[1])))
        for start in range(0, len(logits), step):
            feeds = {
                "logits": logits.part(start, min(start + step, len(logits))),
                **self._uploaded,
                "stability_score_offset": np.array(offset, np.float32),
            }
            yield self._session.run_on_device(feeds, to_host)


def draw_held(masks: Sequence[HeldMask]) -> DeviceArray:
    """Draws masks on the GPU.

    Args:
        masks: M, at least one.

    Returns:
        (M, H, W) bool.
    """
    drawers = list(dict.fromkeys(mask.drawer for mask in masks))
    drawn, order = [], []
    for drawer in drawers:
        own = [index for index, mask in enumerate(masks) if mask.drawer is drawer]
        rows = [masks[index].logits[np.array([masks[index].row])] for index in own]
        drawn.append(drawer.draw(DeviceArray.joined(rows)))
        order += own
    whole: DeviceArray = drawn[0]
    return whole if len(drawn) == 1 else DeviceArray.joined(drawn)[np.argsort(order)]


@dataclass(frozen=True, eq=False)
class _OnDevice:
    """See :class:`risengine.generator.drawing.HeldMask`."""

    drawer: DeviceDrawer
    logits: DeviceArray
    row: int


def _selection(places: NDArray[np.int64], length: int) -> Taps:
    """Returns the weights that read single places of an axis."""
    starts = np.minimum(places, length - TAPS)
    return Taps(starts, (starts[:, None] + np.arange(TAPS) == places[:, None]).astype(np.float32))


def _placed(taps: Taps, start: int, side: int) -> Taps:
    """Returns the weights of a crop's axis in the image's: zero, as a logit of no mask, where the crop is not."""
    placed = Taps(np.zeros(side, np.int64), np.zeros((side, TAPS), np.float32))
    placed.starts[start : start + len(taps)] = taps.starts
    placed.weights[start : start + len(taps)] = taps.weights
    return placed
