"""The runtime's proposals against segment-anything's own generator and predictor, on the tabletop SAM's weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from risbench.reference.proposals import generate_proposals as stock_proposals
from risengine.demo import demo_pictures
from risengine.generator.prompts import read_prompts
from risengine.generator.proposals import generate_proposals, prompted_proposals
from risengine.generator.sam import SamImage
from risengine.method import ProposalSettings
from risengine.types import Proposals
from risexport.graphs import sam_graphs
from tabletop.sam_model import build_tabletop_sam

WEIGHTS = Path(__file__).parents[2] / "models" / "tabletop" / "weights"
SIDE_PX = 256
MANY = {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.5}


@pytest.fixture(scope="module")
def sam() -> Sam:
    sam = build_tabletop_sam().eval()
    sam.load_state_dict(load_file(WEIGHTS / "sam.safetensors"))
    return sam


@pytest.fixture(scope="module")
def sessions(sam: Sam) -> Any:
    """The modules that are exported, run by PyTorch."""

    def session(plan: Any) -> Any:
        @torch.inference_mode()
        def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            outputs = plan.module(*(torch.from_numpy(feeds[name]) for name in plan.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return {name: output.numpy() for name, output in zip(plan.outputs, outputs, strict=True)}

        return SimpleNamespace(run=run, on_gpu=False)

    return {plan.role: session(plan) for plan in sam_graphs(sam)}


def picture(size: tuple[int, int], index: int = 0) -> np.ndarray:
    with Image.open(demo_pictures()[index].path) as image:
        return np.array(image.convert("RGB").resize(size[::-1]))


def assert_same(found: Proposals, expected: Proposals) -> None:
    """Same count, same scores, and each mask of either has its like in the other."""
    assert found.size == expected.size
    assert len(found) == len(expected)
    if len(found):
        flat, known = (one.masks.reshape(len(one), -1).astype(np.float32) for one in (found, expected))
        common = flat @ known.T
        ious = common / (flat.sum(axis=1)[:, None] + known.sum(axis=1) - common)
        assert ious.max(axis=0).min() >= 0.99
        assert ious.max(axis=1).min() >= 0.99
    # The resized image differs from Pillow's by a grey level here and there.
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)
    assert (np.diff(found.scores) <= 0).all()


any_settings = st.builds(
    ProposalSettings,
    points_per_side=st.sampled_from([2, 3, 5]),
    points_per_batch=st.sampled_from([1, 3, 64]),
    pred_iou_thresh=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    stability_score_thresh=st.sampled_from([0.0, 0.5, 0.75]),
    stability_score_offset=st.sampled_from([0.0, 0.3, 1.0]),
    box_nms_thresh=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    crop_n_layers=st.sampled_from([0, 0, 1]),
    crop_nms_thresh=st.sampled_from([0.3, 0.7, 1.0]),
    crop_overlap_ratio=st.sampled_from([0.0, 512 / 1500, 0.8]),
    crop_n_points_downscale_factor=st.sampled_from([1, 2]),
    min_mask_region_area=st.sampled_from([0, 0, 10, 300]),
)
any_size = st.sampled_from([(97, 160), (200, 131), (60, 60)])


@settings(max_examples=6, deadline=None, derandomize=True)
@given(any_settings, any_size, st.integers(0, 4))
@example(ProposalSettings(points_per_side=2, crop_n_layers=2, **MANY), (97, 160), 0)
@example(ProposalSettings(points_per_side=5, min_mask_region_area=40, **MANY), (240, 320), 1)
def test_masks_are_the_stock_generators(
    sam: Sam, sessions: Any, options: ProposalSettings, size: tuple[int, int], index: int
) -> None:
    image = picture(size, index)
    assert_same(generate_proposals(sessions, image, options, SIDE_PX), stock_proposals(sam, image, options))


def test_explicit_points_are_the_stock_generators(sam: Sam, sessions: Any) -> None:
    rng = np.random.default_rng(0)
    grids = tuple(tuple((float(x), float(y)) for x, y in rng.random((count, 2))) for count in (16, 4))
    options = ProposalSettings(crop_n_layers=1, point_grids=grids, **MANY)
    image = picture((120, 150))
    found = generate_proposals(sessions, image, options, SIDE_PX)
    assert len(found) >= 3
    assert_same(found, stock_proposals(sam, image, options))


def test_what_is_held_and_how_prompts_are_batched_changes_nothing(
    sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture((160, 220), 2)
    options = ProposalSettings(points_per_side=6, **MANY)
    expected = generate_proposals(sessions, image, options, SIDE_PX)
    assert len(expected) > 3
    monkeypatch.setattr(
        "risengine.generator.upsample.Upsampler.held_bytes", 0
    )  # every mask is drawn as soon as it is found
    assert generate_proposals(sessions, image, options, SIDE_PX) == expected
    monkeypatch.setattr("risengine.generator.sam.PROMPTS_PER_CALL", 64)
    assert_same(generate_proposals(sessions, image, options, SIDE_PX), expected)


@pytest.mark.parametrize("kind", ["points", "clicks", "boxes", "both"])
def test_prompts_are_answered_as_by_the_predictor(sam: Sam, sessions: Any, kind: str) -> None:
    size = (120, 170)
    image = picture(size, 3)
    rng = np.random.default_rng(1)
    clicks = rng.uniform(0, 1, (5, 3, 2)) * (size[1], size[0])
    labels = rng.integers(0, 2, (5, 3))
    low = rng.uniform(0, 0.5, (5, 2)) * (size[1], size[0])
    boxes = np.concatenate([low, low + 30], axis=1)
    prompts = {
        "points": read_prompts(clicks[:, 0], None, None, size),
        "clicks": read_prompts(clicks, labels, None, size),
        "boxes": read_prompts(None, None, boxes, size),
        "both": read_prompts(clicks, labels, boxes, size),
    }[kind]
    found = prompted_proposals(SamImage.encode(sessions, image, SIDE_PX), prompts, ProposalSettings())
    assert len(found) == 15
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    for prompt in range(5):
        masks, scores, _ = predictor.predict(
            point_coords={"points": clicks[prompt, :1], "boxes": None}.get(kind, clicks[prompt]),
            point_labels={"points": np.ones(1), "boxes": None}.get(kind, labels[prompt]),
            box=boxes[prompt] if kind in ("boxes", "both") else None,
        )
        order = np.argsort(-scores)
        own = found[3 * prompt : 3 * prompt + 3]
        np.testing.assert_allclose(own.scores, scores[order], atol=2e-3)
        differing = (own.masks ^ masks[order]).sum(axis=(1, 2))
        assert (differing <= 0.01 * np.maximum(masks[order].sum(axis=(1, 2)), 100)).all()
