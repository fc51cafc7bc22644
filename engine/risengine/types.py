"""Values that the engine takes and returns.

All are frozen; no array is a view of a buffer that a later call writes to. The image is read-only and shared between an
encoded image and its answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EncodedImage", "Proposals", "Segmentation"]


@dataclass(frozen=True, eq=False)
class Proposals:
    """Candidate instance masks of one image, best predicted quality first.

    Attributes:
        masks: (N, H, W) bool.
        boxes: (N, 4) float32, half-open xyxy in pixels, tight around each mask.
        scores: (N,) float32, predicted IoU in [0, 1]; 1 for masks supplied by the caller.
    """

    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """Everything the engine computes from the image alone; ask it any number of expressions.

    Attributes:
        image: (H, W, 3) uint8 RGB, the picture as the engine saw it, read-only.
        proposals: The N candidate masks.
        features: (N, E) float32, unit norm where the bundle compares by cosine.
        bundle_id: Identity of the bundle that made the features.
        timings_ms: Milliseconds a stage.
    """

    image: NDArray[np.uint8] = field(repr=False)
    proposals: Proposals = field(repr=False)
    features: NDArray[np.float32] = field(repr=False)
    bundle_id: str
    timings_ms: dict[str, float]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The mask that an expression refers to.

    Attributes:
        mask: (H, W) bool.
        box: (4,) float32, half-open xyxy in pixels, tight around the mask.
        score: Similarity of mask and expression: a cosine in [-1, 1], or a dot product for ResNet bundles.
        index: Position of the mask among the image's proposals.
        text: The expression as asked.
        phrase: The target noun phrase that was found in it.
        timings_ms: Milliseconds a stage, those of the image's encoding included.
        image: (H, W, 3) uint8 RGB that was segmented, read-only.
    """

    mask: NDArray[np.bool_] = field(repr=False)
    box: NDArray[np.float32]
    score: float
    index: int
    text: str
    phrase: str
    timings_ms: dict[str, float] = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)

    def overlay(self) -> Image.Image:
        """Draws the mask's tint and contour, its box, the expression and the score over the image."""
        from risengine.overlay import draw_segmentation

        return draw_segmentation(self)

    def save_overlay(self, path: str | Path) -> None:
        """Writes :meth:`overlay` as an image file; the format follows the suffix.

        Raises:
            InputError: The path cannot be written or has no image suffix.
        """
        from risengine.output import save_image

        save_image(self.overlay(), path)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON-ready values; the mask as COCO run lengths, the box as a list of xyxy pixels."""
        from risengine.masks import encode_rle

        return {
            "text": self.text,
            "phrase": self.phrase,
            "score": self.score,
            "index": self.index,
            "box_xyxy": [float(value) for value in self.box],
            "mask_rle": encode_rle(self.mask),
            "timings_ms": {stage: round(value, 3) for stage, value in self.timings_ms.items()},
        }
