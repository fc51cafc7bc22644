"""The automatic generator's search of one crop: which masks pass, in memory that hardly grows with the grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.generator.drawing import HeldMask
from risengine.generator.found import Found
from risengine.generator.nms import non_maximum_suppression
from risengine.generator.prompts import Crop, Prompts
from risengine.generator.sam import Decoded, SamImage
from risengine.generator.search import PointSearch, point_features, points_asked
from risengine.masks import pack_window
from risengine.method import ProposalSettings
from risengine.types import Proposals

__all__ = ["Candidates", "points_to_ask"]

_MASKS_DRAWN = 16  # masks whose logits are upsampled in one go, so that few are copied at a time
_CROP_EDGE_PX = 20.0  # a mask that ends this close to a crop's edge is taken to be cut off by it


class Candidates:
    """The masks of one crop that pass the thresholds.

    A mask is best drawn once it is known to survive, so its logits are held. When there is no more room for them the
    oldest masks are drawn all the same: run lengths take a hundredth of the logits' memory, and decoding a prompt again
    would take much longer than drawing its masks.
    """

    def __init__(self, sam: SamImage, settings: ProposalSettings, crop: Crop, size: tuple[int, int]) -> None:
        """Prepares the search.

        Args:
            sam: The crop, encoded.
            settings: Search, thresholds and batch size.
            crop: Where the crop lies, and its points.
            size: (H, W) of the image in pixels.
        """
        self._sam, self._settings, self._crop, self._size = sam, settings, crop, size
        self._room = sam.drawer.held_bytes // (4 * math.prod(sam.logits_size))
        self._held: list[Any] = []  # logits of the newest candidates, batch by batch, oldest first
        self._counts: list[str] = []  # of all before those
        self._boxes = np.zeros((0, 4), np.float32)  # in pixels of the crop
        self._scores = np.zeros(0, np.float32)
        self._stability_scores = np.zeros(0, np.float32)

    def search(self) -> Iterator[int]:
        """Asks the crop's points, or in turbo mode those worth it.

        Yields:
            The number of points asked, batch by batch; :func:`points_to_ask` is their sum.
        """
        points = self._crop.grid * np.array(self._sam.size[::-1], np.float32)
        prompts = Prompts.at_points(points)
        if self._settings.search == "exact":
            for decoded, _ in self._ask(prompts):
                yield len(decoded.scores)
            return
        search = PointSearch(point_features(self._sam, points))
        while len(chosen := search.next_round()):
            scores, covered = [], np.zeros(len(points), np.int64)
            for decoded, logits in self._ask(prompts[chosen]):
                scores.append(decoded.scores.max(axis=1))
                covered += self._sam.drawer.covering(logits, points)
                yield len(decoded.scores)
            search.learn(chosen, np.concatenate(scores), covered)

    def survivors(self) -> Found:
        """Returns the masks that box NMS keeps, in pixels of the image and by falling predicted IoU."""
        kept = non_maximum_suppression(self._boxes, self._scores, self._settings.box_nms_thresh)
        late = np.sort(kept[kept >= len(self._counts)])
        counts = dict(enumerate(self._counts))
        held: dict[int, HeldMask | None] = {}
        for start in range(0, len(late), _MASKS_DRAWN):
            some = late[start : start + _MASKS_DRAWN]
            logits = self._logits(some)
            counts.update(zip(some.tolist(), self._drawn(logits, self._boxes[some]), strict=True))
            x0, y0 = self._crop.box[:2]
            held.update(zip(some.tolist(), self._sam.drawer.kept(logits, (y0, x0), self._size), strict=True))
        boxes = self._boxes[kept] + np.array(self._crop.box[:2] * 2, np.float32)
        proposals = Proposals(
            self._size,
            tuple(counts[index] for index in kept.tolist()),
            boxes,
            self._scores[kept],
            self._stability_scores[kept],
        )
        return Found(proposals, tuple(held.get(index) for index in kept.tolist()))

    def _ask(self, prompts: Prompts) -> Iterator[tuple[Decoded, Any]]:
        """Decodes prompts and keeps their good masks; yields the answers of each batch and those masks' logits."""
        for decoded in self._sam.decode_all(prompts, self._settings.points_per_batch):
            logits = self._add(decoded)
            if len(logits):
                self._held.append(logits)
            yield decoded, logits
            while sum(map(len, self._held)) > self._room:
                oldest = self._held.pop(0)
                start = len(self._counts)
                self._counts.extend(self._drawn(oldest, self._boxes[start : start + len(oldest)]))

    def _add(self, decoded: Decoded) -> Any:
        """Notes the good masks of a batch, by the generator's own tests in its order, and returns their logits."""
        settings = self._settings
        scores = decoded.scores
        # Like segment-anything, a threshold of 0 keeps everything.
        prompt, slot = np.nonzero((scores > settings.pred_iou_thresh) | (settings.pred_iou_thresh <= 0))
        logits = self._sam.logits(decoded, prompt, slot)
        if not len(logits):
            return logits
        stability, boxes = self._sam.drawer.measure(logits, settings.stability_score_offset)
        good = (stability >= np.float32(settings.stability_score_thresh)) | (settings.stability_score_thresh <= 0)
        good &= boxes.any(axis=1)  # stock code drops empty masks too, unless the threshold is 0
        good &= _is_whole(boxes, self._crop, self._size)
        self._boxes = np.concatenate([self._boxes, boxes[good]])
        self._scores = np.concatenate([self._scores, scores[prompt, slot][good]])
        self._stability_scores = np.concatenate([self._stability_scores, stability[good]])
        return logits[np.flatnonzero(good)]

    def _logits(self, indexes: NDArray[np.int64]) -> Any:
        """Returns the logits held of candidates, at least one, by rising index."""
        parts, start = [], len(self._counts)
        for logits in self._held:
            rows = indexes[(indexes >= start) & (indexes < start + len(logits))] - start
            if len(rows):
                parts.append(logits[rows])
            start += len(logits)
        return self._sam.drawer.joined(parts)

    def _drawn(self, logits: Any, boxes: NDArray[np.float32]) -> list[str]:
        """Turns logits of candidates into COCO counts; ``boxes`` (M, 4) are in pixels of the crop."""
        corners = (boxes[:, 1::-1] + self._crop.box[1::-1]).astype(np.int64)
        drawn = zip(self._sam.drawer.windows(logits, boxes), corners.tolist(), strict=True)
        return [pack_window(window, (y, x), self._size) for window, (y, x) in drawn]


def points_to_ask(settings: ProposalSettings, points: int) -> int:
    """Returns how many of a crop's points are asked under some settings."""
    return points if settings.search == "exact" else points_asked(points)


def _is_whole(boxes: NDArray[np.float32], crop: Crop, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tells which boxes, in pixels of the crop, do not end at an edge of it that is none of the image's."""
    x0, y0 = crop.box[:2]
    # segment-anything compares the last pixel's coordinate with the edge past it.
    ends = boxes + np.array([x0, y0, x0 - 1, y0 - 1], np.float32)
    near_crop = np.abs(ends - np.array(crop.box, np.float32)) <= _CROP_EDGE_PX
    near_image = np.abs(ends - np.array([0, 0, size[1], size[0]], np.float32)) <= _CROP_EDGE_PX
    cut: NDArray[np.bool_] = np.any(near_crop & ~near_image, axis=1)
    return ~cut
