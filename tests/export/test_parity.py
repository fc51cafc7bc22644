"""The comparison with PyTorch: it passes equal graphs, and fails graphs of other weights with words that say where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import nn

from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import Session
from risengine.bundle import Bundle
from risengine.config import RuntimeConfig
from risengine.errors import RisError
from risengine.manifest import Role
from risengine.method import Method
from risengine.vectors import Description
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checks.parity import TOLERANCES, ParityError, measure_clip, measure_sam, selection_agreement
from risexport.checks.references import ClipReference, clip_reference, sam_reference
from risexport.config import BuildConfig

FP32, FP16 = TOLERANCES["fp32"], TOLERANCES["fp16"]


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


def test_a_broken_graph_fails_in_half_precision(
    tiny_bundle: Bundle, tiny_config: BuildConfig, sessions: dict[Role, OnnxSession], tmp_path: Path
) -> None:
    """One matrix of the text encoder in steps of a sixteenth of its largest value, everything else exact."""
    clip, _ = load_clip(tiny_config.clip)
    method, spec = tiny_bundle.manifest.method, tiny_bundle.manifest.graphs["text_encoder"]
    model = onnx_ir.load(tiny_bundle.graph_path("text_encoder"))
    products = [node for node in model.graph if node.op_type in ("Gemm", "MatMul")]
    weight = next(v for node in products for v in node.inputs if v is not None and v.const_value is not None)
    values = weight.const_value.numpy()
    step = np.abs(values).max() / 16
    weight.const_value = onnx_ir.tensor((np.round(values / step) * step).astype(np.float32))
    onnx_ir.save(model, tmp_path / spec.file)
    broken = OnnxSession(tmp_path / spec.file, spec, RuntimeConfig(threads=1))
    reference = clip_reference(clip, method)
    measure_clip(sessions, reference, method, FP16)
    with pytest.raises(ParityError, match="text_encoder: relative_error of features"):
        measure_clip({**sessions, "text_encoder": broken}, reference, method, FP16)
    broken.close()


WIDTH = 64
LOOK_ALIKE = 4e-3


def unit_rows(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Answering:
    """A session that gives the same outputs to every call."""

    inputs = outputs = ()
    providers = ("test",)
    on_gpu = False

    def __init__(self, **answers: NDArray[np.float32]) -> None:
        self._answers = answers

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._answers

    def close(self) -> None:
        pass


def describing(features: NDArray[np.float32]) -> Session:
    return Answering(global_features=features, local_features=features, features=features)


def test_an_error_within_tolerance_that_points_to_a_wrong_mask_fails(tiny_bundle: Bundle) -> None:
    """Masks 0 and 1 differ by 4e-3 along a direction that every text asks for, ten times what is a tie at 3e-4."""
    method: Method = tiny_bundle.manifest.method
    features, direction = unit_rows(6, seed=0), unit_rows(1, seed=1)[0]
    features[1] = features[0] - LOOK_ALIKE * direction
    texts = 0.6 * features[:1] + 0.8 * direction + 0.01 * unit_rows(128, seed=2)
    assert set((texts @ features.T).argmax(1)) == {0}
    blank = np.zeros((1, 1, 3), np.uint8)
    description = Description(blank, np.ones((6, 1, 1), np.bool_), features, features, features)
    reference = ClipReference((description,), np.zeros((128, 77), np.int64), texts)
    sessions: dict[Role, Session] = {"text_encoder": Answering(features=texts)}

    def agreement(moved: NDArray[np.float32]) -> float:
        rows = measure_clip({**sessions, "proposal_encoder": describing(moved)}, reference, method, FP16)
        return rows[-1].value

    assert agreement(features) == 1
    anywhere = features + FP16.feature_error / 2 * unit_rows(6, seed=3)
    assert agreement(anywhere) == 1
    towards = features.copy()
    towards[1] += 0.0045 * direction
    towards[0] -= 0.0045 * direction
    with pytest.raises(ParityError, match=r"selection_agreement of features .* is 0; expected at least 0.99"):
        agreement(towards)


def test_masks_that_look_alike_are_no_choice() -> None:
    features, texts = unit_rows(8, seed=0), unit_rows(100, seed=1)
    features[3] = features[5] + 1e-5 * features[0]
    best = (texts @ features.T).argmax(1)
    pair = np.isin(best, (3, 5))
    assert pair.any()
    other = np.where(pair, 8 - best, best)
    assert selection_agreement(best, texts, features, 1e-4) == 1
    assert selection_agreement(other, texts, features, 1e-4) == 1
    assert selection_agreement(other, texts, features, 1e-9) == 1 - pair.mean()


def test_a_wrong_mask_is_no_tie() -> None:
    features, texts = unit_rows(24, seed=0), unit_rows(200, seed=1)
    scores = texts @ features.T
    best, worst = scores.argmax(1), scores.argmin(1)
    assert selection_agreement(worst, texts, features, FP16.feature_error) == 0
    chosen = np.where(np.arange(200) < 20, worst, best)
    assert selection_agreement(chosen, texts, features, FP16.feature_error) == 0.9
    # The margin is of the features' own scale.
    assert selection_agreement(chosen, 50 * texts, 0.1 * features, FP16.feature_error) == 0.9
