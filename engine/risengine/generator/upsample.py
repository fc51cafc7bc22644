"""A mask decoder's logits at the image's size, computed only where they decide something.

segment-anything resizes logits to its square input, cuts the padding off and resizes to the image, both times with two
bilinear taps a pixel. Both are linear, so their product is one matrix an axis, and every pixel is a weighted mean of a
few logits around it. So the image is cut into tiles: where all the logits that reach a tile lie on one side of a
cut-off, so do its pixels, and only the tiles left, along the masks' edges, are computed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from risengine.generator.drawing import stability_scores
from risengine.generator.placement import axis_weights, nearest_logits

__all__ = ["Upsampler"]

_TILE_PX = 48  # a multiple of 8; smaller tiles compute fewer pixels, and cost more calls
_EVALUATED_PIXELS = 1 << 20  # pixels of logits held at once: 4 MB of float32


class Upsampler:
    """Upsamples the logits of one size of image, in the host's memory; see :class:`risengine.generator.drawing.Drawer`.

    Attributes:
        held_bytes: Logits that a search may hold: those of 512 masks at SAM's own sizes.
    """

    held_bytes = 1 << 27

    def __init__(self, size: tuple[int, int], logits_size: tuple[int, int], sam_image_size_px: int) -> None:
        """Prepares the weights.

        Args:
            size: (H, W) of the image in pixels.
            logits_size: (h, w) of the logits, which cover the padded square.
            sam_image_size_px: Side of SAM's square input.
        """
        self.size, self._logits_size = size, logits_size
        self._rows = _axis(size[0], max(size), logits_size[0], sam_image_size_px)
        self._columns = _axis(size[1], max(size), logits_size[1], sam_image_size_px)

    def measure(
        self, logits: NDArray[np.float32], stability_score_offset: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Measures the masks ``logits > 0`` at the image's size without drawing them.

        Args:
            logits: (M, h, w) float32.
            stability_score_offset: Shift of the cut-off.

        Returns:
            Stability scores (M,) float32, the IoU of the masks cut at the offset above and below 0, NaN where both are
            empty; and boxes (M, 4) float32, half-open xyxy in pixels, (0, 0, 0, 0) for an empty mask.
        """
        above, below = stability_score_offset, -stability_score_offset
        full, mixed = self._judge(logits, min(below, 0.0), max(above, 0.0))
        areas = np.outer(self._rows.lengths, self._columns.lengths)
        inner: NDArray[np.int64] = (full * areas).sum(axis=(1, 2))
        outer = inner.copy()
        extent = _Extent(len(logits))
        mask, row, column = np.nonzero(full)
        starts = row * _TILE_PX, column * _TILE_PX
        extent.add(mask, starts, (starts[0] + self._rows.lengths[row], starts[1] + self._columns.lengths[column]))
        for mask, row, column, values in self._evaluate(logits, mixed):
            for start, stop in _runs(mask):
                inner[mask[start]] += np.count_nonzero(values[start:stop] > above)
                outer[mask[start]] += np.count_nonzero(values[start:stop] > below)
            drawn = values > 0
            in_rows: NDArray[np.bool_] = np.any(drawn.view(np.uint64), axis=2)  # eight pixels at a time
            in_columns: NDArray[np.bool_] = np.any(drawn, axis=1)
            tile = np.flatnonzero(np.any(in_columns, axis=1))
            starts = row[tile] * _TILE_PX, column[tile] * _TILE_PX
            lows = in_rows[tile].argmax(axis=1), in_columns[tile].argmax(axis=1)
            highs = (_TILE_PX - used[tile, ::-1].argmax(axis=1) for used in (in_rows, in_columns))
            extent.add(
                mask[tile],
                (starts[0] + lows[0], starts[1] + lows[1]),
                tuple(start + high for start, high in zip(starts, highs, strict=True)),
            )
        return stability_scores(inner, outer), extent.boxes()

    def covering(self, logits: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.int64]:
        """Returns how many masks cover each point: those whose nearest logit is positive.

        Args:
            logits: (M, h, w) float32.
            points: (P, 2) float32 xy in pixels of the image.

        Returns:
            (P,) int64.
        """
        rows, columns = nearest_logits(points, self.size, self._logits_size)
        covering: NDArray[np.int64] = np.count_nonzero(logits[:, rows, columns] > 0, axis=0)
        return covering

    def windows(self, logits: NDArray[np.float32], boxes: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        """Yields the masks inside their boxes; see :class:`risengine.generator.drawing.Drawer`."""
        for mask, (x0, y0, x1, y1) in zip(self.masks(logits), boxes.astype(np.int64).tolist(), strict=True):
            yield mask[y0:y1, x0:x1]

    def joined(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Joins logits, (M, h, w) each."""
        return np.concatenate(parts)

    def kept(self, logits: NDArray[np.float32], corner: tuple[int, int], size: tuple[int, int]) -> list[None]:
        """Keeps nothing to draw masks from again: the host reads their run lengths in less time."""
        return [None] * len(logits)

    def masks(self, logits: NDArray[np.float32]) -> Iterator[NDArray[np.bool_]]:
        """Yields the masks ``logits > 0`` at the image's size, one at a time.

        Args:
            logits: (M, h, w) float32.

        Yields:
            (H, W) bool.
        """
        full, mixed = self._judge(logits, 0.0, 0.0)
        pieces = self._pieces(logits, mixed)
        piece = next(pieces, None)
        for index, inner in enumerate(full):
            tiles = np.zeros((len(inner), _TILE_PX, inner.shape[1], _TILE_PX), np.bool_)
            row, column = np.nonzero(inner)
            tiles[row, :, column] = True
            while piece is not None and piece[0] == index:
                _, row, column, drawn = piece
                tiles[row, :, column] = drawn
                piece = next(pieces, None)
            canvas = tiles.reshape(len(inner) * _TILE_PX, -1)
            yield canvas[: self.size[0], : self.size[1]]

    def _pieces(
        self, logits: NDArray[np.float32], where: NDArray[np.bool_]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
        """Yields some tiles drawn, mask by mask: the mask, the tiles' rows and columns, and the tiles."""
        for mask, row, column, values in self._evaluate(logits, where):
            drawn = values > 0
            for start, stop in _runs(mask):
                yield int(mask[start]), row[start:stop], column[start:stop], drawn[start:stop]

    def _judge(
        self, logits: NDArray[np.float32], low: float, high: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tells which tiles, (M, rows, columns), lie wholly above ``high``, and which have to be computed."""
        full, reached = (
            _reduced(_reduced(logits > cut, reduce, self._rows, 1), reduce, self._columns, 2)
            for cut, reduce in ((high, np.logical_and), (low, np.logical_or))
        )
        return full, ~full & reached

    def _evaluate(
        self, logits: NDArray[np.float32], where: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """Yields mask, row and column of some tiles, and their logits; pixels beyond the image are -inf."""
        rows, columns = self._rows, self._columns
        windows = np.lib.stride_tricks.sliding_window_view(logits, (rows.window, columns.window), axis=(1, 2))
        chosen = np.nonzero(where)
        step = max(1, _EVALUATED_PIXELS // _TILE_PX**2)
        for start in range(0, len(chosen[0]), step):
            mask, row, column = (index[start : start + step] for index in chosen)
            window = windows[mask, rows.starts[row], columns.starts[column]]
            across = columns.weights[column].transpose(0, 2, 1)
            values: NDArray[np.float32] = np.matmul(np.matmul(rows.weights[row], window), across)
            values[row == len(rows.starts) - 1, rows.lengths[-1] :] = -np.inf
            values[column == len(columns.starts) - 1, :, columns.lengths[-1] :] = -np.inf
            yield mask, row, column, values


@dataclass(frozen=True, eq=False)
class _Axis:
    """The T tiles of one axis: pixels in each, first logit of each one's window, weights (T, tile, window)."""

    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def window(self) -> int:
        return int(self.weights.shape[2])


class _Extent:
    """The boxes of masks that are given piece by piece."""

    def __init__(self, masks: int) -> None:
        self._low = np.full((masks, 2), np.iinfo(np.int64).max)
        self._high = np.zeros((masks, 2), np.int64)

    def add(
        self,
        mask: NDArray[np.int64],
        low: tuple[NDArray[np.int64], ...],
        high: tuple[NDArray[np.int64], ...],
    ) -> None:
        """Adds pieces to masks: their (y, x) of the first pixel and past the last."""
        np.minimum.at(self._low, mask, np.stack(low, axis=1))
        np.maximum.at(self._high, mask, np.stack(high, axis=1))

    def boxes(self) -> NDArray[np.float32]:
        boxes = np.concatenate([self._low[:, ::-1], self._high[:, ::-1]], axis=1)
        boxes[self._high[:, 0] == 0] = 0
        return boxes.astype(np.float32)


@functools.lru_cache(maxsize=16)
def _axis(side: int, longest: int, low: int, square: int) -> _Axis:
    """Cuts one axis of :func:`axis_weights`."""
    matrix = axis_weights(side, longest, low, square)
    tiles = [matrix[start : start + _TILE_PX] for start in range(0, side, _TILE_PX)]
    used = [np.flatnonzero(tile.any(axis=0)) for tile in tiles]
    window = max(int(columns[-1] - columns[0]) + 1 for columns in used)
    starts = np.array([min(int(columns[0]), low - window) for columns in used])
    weights = np.zeros((len(tiles), _TILE_PX, window), np.float32)
    for index, (tile, start) in enumerate(zip(tiles, starts, strict=True)):
        weights[index, : len(tile)] = tile[:, start : start + window]
    return _Axis(np.array([len(tile) for tile in tiles]), starts, weights)


def _reduced(values: NDArray[np.bool_], reduce: np.ufunc, axis: _Axis, at: int) -> NDArray[np.bool_]:
    """Reduces dimension ``at`` of the logits' truths to one value a tile, over all that reach it."""
    shape = *values.shape[:at], len(axis.starts), *values.shape[at + 1 :]
    reduced = np.empty(shape, np.bool_)
    windows, places = np.moveaxis(values, at, 0), np.moveaxis(reduced, at, 0)
    for place, start in zip(places, axis.starts, strict=True):
        reduce.reduce(windows[start : start + axis.window], out=place)
    return reduced


def _runs(mask: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yields where each mask's tiles start and stop; those of a mask follow each other."""
    starts = np.flatnonzero(np.diff(mask, prepend=-1)).tolist()
    return zip(starts, [*starts[1:], len(mask)], strict=True)
