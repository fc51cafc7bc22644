"""Instance mask proposals: segment-anything's automatic mask generator over the bundle's SAM graphs.

Semantics and setting names are those of ``SamAutomaticMaskGenerator`` (Kirillov et al., ICCV 2023): a regular grid of
single-point prompts, three masks a point, kept by predicted IoU and by stability, then greedy box NMS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from risengine.errors import InputError
from risengine.manifest import ProposalSettings, Role
from risengine.masks import mask_boxes
from risengine.session import Session
from risengine.types import Proposals

__all__ = [
    "Progress",
    "decode_points",
    "generate_proposals",
    "non_maximum_suppression",
    "point_grid",
    "proposals_from_masks",
    "upsample_logits",
]

Progress = Callable[[int, int], None]
"""Called with (prompts decoded, prompts in all) as the generation goes on."""

_UPSAMPLED_PIXELS = 1 << 24  # full-resolution logits held at once: 64 MB of float32


def generate_proposals(
    sessions: Mapping[Role, Session],
    image: NDArray[np.uint8],
    settings: ProposalSettings,
    sam_image_size_px: int,
    progress: Progress | None = None,
) -> Proposals:
    """Proposes masks for every object of an image.

    Args:
        sessions: The bundle's sessions by role; ``image_encoder``, ``point_decoder`` and ``mask_decoder`` are used.
        image: (H, W, 3) uint8 RGB.
        settings: Grid and thresholds.
        sam_image_size_px: Side of SAM's square input.
        progress: Called after every batch of prompts.

    Returns:
        The proposals by falling predicted IoU; none (N = 0) where nothing passes the thresholds.
    """
    size = image.shape[0], image.shape[1]
    embedding = sessions["image_encoder"].run({"image": image})["image_embedding"]
    points = point_grid(settings.points_per_side) * np.array([size[1], size[0]], np.float32)
    kept: list[_Candidates] = []
    for start in range(0, len(points), settings.points_per_batch):
        batch = points[start : start + settings.points_per_batch]
        decoded = decode_points(sessions, embedding, size, batch)
        kept.append(_keep_good(sessions, decoded, size, settings, sam_image_size_px))
        if progress is not None:
            progress(start + len(batch), len(points))
    candidates = _Candidates.concatenate(kept)
    # segment-anything measures boxes between pixel centres: its maximum is inclusive.
    survivors = non_maximum_suppression(
        candidates.boxes - np.array([0, 0, 1, 1], np.float32), candidates.scores, settings.box_nms_thresh
    )
    masks = np.unpackbits(candidates.packed[survivors], axis=2, count=size[1]).view(np.bool_)
    return Proposals(masks, candidates.boxes[survivors], candidates.scores[survivors])


def proposals_from_masks(masks: NDArray[np.bool_], size: tuple[int, int]) -> Proposals:
    """Wraps masks supplied by the caller.

    Args:
        masks: (N, H, W) bool.
        size: (H, W) of the image in pixels.

    Raises:
        InputError: Another dtype or shape than the image asks for, or a mask without a pixel.
    """
    if not isinstance(masks, np.ndarray):
        raise InputError(f"masks are a {type(masks).__name__}; expected a bool array. Try np.stack(masks).")
    if masks.dtype != np.bool_ or masks.ndim != 3 or masks.shape[1:] != size:
        raise InputError(f"masks are {masks.dtype} of shape {masks.shape}; expected bool (N, {size[0]}, {size[1]}).")
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if empty.size:
        raise InputError(f"masks {empty.tolist()} are empty; expected at least one pixel each. Leave them out.")
    return Proposals(masks.copy(), mask_boxes(masks), np.ones(len(masks), np.float32))


def point_grid(points_per_side: int) -> NDArray[np.float32]:
    """Returns a regular grid of points in the unit square, row by row.

    Returns:
        (points_per_side ** 2, 2) float32, xy in (0, 1), half a cell away from the edges.
    """
    ticks = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(ticks, ticks)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def non_maximum_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_thresh: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression, as torchvision's ``nms``.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float32.
        iou_thresh: A box is dropped when its IoU with a better one is greater than this.

    Returns:
        (K,) int64 indexes of the boxes kept, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(order), np.bool_)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        overlap_px = np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:]) - np.maximum(boxes[i, :2], boxes[i + 1 :, :2])
        intersection = overlap_px.clip(0).prod(axis=1)
        with np.errstate(invalid="ignore"):  # two boxes without area: 0 / 0 suppresses nothing
            iou = intersection / (areas[i] + areas[i + 1 :] - intersection)
        alive[i + 1 :] &= ~(iou.astype(np.float64) > iou_thresh)
    return order[np.array(kept, np.int64)]


def decode_points(
    sessions: Mapping[Role, Session],
    embedding: NDArray[np.float32],
    size: tuple[int, int],
    points: NDArray[np.float32],
) -> dict[str, NDArray[np.float32]]:
    """Prompts SAM with one foreground point a prompt.

    Args:
        sessions: ``point_decoder`` is used.
        embedding: ``image_encoder``'s answer for the image.
        size: (H, W) of the image in pixels.
        points: (P, 2) float32 xy in pixels.

    Returns:
        The outputs of ``point_decoder``: ``iou_predictions`` (P, 3), ``mask_tokens`` (P, 3, D) and ``image_features``
        (P, h * w, C), all float32.
    """
    padding = np.zeros((len(points), 1, 2), np.float32)  # SAM pads a prompt without a box with a point of label -1
    return sessions["point_decoder"].run(
        {
            "image_embedding": embedding,
            "image_size": np.array(size, np.int64),
            "points": np.concatenate([points[:, None], padding], axis=1),
            "labels": np.tile(np.array([1, -1], np.int64), (len(points), 1)),
        }
    )


def upsample_logits(logits: NDArray[np.float32], size: tuple[int, int], sam_image_size_px: int) -> NDArray[np.float32]:
    """Brings a decoder's logits to the image's size.

    segment-anything resizes to its square input, cuts the padding off and resizes to the image, both times with two
    bilinear taps a pixel. Both are linear, so their product is one matrix an axis.

    Args:
        logits: (M, h, w) float32, logits of the padded square.
        size: (H, W) of the image in pixels.
        sam_image_size_px: Side of SAM's square input.

    Returns:
        (M, H, W) float32.
    """
    rows, columns = (
        _axis_matrix(side, max(size), low, sam_image_size_px) for side, low in zip(size, logits.shape[1:], strict=True)
    )
    upsampled: NDArray[np.float32] = np.matmul(np.matmul(rows, logits), columns.T)
    return upsampled


@dataclass(frozen=True)
class _Candidates:
    """Masks that passed both thresholds, bit-packed along the width: an eighth of the memory until NMS has spoken."""

    packed: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    @staticmethod
    def concatenate(parts: list[_Candidates]) -> _Candidates:
        return _Candidates(
            np.concatenate([part.packed for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )


@functools.lru_cache(maxsize=8)
def _axis_matrix(side: int, longest: int, low: int, square: int) -> NDArray[np.float32]:
    """(side, low) weights of one axis; the size without padding is rounded in integers as in ``image_encoder``."""
    inner = max(1, (2 * side * square + longest) // (2 * longest))
    matrix: NDArray[np.float32] = _bilinear_matrix(side, inner) @ _bilinear_matrix(square, low)[:inner]
    return matrix


def _bilinear_matrix(out_size: int, in_size: int) -> NDArray[np.float32]:
    """(out, in) weights of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` along one axis."""
    centre = np.clip((np.arange(out_size) + 0.5) * (in_size / out_size) - 0.5, 0, in_size - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, in_size - 1)
    matrix = np.zeros((out_size, in_size), np.float32)
    rows = np.arange(out_size)
    matrix[rows, low] += (1 - (centre - low)).astype(np.float32)
    matrix[rows, high] += (centre - low).astype(np.float32)
    return matrix


def _keep_good(
    sessions: Mapping[Role, Session],
    decoded: dict[str, NDArray[np.float32]],
    size: tuple[int, int],
    settings: ProposalSettings,
    sam_image_size_px: int,
) -> _Candidates:
    """Makes the masks of a batch's promising tokens and keeps the stable ones."""
    scores = decoded["iou_predictions"]
    # Like segment-anything, a threshold of 0 keeps everything.
    prompts, slots = np.nonzero((scores > settings.pred_iou_thresh) | (settings.pred_iou_thresh <= 0))
    if not len(prompts):
        return _Candidates(
            np.zeros((0, size[0], -(-size[1] // 8)), np.uint8), np.zeros((0, 4), np.float32), scores[:0, 0]
        )
    rows, prompt_index = np.unique(prompts, return_inverse=True)
    logits = sessions["mask_decoder"].run(
        {
            "image_features": decoded["image_features"][rows],
            "mask_tokens": decoded["mask_tokens"][prompts, slots],
            "prompt_index": prompt_index.astype(np.int64),
        }
    )["logits"]
    step = max(1, _UPSAMPLED_PIXELS // (size[0] * size[1]))
    parts = []
    for start in range(0, len(logits), step):
        piece = slice(start, start + step)
        upsampled = upsample_logits(logits[piece], size, sam_image_size_px)
        parts.append(_filter_stable(upsampled, scores[prompts[piece], slots[piece]], settings))
    return _Candidates.concatenate(parts)


def _filter_stable(logits: NDArray[np.float32], scores: NDArray[np.float32], settings: ProposalSettings) -> _Candidates:
    offset = settings.stability_score_offset
    inner = np.count_nonzero(logits > offset, axis=(1, 2))
    outer = np.count_nonzero(logits > -offset, axis=(1, 2))
    stable = inner >= settings.stability_score_thresh * np.maximum(outer, 1)
    masks = logits[stable] > 0
    stable[stable] = masks.any(axis=(1, 2))  # stock code keeps none of these either: 0 / 0 passes no threshold
    masks = masks[masks.any(axis=(1, 2))]
    return _Candidates(np.packbits(masks, axis=2), mask_boxes(masks), scores[stable])
