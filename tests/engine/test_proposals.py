from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_sam import SIDE_PX, FakeSam, any_settings, assert_consistent, sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import build_all_layer_point_grids, generate_crop_boxes
from torchvision.ops import nms

from risengine.errors import InputError
from risengine.generator.nms import non_maximum_suppression
from risengine.generator.prompts import generator_crops, point_grid, read_prompts
from risengine.generator.proposals import generate_proposals, prompted_proposals
from risengine.generator.sam import PROMPTS_PER_CALL, PROMPTS_PER_GPU_CALL, SamImage
from risengine.method import ProposalSettings


@pytest.mark.parametrize("points_per_side", [1, 2, 7, 32])
def test_grid_is_segment_anythings(points_per_side: int) -> None:
    np.testing.assert_allclose(
        point_grid(points_per_side), build_all_layer_point_grids(points_per_side, 0, 1)[0], atol=1e-6
    )


@pytest.mark.parametrize("size", [(480, 640), (97, 33), (1000, 1001), (16, 16)])
@pytest.mark.parametrize(
    ("layers", "overlap", "downscale"), [(0, 0.5, 2), (1, 512 / 1500, 1), (2, 0.9, 2), (3, 0.0, 1)]
)
def test_crops_are_segment_anythings(size: tuple[int, int], layers: int, overlap: float, downscale: int) -> None:
    options = ProposalSettings(
        points_per_side=9, crop_n_layers=layers, crop_overlap_ratio=overlap, crop_n_points_downscale_factor=downscale
    )
    crops = generator_crops(options, size)
    boxes, layer_of = generate_crop_boxes(size, layers, overlap)
    filled = [0 <= box[0] < box[2] and 0 <= box[1] < box[3] for box in boxes]  # it makes crops beyond small images
    boxes, layer_of = ([x for x, keep in zip(y, filled, strict=True) if keep] for y in (boxes, layer_of))
    assert [list(crop.box) for crop in crops] == boxes
    grids = build_all_layer_point_grids(9, layers, downscale)
    for crop, layer in zip(crops, layer_of, strict=True):
        np.testing.assert_allclose(crop.grid, grids[layer], atol=1e-6)


def test_crops_without_a_pixel_are_left_out() -> None:
    crops = generator_crops(ProposalSettings(crop_n_layers=2), (1, 2))
    assert all(crop.area_px > 0 for crop in crops)
    assert crops[0].box == (0, 0, 2, 1)


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_is_torchvisions(rng: np.random.Generator, count: int, threshold: float) -> None:
    corner = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 30, (count, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).numpy()
    half_open = boxes + np.float32([0, 0, 1, 1])
    np.testing.assert_array_equal(non_maximum_suppression(half_open, scores, threshold), expected)


@settings(max_examples=60, deadline=None)
@given(any_settings, sizes, st.integers(0, 5), st.booleans())
def test_any_settings_and_image_give_consistent_proposals(
    options: ProposalSettings, size: tuple[int, int], seed: int, black: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = np.zeros((*size, 3), np.uint8) if black else rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    told: list[tuple[int, int]] = []
    found = generate_proposals(FakeSam(seed).sessions, image, options, SIDE_PX, lambda *step: told.append(step))
    assert told[-1][0] == told[-1][1] == sum(len(crop.grid) for crop in generator_crops(options, size))
    assert found.size == size
    assert_consistent(found, options)


@pytest.mark.parametrize(
    ("points_per_batch", "largest", "step"),
    [
        (3, None, 3),
        (1000, None, PROMPTS_PER_CALL),
        (3, {}, 3),
        (1000, {}, PROMPTS_PER_GPU_CALL),
        (1000, {"P": 16}, 16),
    ],
)
@pytest.mark.parametrize("held_bytes", [0, 5 * 4 * 16 * 16, 1 << 27])
def test_no_prompt_is_decoded_twice(
    points_per_batch: int,
    largest: dict[str, int] | None,
    step: int,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("risengine.generator.upsample.Upsampler.held_bytes", held_bytes)
    sam = FakeSam(1, largest is not None, **(largest or {}))
    keep = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1, "crop_nms_thresh": 1}
    options = ProposalSettings(9, points_per_batch, crop_n_layers=1, **keep)
    asked: list[int] = []

    def decode(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        asked.append(len(feeds["points"]))
        return sam._decode(feeds)

    sam.sessions["point_decoder"].run = decode
    found = generate_proposals(sam.sessions, np.zeros((50, 70, 3), np.uint8), options, SIDE_PX)
    assert len(found) > 100
    assert sum(asked) == 5 * 81
    assert max(asked) == step


def test_a_gpu_proposes_what_a_cpu_does() -> None:
    image = np.zeros((50, 70, 3), np.uint8)
    options = ProposalSettings(9, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
    small, large = (
        generate_proposals(FakeSam(4, on_gpu).sessions, image, options, SIDE_PX) for on_gpu in (False, True)
    )
    assert len(small) > 100
    assert small == large


@pytest.mark.parametrize("largest", [{"Q": 5, "M": 192}, {"Q": 64, "M": 7}])
def test_no_call_is_larger_than_the_engines_profile(largest: dict[str, int]) -> None:
    sam = FakeSam(4, True, **largest)
    drawn: list[tuple[int, int]] = []

    def draw(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        drawn.append((len(feeds["image_features"]), len(feeds["mask_tokens"])))
        return sam._draw(feeds)

    sam.sessions["mask_decoder"].run = draw
    options = ProposalSettings(9, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
    assert len(generate_proposals(sam.sessions, np.zeros((50, 70, 3), np.uint8), options, SIDE_PX)) > 100
    assert max(prompts for prompts, _ in drawn) <= largest["Q"]
    assert max(masks for _, masks in drawn) <= largest["M"]


def test_prompts_are_answered_under_the_settings() -> None:
    sam = SamImage.encode(FakeSam(2).sessions, np.zeros((50, 70, 3), np.uint8), SIDE_PX)
    prompts = read_prompts(np.random.default_rng(0).uniform(0, 50, (10, 2)), None, None, sam.size)
    told: list[tuple[int, int]] = []
    strict, lenient = (
        prompted_proposals(
            sam, prompts, ProposalSettings(points_per_batch=3, stability_score_offset=offset), lambda *s: told.append(s)
        )
        for offset in (3.0, 0.0)
    )
    assert strict.counts == lenient.counts
    assert set(lenient.stability_scores[lenient.boxes.any(axis=1)]) == {1}
    assert strict.stability_scores.mean() < 0.9
    assert told[:4] == [(3, 10), (6, 10), (9, 10), (10, 10)]


def test_nothing_survives() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    for options in (
        ProposalSettings(points_per_side=1, pred_iou_thresh=2.0),
        ProposalSettings(points_per_side=3, crop_n_layers=1, stability_score_thresh=2.0, min_mask_region_area=5),
        ProposalSettings(point_grids=((),)),
    ):
        found = generate_proposals(FakeSam(0).sessions, image, options, SIDE_PX)
        assert found.masks.shape == (0, 20, 30)
        assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points_per_side": 0}, "points_per_side = 0; expected at least 1"),
        ({"crop_n_layers": -1}, "crop_n_layers = -1; expected at least 0"),
        ({"crop_overlap_ratio": 1.5}, r"crop_overlap_ratio = 1.5; expected a number in \[0, 1\]"),
        (
            {"points_per_side": 7, "crop_n_layers": 3, "crop_n_points_downscale_factor": 2},
            "points_per_side = 7 leaves no point in crop layer 3",
        ),
        ({"point_grids": (((0.5, 0.5),),), "crop_n_layers": 1}, "point_grids has 1 grids; expected 2"),
        ({"point_grids": (((0.5, 20.0),),)}, r"value outside \[0, 1\]"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProposalSettings(**changes)


@pytest.mark.parametrize(
    ("points", "labels", "boxes", "message"),
    [
        (None, None, None, "there is no prompt"),
        (None, [[1]], None, "labels are given without points"),
        ([1.0, 2.0], None, None, r"points have shape \(2,\)"),
        ([[1.0, 2.0], [3.0]], None, None, "points are no array of numbers"),
        ([[1.0, np.nan]], None, None, "points hold NaN"),
        ([[5.0, 5.0], [31.0, 5.0]], None, None, r"points \[1\] lie beyond the image; expected x in \[0, 30\]"),
        ([[5.0, 5.0]], [[2]], None, "labels have shape"),
        ([[5.0, 5.0]], [1, 1], None, r"labels have shape \(2,\); expected \(1, 1\)"),
        (None, None, [[1, 2, 3]], r"boxes have shape \(1, 3\)"),
        (None, None, [[1, 2, 9, 9], [5, 5, 5, 9]], r"boxes \[1\] have no area"),
        (None, None, [[-1, 2, 9, 9]], r"boxes \[0\] lie beyond"),
        ([[5.0, 5.0]], None, [[1, 2, 9, 9], [1, 2, 9, 9]], "2 boxes and 1 prompts of points"),
    ],
)
def test_prompts_that_are_refused(points: Any, labels: Any, boxes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_prompts(points, labels, boxes, (20, 30))
