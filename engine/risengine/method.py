"""The values of the method: how masks are proposed, described and compared. A bundle's manifest holds them.

The presets of the method are values of :class:`Method`, never branches in the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from risengine.errors import InputError

__all__ = ["Fusion", "Method", "ProposalSettings"]

Fusion = Literal["none", "g2l", "l2g", "both"]


@dataclass(frozen=True)
class Method:
    """How masks and texts are described and compared (Yu, Seo, Son, CVPR 2023); see models/README.md.

    Attributes:
        preset: Name of the preset these values came from.
        image_size_px: Side S of the square CLIP input.
        mean: Mean per channel, of values in [0, 1].
        std: Standard deviation per channel, of values in [0, 1].
        fill: Value written outside a mask before it is cropped, per channel, in normalised units.
        resize: ``antialias`` (triangle filter widened when shrinking) or ``bilinear`` (two taps).
        mask_pooling: How a mask becomes token weights: ``area`` average, or ``point`` (bilinear at the cells' centres).
        box_rule: ``tight`` box, or ``centroid`` (centre of mass plus/minus half the occupied rows and columns).
        masked_blocks: Number k of final transformer blocks in which tokens are masked (0 for ResNet towers).
        global_weight: v, the share of the global feature in the mix.
        sentence_weight: r, the share of the whole sentence in the text feature.
        similarity: ``cosine`` of both features, or ``dot`` (ResNet towers in the reference).
        tokenisation: ``spaced`` joins spaCy's tokens by single spaces as the authors do; ``plain`` keeps the text.
        fusion: ``none`` describes masks as above. The others are HybridGL's (Liu, Li, CVPR 2025), of ViT towers: a mask
            alone and in its blurred scene, both in the full frame, whose tokens meet in the masked blocks. ``g2l`` adds
            the scene's to the mask's, ``l2g`` the mask's to the scene's; ``both`` mixes the two, l2g's share being v.
    """

    preset: str
    image_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fill: tuple[float, float, float]
    resize: Literal["antialias", "bilinear"]
    mask_pooling: Literal["area", "point"]
    box_rule: Literal["tight", "centroid"]
    masked_blocks: int
    global_weight: float
    sentence_weight: float
    similarity: Literal["cosine", "dot"]
    tokenisation: Literal["spaced", "plain"]
    fusion: Fusion = "none"

    def __post_init__(self) -> None:
        for name in ("global_weight", "sentence_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected a share in [0, 1].")
        only = {"g2l": 0, "l2g": 1}.get(self.fusion, self.global_weight)
        if self.global_weight != only:
            raise InputError(
                f"global_weight = {self.global_weight}; expected {only} with fusion {self.fusion}, which has nothing "
                "to mix. Leave it out, or build a bundle with --fusion both."
            )


@dataclass(frozen=True)
class ProposalSettings:
    """segment-anything's ``SamAutomaticMaskGenerator`` settings under their own names and defaults, and ``search``.

    Attributes:
        points_per_side: Points of the prompt grid along each side.
        points_per_batch: Most prompts decoded in one call; above 8 on a CPU (``sam.PROMPTS_PER_CALL``) means 8, and
            above 64 on a GPU means 64. Changes no result.
        pred_iou_thresh: Masks of a predicted IoU above this are kept, in [0, 1]; 0 keeps all.
        stability_score_thresh: Lowest stability score kept, in [0, 1].
        stability_score_offset: Shift of the logit cut-off when the stability score is computed.
        box_nms_thresh: Box IoU above which the lower-scored of two masks is dropped.
        crop_n_layers: Layers of crops prompted beside the whole image; layer i has 4 ** i crops, each encoded anew.
        crop_nms_thresh: Box IoU above which, of masks from two crops, the one from the larger crop is dropped.
        crop_overlap_ratio: Overlap of the first layer's crops as a share of the shorter side; later layers have less.
        crop_n_points_downscale_factor: In layer n the grid has points_per_side over this ** n points along each side.
        point_grids: Points in place of the grids, for the whole image and then for each layer's crops: xy as shares
            of the width and height, in [0, 1].
        min_mask_region_area: Holes and islands of fewer pixels are filled and removed; 0 leaves masks as they are.
        search: exact asks every point, as segment-anything does; turbo asks about a fifth of them, but at least 8,
            chosen as it goes on, and misses some of the masks.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: tuple[tuple[tuple[float, float], ...], ...] | None = None
    min_mask_region_area: int = 0
    search: Literal["exact", "turbo"] = "exact"

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "crop_n_points_downscale_factor"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected at least 1.")
        for name in ("crop_n_layers", "min_mask_region_area"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}; expected at least 0.")
        # A SAM with random weights, as latency is measured with, predicts IoUs outside [0, 1].
        for name in ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} = {getattr(self, name)}; expected a finite number.")
        for name in ("box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected a number in [0, 1].")
        self._check_grids()

    def _check_grids(self) -> None:
        if self.point_grids is None:
            if self.points_per_side < self.crop_n_points_downscale_factor**self.crop_n_layers:
                raise InputError(
                    f"points_per_side = {self.points_per_side} leaves no point in crop layer {self.crop_n_layers} with "
                    f"crop_n_points_downscale_factor = {self.crop_n_points_downscale_factor}. Raise the one or lower "
                    "the other."
                )
            return
        if len(self.point_grids) != self.crop_n_layers + 1:
            raise InputError(
                f"point_grids has {len(self.point_grids)} grids; expected {self.crop_n_layers + 1}: one for the whole "
                "image and one for each crop layer."
            )
        if not all(0 <= value <= 1 for grid in self.point_grids for point in grid for value in point):
            raise InputError(
                "point_grids holds a value outside [0, 1]; expected shares of the image's width and height."
            )
