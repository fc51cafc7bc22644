"""Proposals: segment-anything's own automatic mask generator, its records turned into arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from risengine.method import ProposalSettings
from risengine.types import Proposals

__all__ = ["generate_proposals", "generate_records", "pack_records"]


def generate_proposals(sam: Sam, image: NDArray[np.uint8], settings: ProposalSettings) -> Proposals:
    """Proposes masks for an image; see :func:`generate_records` and :func:`pack_records`."""
    return pack_records(generate_records(sam, image, settings), (image.shape[0], image.shape[1]))


@torch.inference_mode()
def generate_records(sam: Sam, image: NDArray[np.uint8], settings: ProposalSettings) -> list[dict[str, Any]]:
    """Runs the generator on an image.

    Args:
        sam: A segment-anything model in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        settings: The generator's own settings. Small regions are removed only where OpenCV is installed.

    Returns:
        Its records by falling predicted IoU; masks without a pixel are left out.
    """
    arguments = dataclasses.asdict(settings)
    del arguments["search"]  # the engine's own: the generator asks every point
    if settings.point_grids is not None:
        arguments["points_per_side"] = None  # the generator wants one of the two
    generator = SamAutomaticMaskGenerator(sam, **arguments)
    records = [record for record in generator.generate(image) if record["area"] > 0]
    records.sort(key=lambda record: -record["predicted_iou"])  # with crops the smallest crop's come first
    return records


def pack_records(records: list[dict[str, Any]], size: tuple[int, int]) -> Proposals:
    """Turns the generator's records into the engine's type, run lengths included, in the same order.

    Args:
        records: Of one image.
        size: (H, W) of the image in pixels.
    """
    masks = np.array([record["segmentation"] for record in records], np.bool_).reshape(-1, *size)
    scores = np.array([record["predicted_iou"] for record in records], np.float32)
    stability = np.array([record["stability_score"] for record in records], np.float32)
    return dataclasses.replace(Proposals.from_masks(masks), scores=scores, stability_scores=stability)
