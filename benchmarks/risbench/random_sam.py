"""A SAM without trained weights that still proposes: weights whose masks are patches, thresholds that keep a share.

As initialised, a SAM draws noise over the whole image and predicts about the same IoU for every mask, so that either
all or none of its masks would reach the later steps of the generator.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam

from risengine.errors import InputError

__all__ = ["choose_thresholds", "shape_masks"]

_STABLE_SHARE = 0.5
"""Share of the drawn masks of sufficient predicted IoU that are stable enough too."""

_SLACK = 0.02  # a share may be missed by this much for the sake of a threshold that no rounding crosses


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
            f"ones, as no threshold keeps {keep:g} of the prompts otherwise. Use a SAM with trained weights."
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
