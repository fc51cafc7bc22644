"""segment-anything's side of a comparison of proposal stages: its own generator in PyTorch, as it comes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from risbench.machine.arithmetic import count_gflop
from risbench.machine.watch import timed_calls
from risbench.random_sam import shape_masks
from risbench.reference.proposals import generate_proposals
from risbench.speed.engine_side import StageRun
from risengine.generator.prompts import generator_crops
from risengine.generator.proposals import Progress
from risengine.method import ProposalSettings
from risexport.checkpoints.sam_checkpoints import SamFacts, load_sam

__all__ = ["StockSide", "StockSource"]


@dataclass(frozen=True)
class StockSource:
    """A SAM in PyTorch.

    Attributes:
        model: As :func:`risexport.checkpoints.sam_checkpoints.load_sam` takes it.
        checkpoint: Its weights; None for random ones that make patches.
    """

    model: str
    checkpoint: Path | None

    def open(self, threads: int) -> StockSide:
        """Loads the model; PyTorch's number of threads is set for the process.

        Raises:
            InputError: The model is unknown or the checkpoint does not fit.
        """
        torch.set_num_threads(threads)
        sam, facts = load_sam(self.model, self.checkpoint)
        if self.checkpoint is None:
            shape_masks(sam)
        return StockSide(sam, facts)


class StockSide:
    """A SAM and its automatic mask generator.

    Attributes:
        sam: The model.
        facts: What it is.
    """

    def __init__(self, sam: Sam, facts: SamFacts) -> None:
        """Takes a model in evaluation mode."""
        self.sam, self.facts = sam, facts
        self._embeddings: list[tuple[Tensor, Tensor]] = []

    def run(
        self,
        image: NDArray[np.uint8],
        settings: ProposalSettings,
        progress: Progress | None = None,
        remember_embedding: bool = False,
    ) -> StageRun:
        """Proposes masks in inference mode.

        Args:
            image: (H, W, 3) uint8 RGB.
            settings: The generator's settings; ``points_per_batch`` is taken as it is.
            progress: Called with (prompts done, prompts in all).
            remember_embedding: Do not encode an image that was encoded in an earlier such run; ``encoder_ms`` is then
                no measurement.
        """
        size = image.shape[0], image.shape[1]
        total = sum(len(crop.grid) for crop in generator_crops(settings, size))
        with (
            self._remembered() if remember_embedding else nullcontext(),
            self._watched(total, progress),
            timed_calls(SamPredictor, "set_image") as encodings_ms,
            # What turns its records into `Proposals` is not segment-anything's and not timed.
            timed_calls(SamAutomaticMaskGenerator, "generate") as generations_ms,
        ):
            proposals = generate_proposals(self.sam, image, settings)
        return StageRun(proposals, sum(encodings_ms), sum(generations_ms) - sum(encodings_ms))

    def encoder_gflop(self) -> float:
        """Counts the image encoder's arithmetic for one image."""
        side = self.sam.image_encoder.img_size
        with FakeTensorMode(allow_non_fake_inputs=True):
            return count_gflop(lambda: self.sam.image_encoder(torch.empty(1, 3, side, side)))

    def decoder_gflop(self, settings: ProposalSettings, size: tuple[int, int]) -> float:
        """Counts the arithmetic of decoding all of a generator's prompts.

        Args:
            settings: The generator's settings.
            size: (H, W) of the image in pixels.
        """
        one, two = (count_gflop(lambda count=count: self._decode(count)) for count in (1, 2))  # type: ignore[misc]
        prompt, batch = two - one, 2 * one - two  # a batch's own part is the embedding of the image's positions
        crops = [len(crop.grid) for crop in generator_crops(settings, size)]
        return sum(prompts * prompt + math.ceil(prompts / settings.points_per_batch) * batch for prompts in crops)

    def _decode(self, prompts: int) -> None:
        encoder = self.sam.prompt_encoder
        points = torch.zeros(prompts, 1, 2), torch.ones(prompts, 1, dtype=torch.int64)
        sparse, dense = encoder(points=points, boxes=None, masks=None)
        self.sam.mask_decoder(
            image_embeddings=torch.zeros(1, encoder.embed_dim, *encoder.image_embedding_size),
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        encode = self.sam.image_encoder.forward

        def forward(pixels: Tensor) -> Tensor:
            for known, embedding in self._embeddings:
                if torch.equal(known, pixels):
                    return embedding
            self._embeddings.append((pixels, encode(pixels)))
            return self._embeddings[-1][1]

        with patch.object(self.sam.image_encoder, "forward", forward):
            yield

    @contextmanager
    def _watched(self, total: int, progress: Progress | None) -> Iterator[None]:
        done = 0

        def count(_module: Any, _inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
            nonlocal done
            done += len(outputs[1])
            if progress is not None:
                progress(done, total)

        handle = self.sam.mask_decoder.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()
