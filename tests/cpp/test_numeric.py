"""The C++ library's arithmetic against the Python runtime's, on the same graphs; CTest runs it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_sam import SIDE_PX, FakeSam, any_settings, sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from probe import LIBRARY, Probe

import risengine
from risengine.demo import demo_pictures
from risengine.generator.nms import non_maximum_suppression
from risengine.generator.prompts import read_prompts
from risengine.generator.proposals import generate_proposals, prompted_proposals
from risengine.generator.regions import remove_small_regions
from risengine.generator.sam import SamImage
from risengine.generator.upsample import Upsampler
from risengine.images import load_image
from risengine.masks import mask_boxes, mask_from_runs, runs_from_window
from risengine.method import ProposalSettings
from risengine.scoring.score import similarity
from risengine.types import Proposals

pytestmark = pytest.mark.skipif(not LIBRARY, reason="needs the C++ library: make test-cpp builds it")
bools = npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return Probe({})


@pytest.mark.parametrize(
    "size", [(30, 41), (64, 64), (200, 3), (1, 400), (90, 77), (1, 1), (130, 300), (480, 640), (1031, 767)]
)
@pytest.mark.parametrize(("logits_side", "square"), [(16, 64), (128, 256), (100, 200), (64, 64)])
@pytest.mark.parametrize("offset", [1.0, -0.5, 0.0])
def test_upsampled_masks(
    probe: Probe,
    rng: np.random.Generator,
    size: tuple[int, int],
    logits_side: int,
    square: int,
    offset: float,
) -> None:
    coarse = rng.normal(size=(6, logits_side // 4, logits_side // 4))
    logits = (8 * coarse.repeat(4, axis=1).repeat(4, axis=2)).astype(np.float32)
    logits[2:4] += rng.normal(size=logits[2:4].shape)
    logits[0], logits[1] = -9, 9  # no pixel, every pixel
    upsampler = Upsampler(size, (logits_side, logits_side), square)
    stability, boxes = upsampler.measure(logits, offset)
    masks = np.stack(list(upsampler.masks(logits)))
    found = probe.upsample(logits, size, square, offset)
    # Bit by bit where sums are fused as in NumPy's BLAS; elsewhere a pixel may lie on the other side of the cut-off.
    assert (found[2] == masks).mean(axis=(1, 2)).min() > 1 - 1e-4
    np.testing.assert_allclose(found[0], stability, rtol=1e-4)
    np.testing.assert_allclose(found[1], boxes, atol=1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_suppression_with_ties(data: st.DataObject) -> None:
    probe = Probe({})
    count = data.draw(st.integers(0, 30))
    corners = data.draw(npst.arrays(np.float32, (count, 4), elements=st.integers(0, 12)))
    boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
    scores = data.draw(npst.arrays(np.float32, (count,), elements=st.sampled_from([0, -0.0, 0.25, 0.5, 1, np.inf])))
    thresh = data.draw(st.sampled_from([0, 0.5, 1 / 3, 0.7, 1]))
    expected = non_maximum_suppression(boxes, scores, thresh)
    np.testing.assert_array_equal(probe.non_maximum_suppression(boxes, scores, thresh), expected)


@settings(max_examples=200, deadline=None)
@given(bools, st.integers(0, 40))
def test_small_regions(mask: np.ndarray, min_area: int) -> None:
    runs, changed = remove_small_regions(runs_from_window(mask, (0, 0), mask.shape), mask.shape, min_area)
    cleaned, found = Probe({}).without_small_regions(mask, min_area)
    np.testing.assert_array_equal(cleaned, mask_from_runs(runs, mask.shape))
    assert found == changed


def test_small_regions_of_noise(probe: Probe, rng: np.random.Generator) -> None:
    for density in np.linspace(0.05, 0.95, 19):
        mask = rng.random(rng.integers(20, 150, 2)) < density
        runs, changed = remove_small_regions(runs_from_window(mask, (0, 0), mask.shape), mask.shape, 30)
        cleaned, found = probe.without_small_regions(mask, 30)
        np.testing.assert_array_equal(cleaned, mask_from_runs(runs, mask.shape))
        assert found == changed


@settings(max_examples=200, deadline=None)
@given(bools, st.integers(0, 5), st.integers(0, 9))
def test_callers_masks(mask: np.ndarray, gap: int, between: int) -> None:
    """Of any strides, any value but 0 being the object, and the bytes between rows and masks not looked at."""
    height, width = mask.shape
    memory = np.full((2, height + between, width + gap), 7, np.uint8)
    masks = memory[:, :height, :width]
    masks[:] = np.where(mask, 200, 0)
    if not mask.any():
        with pytest.raises(ValueError, match="mask 0 is empty"):
            Probe({}).read_masks(masks)
        return
    proposals, runs = Probe({}).read_masks(masks)
    for index in range(2):
        np.testing.assert_array_equal(proposals.mask(index), mask)
        np.testing.assert_array_equal(runs[index], runs_from_window(mask, (0, 0), mask.shape))
        np.testing.assert_array_equal(proposals.boxes[index], mask_boxes(mask[None])[0])


@settings(max_examples=150, deadline=None)
@given(any_settings, sizes, st.integers(0, 99))
def test_proposals_under_any_settings(options: ProposalSettings, size: tuple[int, int], seed: int) -> None:
    sam: Any = FakeSam(seed)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    expected = generate_proposals(sam.sessions, image, options, SIDE_PX)
    assert_alike(Probe(sam.sessions).propose(image, options, SIDE_PX), expected)


@pytest.mark.parametrize(
    ("bounds", "largest"),
    [({}, {"P": 8, "Q": 2, "M": 6}), ({"P": 3, "Q": 1, "M": 100}, {"P": 3, "Q": 1, "M": 3}), ({"M": 5}, {"M": 3})],
)
def test_no_call_exceeds_an_engines_profile(
    bounds: dict[str, int], largest: dict[str, int], rng: np.random.Generator
) -> None:
    sam: Any = FakeSam(2)
    seen: dict[str, int] = {"P": 0, "Q": 0, "M": 0}

    def watched(role: str, sizes: dict[str, str]) -> SimpleNamespace:
        def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            for name, dimension in sizes.items():
                seen[dimension] = max(seen[dimension], len(feeds[name]))
            outputs: dict[str, np.ndarray] = sam.sessions[role].run(feeds)
            return outputs

        return SimpleNamespace(run=run, largest=bounds.get)

    sessions = {
        **sam.sessions,
        "point_decoder": watched("point_decoder", {"points": "P"}),
        "mask_decoder": watched("mask_decoder", {"image_features": "Q", "mask_tokens": "M"}),
    }
    options = ProposalSettings(points_per_side=6, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    found = Probe(sessions).propose(image, options, SIDE_PX)
    assert len(found) > 20
    assert_alike(found, generate_proposals(sam.sessions, image, options, SIDE_PX))
    assert {name: seen[name] for name in largest} == largest


def test_grids_of_ones_own(rng: np.random.Generator) -> None:
    sam: Any = FakeSam(3)
    grids = (((0.1, 0.2), (0.5, 0.5), (1.0, 0.0)), ((0.3, 0.7),))
    keep_all = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1, "crop_nms_thresh": 1}
    options = ProposalSettings(point_grids=grids, crop_n_layers=1, **keep_all)
    image = rng.integers(0, 256, (77, 50, 3), np.uint8)
    found = Probe(sam.sessions).propose(image, options, SIDE_PX)
    assert len(found) > 1
    assert_alike(found, generate_proposals(sam.sessions, image, options, SIDE_PX))


def test_oldest_masks_are_drawn_early(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """More candidates than there is room for, which at the fake's size are many."""
    sam: Any = FakeSam(1)
    crowd = SimpleNamespace(run=lambda feeds: _wide(sam.sessions["mask_decoder"].run(feeds)), on_gpu=False)
    sessions = {**sam.sessions, "image_encoder": SimpleNamespace(run=_wide_embedding), "mask_decoder": crowd}
    sessions["image_projector"] = SimpleNamespace(
        run=lambda feeds: {"image_cells": feeds["image_embedding"].reshape(1, 8, -1).transpose(0, 2, 1)}
    )
    options = ProposalSettings(points_per_side=7, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
    image = rng.integers(0, 256, (60, 90, 3), np.uint8)
    found = Probe(sessions).propose(image, options, 1024)
    expected = generate_proposals(sessions, image, options, 1024)
    assert len(expected) > 10
    assert_alike(found, expected)


def _wide_embedding(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"image_embedding": np.full((1, 8, 256, 256), feeds["image"].mean() / 255, np.float32)}


def _wide(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"logits": outputs["logits"].repeat(64, axis=1).repeat(64, axis=2)}


@pytest.mark.parametrize(
    "prompts",
    [
        {"points": [[[5, 6]], [[30, 20]], [[0, 0]]]},
        {"points": [[[5, 6], [9, 9]], [[30, 20], [1, 2]]], "labels": [[1, 0], [1, 1]]},
        {"boxes": [[0, 0, 40, 30], [3, 4, 20, 30]]},
        {"points": [[[5, 6]], [[30, 20]]], "boxes": [[0, 0, 40, 30], [3, 4, 20, 30]]},
    ],
)
def test_callers_prompts(prompts: dict[str, Any], rng: np.random.Generator) -> None:
    sam: Any = FakeSam(2)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    asked = read_prompts(prompts.get("points"), prompts.get("labels"), prompts.get("boxes"), (30, 40))
    encoded = SamImage.encode(sam.sessions, image, SIDE_PX)
    expected = prompted_proposals(encoded, asked, ProposalSettings())
    assert_alike(Probe(sam.sessions).propose_at(image, prompts, ProposalSettings(), SIDE_PX), expected)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"points": [[[41, 3]]]}, "points of row 0 lie beyond the image"),
        ({"points": [[[np.nan, 3]]]}, "points hold NaN"),
        ({"points": [[[1, 3]]], "labels": [[2]]}, "labels hold 2"),
        ({"boxes": [[5, 5, 5, 9]]}, "box 0 has no area"),
        ({"boxes": [[0, 0, 5, 31]]}, "boxes of row 0 lie beyond the image"),
        ({"labels": [[1]]}, "labels are given without points"),
    ],
)
def test_prompts_that_do_not_fit(prompts: dict[str, Any], message: str) -> None:
    sam: Any = FakeSam(2)
    image = np.zeros((30, 40, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        Probe(sam.sessions).propose_at(image, prompts, ProposalSettings(), SIDE_PX)


@pytest.mark.parametrize(
    ("name", "value"),
    [("points_per_side", 0), ("pred_iou_thresh", np.nan), ("box_nms_thresh", 1.5), ("crop_n_layers", 16)],
)
def test_settings_out_of_range(name: str, value: float) -> None:
    options = ProposalSettings()
    object.__setattr__(options, name, value)
    with pytest.raises(ValueError, match=f"{name} = .*; expected"):
        Probe({}).propose(np.zeros((3, 3, 3), np.uint8), options, SIDE_PX)


@pytest.mark.parametrize("kind", ["cosine", "dot"])
def test_scores(probe: Probe, rng: np.random.Generator, kind: Any) -> None:
    features = rng.normal(size=(40, 128)).astype(np.float32)
    sentence, phrase = rng.normal(size=(2, 128)).astype(np.float32)
    expected = similarity(features, np.float32(0.3) * sentence + np.float32(1 - 0.3) * phrase, kind)
    scores, order = probe.scores(features, sentence, phrase, 0.3, kind)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(order, np.argsort(-scores, kind="stable"))


def test_masks_are_described_a_few_at_a_time(rng: np.random.Generator) -> None:
    calls = []

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(len(feeds["masks"]))
        weighted = feeds["masks"].sum(axis=(1, 2)) * feeds["global_weight"]
        return {"features": np.stack([weighted, feeds["image"].mean() + 0 * weighted], axis=1)}

    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    masks = rng.random((7, 20, 30)) < 0.5
    expected = np.stack([masks.sum(axis=(1, 2)) * 0.5, np.full(7, image.mean())], axis=1)
    # 64 crops of 224 px hold as many pixels as 4 of 896 px.
    for side_px, views, bounds, steps in (
        (224, 1, {}, [7]),
        (896, 1, {}, [4, 3]),
        (896, 2, {}, [2, 2, 2, 1]),
        (224, 1, {"N": 3}, [3, 3, 1]),
        (10**5, 1, {}, [1] * 7),
    ):
        calls.clear()
        encoder = Probe({"proposal_encoder": SimpleNamespace(run=run, largest=bounds.get)})
        features = encoder.describe(image, masks, 0.5, side_px, views, 2)
        assert calls == steps
        np.testing.assert_allclose(features, expected, rtol=1e-6)


@pytest.mark.parametrize("search", ["exact", "turbo"])
@pytest.mark.parametrize(
    ("role", "name", "shape"),
    [
        ("image_encoder", "image_embedding", (1, 8, 0, 4)),
        ("image_projector", "image_cells", (1, 15, 8)),
        ("point_decoder", "iou_predictions", (8, 4)),
        ("point_decoder", "mask_tokens", (8, 2, 5)),
        ("point_decoder", "image_features", (7, 16, 8)),
        ("mask_decoder", "logits", (1, 15, 16)),
    ],
)
def test_outputs_of_another_shape_are_refused(search: Any, role: str, name: str, shape: tuple[int, ...]) -> None:
    if (role, search) == ("image_projector", "exact"):
        pytest.skip("only turbo reads the cells")
    sessions: Any = dict(FakeSam(1).sessions)
    run = sessions[role].run
    sessions[role] = SimpleNamespace(run=lambda feeds: {**run(feeds), name: np.ones(shape, np.float32)})
    options = ProposalSettings(points_per_side=8, pred_iou_thresh=0, search=search)
    with pytest.raises(ValueError, match=f"output {name} has the shape .*expected float32 .*Rebuild the bundle"):
        Probe(sessions).propose(np.zeros((50, 70, 3), np.uint8), options, SIDE_PX)


@pytest.mark.parametrize("search", ["exact", "turbo"])
def test_proposals_of_shipped_pictures(search: Any) -> None:
    with risengine.load("tabletop", risengine.RuntimeConfig(threads=1)) as engine:
        side_px = engine.manifest.sam_image_size_px
        options = dataclasses.replace(engine.proposal_settings, search=search, min_mask_region_area=20)
        for picture in demo_pictures()[:2]:
            image = load_image(picture.path)
            expected = generate_proposals(engine.sessions, image, options, side_px)
            assert len(expected) > 3
            assert_alike(Probe(engine.sessions).propose(image, options, side_px), expected)


def assert_alike(found: Proposals, expected: Proposals) -> None:
    """Equal but for pixels whose logits are 0 within rounding, which a processor without fused sums rounds elsewise."""
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.stability_scores, expected.stability_scores, rtol=1e-3)
    assert (found.masks == expected.masks).mean(axis=(1, 2)).min(initial=1) > 0.999
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1)
