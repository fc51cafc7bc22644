"""The embedded bundle against the PyTorch reference with the weights it was exported from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file

import risengine
from risbench.reference import ReferencePipeline
from risengine.demo import DemoPicture, demo_pictures, mask_iou
from tabletop.clip_model import load_config
from tabletop.sam_model import build_tabletop_sam

WEIGHTS = Path(__file__).parents[2] / "models" / "tabletop" / "weights"


@pytest.fixture(scope="module")
def engine() -> risengine.Engine:
    return risengine.load("tabletop", risengine.RuntimeConfig(strategy="global_local"))  # the reference's


@pytest.fixture(scope="module")
def reference(engine: risengine.Engine) -> ReferencePipeline:
    clip = CLIP(**load_config()).eval()
    clip.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS / "clip.safetensors").items()})
    sam = build_tabletop_sam().eval()
    sam.load_state_dict(load_file(WEIGHTS / "sam.safetensors"))
    method, settings = engine.manifest.method, engine.manifest.proposals
    return ReferencePipeline(clip, open_clip.get_tokenizer("ViT-B-32"), sam, method, settings)


@pytest.mark.parametrize("picture", demo_pictures(), ids=lambda picture: picture.path.stem)
def test_same_proposals_same_scores_same_answers(
    engine: risengine.Engine, reference: ReferencePipeline, picture: DemoPicture
) -> None:
    with torch.inference_mode():
        expected, found = reference.encode_image(picture.path), engine.encode_image(picture.path)
    assert len(found.proposals) == len(expected.proposals)
    overlaps = np.array([[mask_iou(a, b) for b in expected.proposals.masks] for a in found.proposals.masks])
    assert (overlaps.max(axis=1) >= 0.99).all()
    assert (overlaps.max(axis=0) >= 0.99).all()
    for question in picture.questions:
        answer, wanted = engine.segment(found, question.text), reference.segment(expected, question.text)
        assert mask_iou(answer.mask, wanted.mask) >= 0.99
        assert answer.phrase == wanted.phrase
        assert answer.score == pytest.approx(wanted.score, abs=2e-3)
    features = reference.encode_image(picture.path, masks=found.proposals.masks).features
    np.testing.assert_allclose(found.features, features, atol=1e-4)
