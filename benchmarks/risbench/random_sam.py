"""A SAM without trained weights that still proposes: weights whose masks are patches, thresholds that keep a share.

As initialised, a SAM draws noise over the whole image and predicts about the same IoU for every mask, so that either
all or none of its masks would reach the later steps of the generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam

from risengine.errors import InputError
from risengine.generator.prompts import Prompts, point_grid
from risengine.generator.proposals import Progress, prompted_proposals
from risengine.generator.sam import SamImage
from risengine.method import ProposalSettings
from risexport.checkpoints.sam_checkpoints import SAM_MODELS

__all__ = ["choose_thresholds", "settings_keeping", "shape_masks", "vit_b", "vit_t"]

_STABLE_SHARE = 0.5
"""Share of the drawn masks of sufficient predicted IoU that are stable enough too."""

_SLACK = 0.02  # a share may be missed by this much for the sake of a threshold that no rounding crosses


def vit_b() -> Sam:
    """Makes a ViT-B SAM whose masks are patches: ``risengine build --sam risbench.random_sam:vit_b``."""
    return _shaped("vit_b")


def vit_t() -> Sam:
    """Makes MobileSAM's SAM with masks that are patches, for builds like :func:`vit_b`."""
    return _shaped("vit_t")


def _shaped(model: str) -> Sam:
    sam = SAM_MODELS[model]()
    shape_masks(sam)
    return sam


def settings_keeping(
    sam: SamImage, settings: ProposalSettings, shares: Sequence[float], progress: Progress | None = None
) -> dict[float, ProposalSettings]:
    """Chooses thresholds for a SAM with random weights, at which shares of the prompts on an image keep a mask.

    They are without box NMS: with random weights nearly every box is the whole image, and the one mask left of hundreds
    would show little about them.

    Args:
        sam: The image, encoded.
        settings: What is to be kept of the settings; their grid is asked.
        shares: Of the prompts, in (0, 1].
        progress: Called with (prompts done, prompts in all).

    Returns:
        Settings by share.

    Raises:
        InputError: No thresholds keep a share.
    """
    grid = point_grid(settings.points_per_side) * np.array(sam.size[::-1], np.float32)
    every = prompted_proposals(sam, Prompts.at_points(grid), settings, progress)
    scores, stability_scores = every.scores.reshape(-1, 3), every.stability_scores.reshape(-1, 3)
    chosen = {}
    for share in shares:
        pred_iou, stability = choose_thresholds(scores, stability_scores, share)
        chosen[share] = dataclasses.replace(
            settings, pred_iou_thresh=pred_iou, stability_score_thresh=stability, box_nms_thresh=1.0
        )
    return chosen


@torch.no_grad()
def shape_masks(sam: Sam) -> None:
    """Changes a decoder's random weights so that masks are patches of all areas and predicted IoUs differ.

    Attention is sharper, so that prompts and positions matter; the upsampling has no pattern within its 4 x 4 pixels;
    and one channel of it is constant, with which every mask is lowered. The arithmetic stays what it was.
    """
    decoder = sam.mask_decoder
    sam.prompt_encoder.no_mask_embed.weight.zero_()
    for name, value in decoder.named_parameters():
        if "attn" in name and name.endswith(("q_proj.weight", "k_proj.weight", "out_proj.weight")):
            value.mul_(3)
        elif "output_upscaling" in name and value.ndim == 4:
            value.copy_(value[:, :, :1, :1].expand_as(value))
        elif "hypernetworks" in name and "layers.2" in name:
            value.mul_(100)
        elif "iou_prediction_head.layers.2" in name:
            value.mul_(5)
    decoder.iou_prediction_head.layers[-1].bias.add_(2)
    upsampling = decoder.output_upscaling[-2]
    upsampling.weight[:, 0], upsampling.bias[0] = 0, 1
    for network in decoder.output_hypernetworks_mlps:
        network.layers[-1].weight[0], network.layers[-1].bias[0] = 0, -8


def choose_thresholds(
    scores: NDArray[np.float32], stability_scores: NDArray[np.float32], keep: float
) -> tuple[float, float]:
    """Chooses the thresholds at which a share of the prompts keeps a mask, and half of those masks that are not empty.

    Args:
        scores: (P, 3) float32, predicted IoUs.
        stability_scores: (P, 3) float32, 0 for an empty mask.
        keep: Share of the prompts with at least one mask of sufficient predicted IoU, in (0, 1].

    Returns:
        ``pred_iou_thresh`` and ``stability_score_thresh``, between two values each.

    Raises:
        InputError: The predicted IoUs are not positive: the generator takes such a threshold for none.
    """
    pred_iou_thresh = _cut(scores.ravel(), scores.max(axis=1), keep)
    if pred_iou_thresh <= 0:
        raise InputError(
            f"the best predicted IoUs of the prompts reach down to {scores.max(axis=1).min():.3g}; expected positive "
            f"ones, as no threshold keeps {keep:g} of the prompts otherwise. Use a SAM with trained weights, or one of "
            "this module, such as risbench.random_sam:vit_b."
        )
    passing = stability_scores[(scores > pred_iou_thresh) & (stability_scores > 0)]
    return pred_iou_thresh, _cut(passing, passing, _STABLE_SHARE) if len(passing) else 0.0


def _cut(values: NDArray[np.float32], counted: NDArray[np.float32], share: float) -> float:
    """Returns a number above which about a share of the counted lie, in a gap of all values as wide as there is."""
    levels = np.unique(values.astype(np.float64))
    levels = np.concatenate([[levels[0] - 1e-3], levels])
    cuts, gaps = (levels[:-1] + levels[1:]) / 2, np.diff(levels)
    first = np.searchsorted(cuts, counted.min()) - 1  # those below keep no more of what is counted
    cuts, gaps = cuts[first:], gaps[first:]
    above = 1 - np.searchsorted(np.sort(counted), cuts, side="right") / len(counted)
    missed = np.abs(above - share)
    near = missed <= max(_SLACK, missed.min())
    return float(cuts[near][gaps[near].argmax()])
