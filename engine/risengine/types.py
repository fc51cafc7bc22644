"""Values that the engine takes and returns.

All are frozen; no array is a view of a buffer that a later call writes to. The image is read-only and shared between an
encoded image and its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from risengine.errors import BackendError
from risengine.explanation import Explanation
from risengine.masks import area_from_runs, encode_rle, mask_boxes, mask_from_runs, unpack_runs

if TYPE_CHECKING:
    from PIL import Image

    from risengine.images import ImageLike
    from risengine.scoring.geometry import Geometry

__all__ = ["EncodedImage", "Proposals", "Segmentation"]


@dataclass(frozen=True, eq=False)
class Proposals:
    """Candidate instance masks of one image. A sequence of N; slicing gives proposals.

    The automatic generator's are ordered by falling predicted quality, the answers to prompts by prompt and only then
    by quality, and the caller's masks as the caller gave them.

    Masks are held as run lengths, a few kilobytes each whatever the image's size, and decoded when asked for.

    Attributes:
        size: (H, W) of the image in pixels.
        counts: N masks as COCO's compressed run lengths.
        boxes: (N, 4) float32, half-open xyxy in pixels, tight around each mask.
        scores: (N,) float32, predicted IoU as SAM states it, which nothing confines to [0, 1]; 1 for masks supplied by
            the caller.
        stability_scores: (N,) float32, IoU in [0, 1] of the mask with itself cut at other logits; 1 for masks supplied
            by the caller.
    """

    size: tuple[int, int]
    counts: tuple[str, ...] = field(repr=False)
    boxes: NDArray[np.float32] = field(repr=False)
    scores: NDArray[np.float32] = field(repr=False)
    stability_scores: NDArray[np.float32] = field(repr=False)

    @staticmethod
    def from_masks(masks: NDArray[np.bool_]) -> Proposals:
        """Wraps masks, with scores of 1.

        Args:
            masks: (N, H, W) bool.
        """
        size = masks.shape[1], masks.shape[2]
        counts = tuple(encode_rle(mask)["counts"] for mask in masks)
        certain = np.ones(len(masks), np.float32)
        return Proposals(size, counts, mask_boxes(masks), certain, certain.copy())

    @staticmethod
    def joined(parts: Sequence[Proposals]) -> Proposals:
        """Joins the proposals of one image, at least one part, in the order given."""
        return Proposals(
            parts[0].size,
            tuple(counts for part in parts for counts in part.counts),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.stability_scores for part in parts]),
        )

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool, decoded anew at every access; a large image's masks are better taken one by one."""
        masks = np.zeros((len(self), *self.size), np.bool_)
        for index in range(len(self)):
            masks[index] = self.mask(index)
        return masks

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Decodes one mask, (H, W) bool."""
        return mask_from_runs(unpack_runs(self.counts[index]), self.size)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int | slice | NDArray[Any]) -> Proposals:
        rows = np.atleast_1d(np.arange(len(self))[index])
        counts = tuple(self.counts[row] for row in rows)
        return Proposals(self.size, counts, self.boxes[rows], self.scores[rows], self.stability_scores[rows])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Proposals):
            return NotImplemented
        return (self.size, self.counts) == (other.size, other.counts) and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("boxes", "scores", "stability_scores")
        )

    def to_coco(self) -> list[dict[str, Any]]:
        """Returns one JSON-ready record a mask, as ``SamAutomaticMaskGenerator`` with ``output_mode="coco_rle"``.

        Each has ``segmentation`` (for ``pycocotools.mask.decode``), ``area`` in pixels, ``bbox`` (x, y, width, height
        in pixels, as ``pycocotools.mask.toBbox``: the generator's own are one pixel less wide and high),
        ``predicted_iou`` and ``stability_score``.
        """
        return [
            {
                "segmentation": {"size": list(self.size), "counts": counts},
                "area": area_from_runs(unpack_runs(counts)),
                "bbox": [float(value) for value in (*box[:2], *(box[2:] - box[:2]))],
                "predicted_iou": float(score),
                "stability_score": float(stability),
            }
            for counts, box, score, stability in zip(
                self.counts, self.boxes, self.scores, self.stability_scores, strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """Returns ``supervision.Detections`` with masks, boxes, the predicted IoU as confidence and stability scores.

        Raises:
            BackendError: The package ``supervision`` is missing.
        """
        try:
            import supervision
        except ImportError as error:
            raise BackendError(
                f'supervision is missing ({error}); expected the package. Run: pip install "risengine[supervision]"'
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=self.masks,
            confidence=self.scores.copy(),
            data={"stability_score": self.stability_scores.copy()},
        )

    def overlay(self, image: ImageLike) -> Image.Image:
        """Draws every mask in a colour of its own over the image they were proposed for.

        Args:
            image: Path, PIL image or (H, W, 3) uint8 RGB array.

        Raises:
            InputError: The image cannot be used or is of another size.
        """
        from risengine.images import load_image
        from risengine.overlay import draw_proposals

        return draw_proposals(load_image(image), self)

    def save_overlay(self, image: ImageLike, path: str | Path) -> None:
        """Writes :meth:`overlay` as an image file; the format follows the suffix.

        Raises:
            InputError: The image cannot be used or is of another size, or the path cannot be written or has no image
                suffix.
        """
        from risengine.output import save_image

        save_image(self.overlay(image), path)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """Everything the engine computes from the image alone; ask it any number of expressions.

    Attributes:
        image: (H, W, 3) uint8 RGB, the picture as the engine saw it, read-only.
        proposals: The N candidate masks.
        features: (N, E) float32, unit norm where the bundle compares by cosine.
        bundle_id: Identity of the bundle that made the features.
        timings_ms: Milliseconds a stage.
        global_weight: v, the share of the global feature that was mixed into the features.
    """

    image: NDArray[np.uint8] = field(repr=False)
    proposals: Proposals = field(repr=False)
    features: NDArray[np.float32] = field(repr=False)
    bundle_id: str
    timings_ms: dict[str, float]
    global_weight: float

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def geometry(self) -> Geometry:
        """Where the proposals lie, measured when first asked for."""
        from risengine.scoring.geometry import measure_geometry

        return measure_geometry(self.proposals)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The mask that an expression refers to.

    Attributes:
        mask: (H, W) bool.
        box: (4,) float32, half-open xyxy in pixels, tight around the mask.
        score: Similarity of mask and expression: a cosine in [-1, 1], or a dot product for ResNet bundles; in the same
            unit, less what places and relations take off it.
        index: Position of the mask among the image's proposals.
        text: The expression as asked.
        phrase: The target noun phrase that was found in it.
        timings_ms: Milliseconds a stage, those of the image's encoding included.
        image: (H, W, 3) uint8 RGB that was segmented, read-only.
        explanation: Why: the parse, the terms of the score, the references, how sure it is; None from the PyTorch
            reference.
    """

    mask: NDArray[np.bool_] = field(repr=False)
    box: NDArray[np.float32]
    score: float
    index: int
    text: str
    phrase: str
    timings_ms: dict[str, float] = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    explanation: Explanation | None = field(default=None, repr=False)

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
        return {
            "text": self.text,
            "phrase": self.phrase,
            "score": self.score,
            "index": self.index,
            "box_xyxy": [float(value) for value in self.box],
            "mask_rle": encode_rle(self.mask),
            **({} if self.explanation is None else {"explanation": self.explanation.to_dict()}),
            "timings_ms": {stage: round(value, 3) for stage, value in self.timings_ms.items()},
        }
