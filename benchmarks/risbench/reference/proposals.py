"""Proposals: segment-anything's own automatic mask generator, its records turned into arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from risengine.manifest import ProposalSettings
from risengine.masks import mask_boxes
from risengine.types import Proposals

__all__ = ["generate_proposals"]


@torch.inference_mode()
def generate_proposals(sam: Sam, image: NDArray[np.uint8], settings: ProposalSettings) -> Proposals:
    """Proposes masks for an image.

    Args:
        sam: A segment-anything model in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        settings: The generator's own settings.

    Returns:
        Proposals by falling predicted IoU; masks without a pixel are left out.
    """
    generator = SamAutomaticMaskGenerator(sam, **dataclasses.asdict(settings))
    records = [record for record in generator.generate(image) if record["area"] > 0]
    masks = np.array([record["segmentation"] for record in records], np.bool_).reshape(-1, *image.shape[:2])
    scores = np.array([record["predicted_iou"] for record in records], np.float32)
    return Proposals(masks, mask_boxes(masks), scores)
