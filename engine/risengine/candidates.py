"""The automatic generator's search of one crop: which masks pass, in memory that does not grow with the grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from risengine.manifest import ProposalSettings
from risengine.nms import non_maximum_suppression
from risengine.prompts import Prompts
from risengine.sam import PROMPTS_PER_CALL, Decoded, SamImage

__all__ = ["Candidates"]

_HELD_BYTES = 1 << 27  # logits held at once: those of 512 candidates at SAM's own sizes


class Candidates:
    """The masks of one crop that pass the thresholds.

    Of each, a few numbers are held, and its logits as long as there is room for them and it has not lost against a
    better mask. Should one without logits win in the end, because its better was itself suppressed by a mask that came
    later, its batch of prompts is decoded again.

    Attributes:
        boxes: (N, 4) float32, half-open xyxy in pixels of the crop.
        scores: (N,) float32, predicted IoUs.
        stability_scores: (N,) float32.
    """

    def __init__(self, sam: SamImage, prompts: Prompts, settings: ProposalSettings) -> None:
        """Prepares the search.

        Args:
            sam: The crop, encoded.
            prompts: Where to ask.
            settings: Thresholds and batch size.
        """
        self._sam, self._prompts, self._settings = sam, prompts, settings
        self._step = min(settings.points_per_batch, PROMPTS_PER_CALL)
        self._logits: dict[int, NDArray[np.float32]] = {}
        self._room = max(2, _HELD_BYTES // (4 * math.prod(sam.logits_size)))
        self._origins = np.zeros((0, 2), np.int64)  # prompt and slot
        self.boxes = np.zeros((0, 4), np.float32)
        self.scores = np.zeros(0, np.float32)
        self.stability_scores = np.zeros(0, np.float32)

    def search(self, accept: Callable[[NDArray[np.float32]], NDArray[np.bool_]]) -> Iterator[int]:
        """Decodes all prompts.

        Args:
            accept: Tells of (M, 4) boxes which may stay.

        Yields:
            The number of prompts decoded, batch by batch.
        """
        for start in range(0, len(self._prompts), self._step):
            batch = self._prompts[start : start + self._step]
            self._add(start, self._sam.decode(batch), accept)
            yield len(batch)

    def survivors(self) -> NDArray[np.int64]:
        """Returns the (K,) indexes that box NMS keeps, by falling score."""
        return non_maximum_suppression(self.boxes, self.scores, self._settings.box_nms_thresh)

    def logits(self, indexes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yields the logits of candidates, a few at a time and in any order.

        Args:
            indexes: (K,) indexes of candidates.

        Yields:
            (M,) indexes and their (M, h, w) float32 logits.
        """
        for index in indexes:
            if index in self._logits:
                yield np.array([index]), self._logits[index][None]
        lost = np.array([index for index in indexes if index not in self._logits], np.int64)
        starts = self._origins[lost, 0] // self._step * self._step
        for start in np.unique(starts):  # the very batch again, so that every number comes out the same
            again = lost[starts == start]
            decoded = self._sam.decode(self._prompts[start : start + self._step])
            prompt, slot = self._origins[again].T
            yield again, self._sam.logits(decoded, prompt - start, slot)

    def _add(self, start: int, decoded: Decoded, accept: Callable[[NDArray[np.float32]], NDArray[np.bool_]]) -> None:
        """Keeps the good masks of a batch, by the generator's own tests in its order."""
        settings = self._settings
        scores = decoded.scores
        # Like segment-anything, a threshold of 0 keeps everything.
        prompt, slot = np.nonzero((scores > settings.pred_iou_thresh) | (settings.pred_iou_thresh <= 0))
        if not len(prompt):
            return
        logits = self._sam.logits(decoded, prompt, slot)
        stability, boxes = self._sam.upsampler.measure(logits, settings.stability_score_offset)
        good = (stability >= np.float32(settings.stability_score_thresh)) | (settings.stability_score_thresh <= 0)
        good &= boxes.any(axis=1)  # stock code drops empty masks too, unless the threshold is 0
        good &= accept(boxes)
        held = len(self.scores)
        self._logits.update({held + place: logits[index].copy() for place, index in enumerate(np.flatnonzero(good))})
        self._origins = np.concatenate([self._origins, np.stack([prompt + start, slot], axis=1)[good]])
        self.boxes = np.concatenate([self.boxes, boxes[good]])
        self.scores = np.concatenate([self.scores, scores[prompt, slot][good]])
        self.stability_scores = np.concatenate([self.stability_scores, stability[good]])
        if len(self._logits) > self._room:
            best = self.survivors()[: self._room // 2]
            self._logits = {index: self._logits[index] for index in best.tolist() if index in self._logits}
