"""SAM around one image: the image is encoded once, then any number of prompts are decoded on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import DeviceSession, Session, run_chained
from risengine.generator.device_drawing import DeviceDrawer
from risengine.generator.drawing import Drawer
from risengine.generator.prompts import Prompts
from risengine.generator.upsample import Upsampler
from risengine.manifest import Role

__all__ = ["PROMPTS_PER_CALL", "PROMPTS_PER_GPU_CALL", "Decoded", "SamImage"]

PROMPTS_PER_CALL = 8
"""Most prompts decoded in one call on a CPU. More hold more memory, as each carries the image's features through the
decoder, 4 MB at SAM's own sizes, and gain little."""

PROMPTS_PER_GPU_CALL = 64
"""As many on a GPU, where 8 would leave most of the chip idle: segment-anything's own default, and the largest that
native engines are compiled for."""

_PROMPTS_DRAWN = 2  # prompts whose masks one call computes: what more hold falls out of a CPU's cache


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the point decoder says about P prompts: three masks each, not yet drawn.

    Attributes:
        scores: (P, 3) float32, predicted IoUs.
        mask_tokens: (P, 3, D) float32.
        image_features: (P, h * w, C) float32.
    """

    scores: NDArray[np.float32]
    mask_tokens: NDArray[np.float32]
    image_features: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SamImage:
    """An encoded image and the decoders to prompt.

    Attributes:
        sessions: ``point_decoder`` and ``mask_decoder`` are used, and ``mask_measurer`` where a GPU runs it.
        projections: What ``image_projector`` made of the image's embedding, by name: inputs of ``point_decoder``.
        grid: (h, w) of the embedding.
        size: (H, W) of the image in pixels.
        sam_image_size_px: Side of SAM's square input.
    """

    sessions: Mapping[Role, Session]
    projections: Mapping[str, NDArray[np.float32]]
    grid: tuple[int, int]
    size: tuple[int, int]
    sam_image_size_px: int

    @staticmethod
    def encode(sessions: Mapping[Role, Session], image: NDArray[np.uint8], sam_image_size_px: int) -> SamImage:
        """Encodes an image.

        Args:
            sessions: The bundle's sessions by role; SAM's four are used.
            image: (H, W, 3) uint8 RGB.
            sam_image_size_px: Side of SAM's square input.
        """
        embedding = run_chained(sessions["image_encoder"], {"image": image})["image_embedding"]
        projections = run_chained(sessions["image_projector"], {"image_embedding": embedding})
        size = image.shape[0], image.shape[1]
        return SamImage(sessions, projections, (embedding.shape[2], embedding.shape[3]), size, sam_image_size_px)

    @property
    def logits_size(self) -> tuple[int, int]:
        """Height and width of the masks' logits."""
        return 4 * self.grid[0], 4 * self.grid[1]

    @cached_property
    def drawer(self) -> Drawer:
        """Measures and draws this image's masks where :meth:`logits` leaves their logits."""
        if self._measurer is None:
            return Upsampler(self.size, self.logits_size, self.sam_image_size_px)
        return DeviceDrawer.of_image(self._measurer, self.size, self.logits_size, self.sam_image_size_px)

    def decode(self, prompts: Prompts) -> Decoded:
        """Decodes prompts in one call."""
        feeds = {
            **self.projections,
            "image_size": np.array(self.size, np.int64),
            "points": prompts.points,
            "labels": prompts.labels,
        }
        outputs = run_chained(self.sessions["point_decoder"], feeds, to_host=("iou_predictions", "mask_tokens"))
        return Decoded(outputs["iou_predictions"], outputs["mask_tokens"], outputs["image_features"])

    def decode_all(self, prompts: Prompts, points_per_batch: int) -> Iterator[Decoded]:
        """Decodes prompts a few at a time.

        Args:
            prompts: P prompts.
            points_per_batch: Most prompts in one call, which :data:`PROMPTS_PER_CALL`, or on a GPU
                :data:`PROMPTS_PER_GPU_CALL`, bounds too.

        Yields:
            The answers, in the prompts' order.
        """
        session, bound = self.sessions["point_decoder"], PROMPTS_PER_CALL
        if session.on_gpu:
            bound = min(PROMPTS_PER_GPU_CALL, session.largest("P") or PROMPTS_PER_GPU_CALL)
        step = min(points_per_batch, bound)
        for start in range(0, len(prompts), step):
            yield self.decode(prompts[start : start + step])

    def logits(self, decoded: Decoded, prompts: NDArray[np.int64], slots: NDArray[np.int64]) -> Any:
        """Computes some masks' logits on the padded square.

        Args:
            decoded: Answer for P prompts.
            prompts: (M,) int64 in [0, P), rising: the prompt of each mask.
            slots: (M,) int64 in [0, 3): which of the prompt's masks.

        Returns:
            (M, 4h, 4w) float32, where :attr:`drawer` turns them into masks: on the GPU if there is a
            ``mask_measurer``, else, and where M = 0, a NumPy array.
        """
        if not len(prompts):
            return np.zeros((0, *self.logits_size), np.float32)
        step = self._prompts_drawn()
        ends = np.flatnonzero(np.diff(prompts // step)) + 1
        parts = zip(np.split(prompts, ends), np.split(slots, ends), strict=True)
        return self.drawer.joined([self._logits(decoded, *part) for part in parts])

    def _prompts_drawn(self) -> int:
        """Returns how many prompts' masks one call computes, of each at most three."""
        session = self.sessions["mask_decoder"]
        if not session.on_gpu:
            return _PROMPTS_DRAWN
        most = PROMPTS_PER_GPU_CALL
        return max(1, min(most, session.largest("Q") or most, (session.largest("M") or 3 * most) // 3))

    @cached_property
    def _measurer(self) -> DeviceSession | None:
        session = self.sessions.get("mask_measurer")
        return session if isinstance(session, DeviceSession) and session.on_gpu else None

    def _logits(self, decoded: Decoded, prompts: NDArray[np.int64], slots: NDArray[np.int64]) -> Any:
        """Computes masks' logits in one call."""
        rows, prompt_index = np.unique(prompts, return_inverse=True)
        feeds = {
            "image_features": decoded.image_features[rows],
            "mask_tokens": decoded.mask_tokens[prompts, slots],
            "prompt_index": prompt_index.astype(np.int64),
        }
        to_host = ("logits",) if self._measurer is None else ()
        return run_chained(self.sessions["mask_decoder"], feeds, to_host)["logits"]
