"""The automatic generator's search of one crop: which masks pass, in memory that hardly grows with the grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from risengine.manifest import ProposalSettings
from risengine.masks import pack_mask
from risengine.nms import non_maximum_suppression
from risengine.prompts import Prompts
from risengine.sam import Decoded, SamImage
from risengine.types import Proposals

__all__ = ["Candidates"]

_HELD_BYTES = 1 << 27  # logits held at once: those of 512 candidates at SAM's own sizes


class Candidates:
    """The masks of one crop that pass the thresholds.

    A mask is best drawn once it is known to survive, so its logits are held. When there is no more room for them the
    oldest masks are drawn all the same: run lengths take a hundredth of the logits' memory, and decoding a prompt again
    would take much longer than drawing its masks.
    """

    def __init__(
        self, sam: SamImage, settings: ProposalSettings, corner: tuple[int, int], size: tuple[int, int]
    ) -> None:
        """Prepares the search.

        Args:
            sam: The crop, encoded.
            settings: Thresholds and batch size.
            corner: (y, x) of the crop's first pixel in the image.
            size: (H, W) of the image in pixels.
        """
        self._sam, self._settings, self._corner, self._size = sam, settings, corner, size
        self._room = _HELD_BYTES // (4 * math.prod(sam.logits_size))
        self._logits: dict[int, NDArray[np.float32]] = {}  # of the newest candidates, oldest first
        self._counts: list[str] = []  # of all before those
        self._boxes = np.zeros((0, 4), np.float32)  # in pixels of the crop
        self._scores = np.zeros(0, np.float32)
        self._stability_scores = np.zeros(0, np.float32)

    def search(self, prompts: Prompts, accept: Callable[[NDArray[np.float32]], NDArray[np.bool_]]) -> Iterator[int]:
        """Decodes prompts.

        Args:
            prompts: Where to ask.
            accept: Tells of (M, 4) boxes which may stay.

        Yields:
            The number of prompts decoded, batch by batch.
        """
        for decoded in self._sam.decode_all(prompts, self._settings.points_per_batch):
            self._add(decoded, accept)
            while len(self._logits) > self._room:
                oldest = len(self._counts)
                self._counts.append(self._drawn(oldest))
                del self._logits[oldest]
            yield len(decoded.scores)

    def survivors(self) -> Proposals:
        """Returns the masks that box NMS keeps, in pixels of the image and by falling predicted IoU."""
        kept = non_maximum_suppression(self._boxes, self._scores, self._settings.box_nms_thresh)
        drawn = len(self._counts)
        counts = tuple(self._counts[index] if index < drawn else self._drawn(index) for index in kept.tolist())
        y0, x0 = self._corner
        boxes = self._boxes[kept] + np.array([x0, y0, x0, y0], np.float32)
        return Proposals(self._size, counts, boxes, self._scores[kept], self._stability_scores[kept])

    def _add(self, decoded: Decoded, accept: Callable[[NDArray[np.float32]], NDArray[np.bool_]]) -> None:
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
        held = len(self._scores)
        self._logits.update({held + place: logits[index].copy() for place, index in enumerate(np.flatnonzero(good))})
        self._boxes = np.concatenate([self._boxes, boxes[good]])
        self._scores = np.concatenate([self._scores, scores[prompt, slot][good]])
        self._stability_scores = np.concatenate([self._stability_scores, stability[good]])

    def _drawn(self, index: int) -> str:
        """Turns the logits held of a candidate into COCO counts."""
        (mask,) = self._sam.upsampler.masks(self._logits[index][None])
        return pack_mask(mask, self._boxes[index], self._corner, self._size)
