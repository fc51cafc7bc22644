"""What is left of SAM after its mask decoder, as a graph for GPUs: masks at the image's size, their areas and boxes.

segment-anything resizes logits to its square input, cuts the padding off and resizes to the image. Both are linear, and
along an axis every pixel is a mean of three logits in a row, whose weights :mod:`risengine.generator.placement` makes;
here they are inputs, so that the image's size is in their shapes. They are gathered and not multiplied as matrices:
TensorRT-RTX makes one kernel of both resizes, the thresholds and the rows' sums, and no library rounds the operands of
sums as it may those of products. The graph stays in single precision in every bundle: a threshold is all that follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from risengine.backends.session import Session
from risengine.generator.placement import TAPS, axis_taps, tap_feeds
from risengine.manifest import Parity
from risengine.masks import mask_boxes
from risengine.measures import STABILITY_OFFSET, lowest_mask_iou, relative_error
from risexport.checks.parity import Tolerances, judge
from risexport.checks.references import SamReference

__all__ = ["MaskMeasurer", "measure_masks"]

_COMPARED = 12  # masks in one call, for which a native engine is wide enough too


class MaskMeasurer(nn.Module):
    """From logits to masks, areas and boxes."""

    def forward(
        self,
        logits: Tensor,
        row_starts: Tensor,
        row_weights: Tensor,
        column_starts: Tensor,
        column_weights: Tensor,
        stability_score_offset: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Measures and draws masks.

        Args:
            logits: (D, h, w) float32, of the padded square.
            row_starts: (H,) int64, the first of the three rows of logits of every row of pixels.
            row_weights: (H, 3) float32, their weights.
            column_starts: (W,) int64, likewise.
            column_weights: (W, 3) float32.
            stability_score_offset: () float32, shift of the cut-off.

        Returns:
            (D, 2) int32, pixels above the offset, and above the offset below 0; (D, 4) float32, half-open xyxy in
            pixels, zeros for an empty mask; (D, H, W) bool, the masks.
        """
        tall = _mixed([logits.index_select(1, row_starts + tap) * row_weights[:, tap, None] for tap in range(TAPS)])
        full = _mixed([tall.index_select(2, column_starts + tap) * column_weights[:, tap] for tap in range(TAPS)])
        areas = [_area(full > cut) for cut in (stability_score_offset, -stability_score_offset)]
        (y0, y1), (x0, x1) = _extent(full.amax(2) > 0), _extent(full.amax(1) > 0)
        return torch.stack(areas, dim=1), torch.stack([x0, y0, x1, y1], dim=1), full > 0


def measure_masks(session: Session, reference: SamReference, side_px: int, tolerances: Tolerances) -> list[Parity]:
    """Compares the graph with segment-anything's own resizing of logits.

    Args:
        session: Session of ``mask_measurer``.
        reference: From :func:`risexport.checks.references.sam_reference`.
        side_px: Side of SAM's square input.
        tolerances: Bounds of the precision that was built.

    Returns:
        Figures of the masks and areas, and of the boxes against those of the masks; all within the tolerances.

    Raises:
        ParityError: A figure is past its tolerance.
    """
    logits = np.concatenate([decoding.logits for decoding in reference.decodings])
    size = reference.image.shape[0], reference.image.shape[1]
    taps = (axis_taps(side, max(size), low, side_px) for side, low in zip(size, logits.shape[1:], strict=True))
    offset = np.array(STABILITY_OFFSET, np.float32)
    feeds: dict[str, NDArray[Any]] = {**tap_feeds(*taps), "stability_score_offset": offset}
    runs = [
        session.run({"logits": logits[start : start + _COMPARED], **feeds})
        for start in range(0, len(logits), _COMPARED)
    ]
    areas, boxes, masks = (np.concatenate([run[name] for run in runs]) for name in ("areas", "boxes", "masks"))
    full = _stock_logits(logits, size, side_px)
    overlap = lowest_mask_iou(masks, full > 0)
    stock_areas = np.stack([(full > cut).sum(axis=(1, 2)) for cut in (offset, -offset)], axis=1)
    area_error, box_error = relative_error(1 + areas, 1 + stock_areas), relative_error(1 + boxes, 1 + mask_boxes(masks))
    return [
        judge("mask_measurer", "masks", "mask_iou", overlap, tolerances.mask_iou),
        judge("mask_measurer", "areas", "relative_error", area_error, tolerances.decoder_error),
        judge("mask_measurer", "boxes", "relative_error", box_error, tolerances.decoder_error),
    ]


def _stock_logits(logits: NDArray[np.float32], size: tuple[int, int], side_px: int) -> NDArray[np.float32]:
    """``Sam.postprocess_masks``."""
    inner = [int(side * side_px / max(size) + 0.5) for side in size]
    square = F.interpolate(torch.from_numpy(logits)[None], (side_px, side_px), mode="bilinear", align_corners=False)
    full = F.interpolate(square[..., : inner[0], : inner[1]], size, mode="bilinear", align_corners=False)
    resized: NDArray[np.float32] = full[0].numpy()
    return resized


def _mixed(parts: list[Tensor]) -> Tensor:
    """Adds up the parts of a mean."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _area(masks: Tensor) -> Tensor:
    """Counts the pixels of masks, (D, H, W) bool; a row's are few enough to be exact in single precision."""
    return masks.float().sum(2).to(torch.int32).sum(1, dtype=torch.int32)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first place occupied and the one past the last, (D,) float32 each, of (D, n) bool; 0, 0 for none."""
    places = torch.arange(occupied.shape[1], device=occupied.device).float()
    high = torch.where(occupied, places + 1, 0.0).amax(1)
    low = torch.where(occupied, places, float(1 << 24)).amin(1)
    return torch.where(high > 0, low, 0.0), high
