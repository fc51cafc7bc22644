"""A SAM with random weights whose masks are patches, as ``risengine build --sam random_models:small_sam`` takes it."""

from __future__ import annotations

from segment_anything.modeling import Sam

from risbench.random_sam import shape_masks
from tabletop.sam_model import build_tabletop_sam


def small_sam() -> Sam:
    sam = build_tabletop_sam()
    shape_masks(sam)
    return sam
