"""The comparison with PyTorch: it passes equal graphs, and fails graphs of other weights with words that say where."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from segment_anything.modeling import Sam
from torch import nn

from risengine.bundle import Bundle
from risengine.errors import RisError
from risengine.manifest import Role
from risengine.session import OnnxSession
from risexport.clip_checkpoints import load_clip
from risexport.config import BuildConfig
from risexport.parity import TOLERANCES, ParityError, measure_clip, measure_sam
from risexport.references import clip_reference, sam_reference

FP32 = TOLERANCES["fp32"]


def disturb(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def test_sam_figures_are_within_tolerance(tiny_sam: Sam, sessions: dict[Role, OnnxSession]) -> None:
    figures = {(row.role, row.measure): row.value for row in measure_sam(sessions, sam_reference(tiny_sam), FP32)}
    assert figures["mask_decoder", "mask_iou"] >= 0.99
    assert figures["mask_decoder", "relative_error"] < 1e-4
    assert figures["point_decoder", "relative_error"] < 1e-4
    assert figures["image_encoder", "relative_error"] < FP32.embedding_error


SAM_PARTS: dict[str, Callable[[Sam], nn.Module]] = {
    "image_encoder: relative_error of image_embedding": lambda sam: sam.image_encoder,
    "image_projector: relative_error of image_values": lambda sam: (
        sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image.v_proj
    ),
    "point_decoder: relative_error of iou_predictions": lambda sam: sam.mask_decoder.iou_prediction_head,
    "mask_decoder: relative_error of logits": lambda sam: sam.mask_decoder.output_upscaling,
}


@pytest.mark.parametrize("words", SAM_PARTS)
def test_other_sam_weights_fail(tiny_sam: Sam, sessions: dict[Role, OnnxSession], words: str) -> None:
    other = deepcopy(tiny_sam)
    disturb(SAM_PARTS[words](other))
    with pytest.raises(ParityError, match=words) as caught:
        measure_sam(sessions, sam_reference(other), FP32)
    assert isinstance(caught.value, RisError)
    assert "expected at most" in str(caught.value)


CLIP_PARTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "proposal_encoder: relative_error of global_features": lambda clip: clip.visual.transformer,
    "text_encoder: relative_error of features": lambda clip: clip.transformer,
}


def test_clip_figures_are_within_tolerance(
    tiny_bundle: Bundle, tiny_config: BuildConfig, sessions: dict[Role, OnnxSession]
) -> None:
    clip, _ = load_clip(tiny_config.clip)
    method = tiny_bundle.manifest.method
    rows = measure_clip(sessions, clip_reference(clip, method), method, FP32)
    assert {row.tensor for row in rows if row.role == "proposal_encoder"} == {
        "global_features",
        "local_features",
        "features",
    }
    assert [row.value for row in rows if row.measure == "selection_agreement"] == [1.0]


@pytest.mark.parametrize("words", CLIP_PARTS)
def test_other_clip_weights_fail(
    tiny_bundle: Bundle, tiny_config: BuildConfig, sessions: dict[Role, OnnxSession], words: str
) -> None:
    clip, _ = load_clip(tiny_config.clip)
    disturb(CLIP_PARTS[words](clip))
    method = tiny_bundle.manifest.method
    with pytest.raises(ParityError, match=words):
        measure_clip(sessions, clip_reference(clip, method), method, FP32)


@pytest.mark.parametrize("change", [{"fill": (0.4, 0.4, 0.4)}, {"resize": "bilinear"}, {"box_rule": "centroid"}])
def test_another_crop_fails(
    tiny_bundle: Bundle, tiny_config: BuildConfig, sessions: dict[Role, OnnxSession], change: dict[str, object]
) -> None:
    clip, _ = load_clip(tiny_config.clip)
    method = replace(tiny_bundle.manifest.method, **change)
    with pytest.raises(ParityError, match="proposal_encoder"):
        measure_clip(sessions, clip_reference(clip, method), method, FP32)


def test_nan_is_past_every_tolerance(tiny_sam: Sam, sessions: dict[Role, OnnxSession]) -> None:
    other = deepcopy(tiny_sam)
    with torch.no_grad():
        other.mask_decoder.iou_prediction_head.layers[0].bias.fill_(torch.nan)
    with pytest.raises(ParityError, match="is nan"):
        measure_sam(sessions, sam_reference(other), FP32)
