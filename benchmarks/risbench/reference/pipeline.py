"""All stages together: image and expression to mask, with the interface and the values of the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from segment_anything.modeling import Sam
from torch.nn import functional as F

from risbench.reference.proposals import generate_records, pack_records
from risbench.reference.text import Tokenizer, encode_expression, parse_text
from risbench.reference.visual import encode_masks
from risengine.caller_masks import read_masks
from risengine.errors import InputError
from risengine.images import ImageLike, load_image
from risengine.method import Method, ProposalSettings
from risengine.types import EncodedImage, Proposals, Segmentation

__all__ = ["ReferencePipeline"]


@dataclass(frozen=True)
class ReferencePipeline:
    """The method in PyTorch. Give it a bundle's ``method`` and ``proposals`` to compare it with that bundle.

    Attributes:
        clip: open_clip model in evaluation mode.
        tokenizer: Its tokenizer.
        sam: segment-anything model in evaluation mode; it proposes the masks.
        method: The method's values.
        proposals: The mask generator's settings.
        bundle_id: Marks the images that this pipeline encoded.
    """

    clip: CLIP
    tokenizer: Tokenizer
    sam: Sam
    method: Method
    proposals: ProposalSettings
    bundle_id: str = "reference"

    def encode_image(self, image: ImageLike, masks: NDArray[np.bool_] | Proposals | None = None) -> EncodedImage:
        """Computes proposals and their features.

        Args:
            image: Path, PIL image or (H, W, 3) uint8 RGB array.
            masks: (N, H, W) bool or proposals, none empty, used in place of SAM's proposals.

        Returns:
            Features of unit norm where the method compares by cosine; times of the stages with the device in step.
            What only packs masks for the engine's types is in none of them.

        Raises:
            InputError: The image or the masks cannot be used.
        """
        watch = _Stopwatch(self.clip.logit_scale.device)
        pixels = load_image(image)
        watch.lap("load_image")
        size = pixels.shape[0], pixels.shape[1]
        records = generate_records(self.sam, pixels, self.proposals) if masks is None else []
        watch.lap("proposals")
        proposals = pack_records(records, size) if masks is None else read_masks(masks, size)
        unpacked = proposals.masks
        watch.skip()
        features = encode_masks(self.clip.visual, pixels, unpacked, self.method).features
        if self.method.similarity == "cosine":
            features = F.normalize(features, dim=-1)
        described = features.cpu().numpy()
        watch.lap("proposal_features")
        return EncodedImage(pixels, proposals, described, self.bundle_id, watch.laps_ms, self.method.global_weight)

    def segment(self, image: ImageLike | EncodedImage, text: str) -> Segmentation:
        """Returns the mask that an expression refers to.

        Raises:
            InputError: The image or the text cannot be used, or nothing is proposed in the image.
        """
        best = self.rank(image, text, top_k=1)
        if not best:
            raise InputError("no object was found in the image. Lower the thresholds of the proposals.")
        return best[0]

    def rank(self, image: ImageLike | EncodedImage, text: str, top_k: int = 5) -> list[Segmentation]:
        """Returns at most ``top_k`` masks closest to an expression, best first; none where nothing is proposed.

        Raises:
            InputError: The image or the text cannot be used.
        """
        encoded = image if isinstance(image, EncodedImage) else self.encode_image(image)
        watch = _Stopwatch(self.clip.logit_scale.device)
        parsed = parse_text(text, self.method)
        watch.lap("phrase")
        feature = encode_expression(self.clip, self.tokenizer, parsed, self.method)
        if self.method.similarity == "cosine":
            feature = F.normalize(feature, dim=-1)
        text_feature = feature.cpu().numpy()
        watch.lap("text_features")
        scores = encoded.features @ text_feature
        order = np.argsort(-scores, kind="stable")[:top_k]
        watch.lap("score")
        return [
            Segmentation(
                mask=encoded.proposals.mask(int(i)),
                box=encoded.proposals.boxes[i],
                score=float(scores[i]),
                index=int(i),
                text=text,
                phrase=parsed.phrase,
                timings_ms={**encoded.timings_ms, **watch.laps_ms},
                image=encoded.image,
            )
            for i in order
        ]


class _Stopwatch:
    """Milliseconds a stage. A CUDA device is waited for, since it works on after a call has returned."""

    def __init__(self, device: torch.device) -> None:
        self.laps_ms: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def skip(self) -> None:
        """Leaves out what was done since the last lap."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Books the time since the last lap."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.laps_ms[stage] = 1e3 * (now - self._last)
        self._last = now
