"""SAM's best of three on sessions whose masks are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from risbench.quality.point_prompts import best_of_three, interior_point

SIZE, SQUARE = (45, 70), 64


class FakeSam:
    """The three SAM roles; prompt p's mask t has the logits ``logits[p, t]``."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits
        self.feeds: dict[str, dict[str, Any]] = {}
        self.sessions: Any = {
            role: SimpleNamespace(run=lambda feeds, role=role: self._run(role, feeds), on_gpu=False)
            for role in ("image_encoder", "image_projector", "point_decoder", "mask_decoder")
        }

    def _run(self, role: str, feeds: dict[str, Any]) -> dict[str, Any]:
        self.feeds[role] = feeds
        if role == "image_encoder":
            return {"image_embedding": np.zeros((1, 8, 4, 4), np.float32)}
        if role == "image_projector":
            return {}
        if role == "point_decoder":
            count = len(feeds["points"])
            tokens = np.broadcast_to(np.arange(3, dtype=np.float32)[None, :, None], (count, 3, 1))
            features = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, 16, 8))
            return {"iou_predictions": np.ones((count, 3)), "mask_tokens": tokens, "image_features": features}
        slots = feeds["mask_tokens"][:, 0].astype(int)
        prompts = feeds["image_features"][feeds["prompt_index"], 0, 0].astype(int)
        return {"logits": self.logits[prompts, slots]}


@pytest.fixture
def logits() -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear").numpy()


def _stock_masks(logits: np.ndarray) -> np.ndarray:
    scale = SQUARE / max(SIZE)
    inner = tuple(int(side * scale + 0.5) for side in SIZE)
    model: Any = SimpleNamespace(image_encoder=SimpleNamespace(img_size=SQUARE))
    return (Sam.postprocess_masks(model, torch.from_numpy(logits), inner, SIZE) > 0).numpy()


def test_masks_are_upsampled_as_segment_anything_does(logits: np.ndarray) -> None:
    truth = _stock_masks(logits)
    sam = FakeSam(logits)
    points = np.float32([[3.5, 4.5], [60.5, 40.5]])
    image = np.zeros((*SIZE, 3), np.uint8)
    for slot in range(3):
        found = best_of_three(sam.sessions, image, points, truth[:, slot], SQUARE)
        np.testing.assert_array_equal(found, [1.0, 1.0])


def test_the_best_mask_counts_not_the_first(logits: np.ndarray) -> None:
    masks = _stock_masks(logits)
    truth = np.zeros((2, *SIZE), np.bool_)
    truth[0, :20], truth[1, :, 30:] = True, True
    by_hand = [
        max((mask & target).sum() / (mask | target).sum() for mask in of_prompt)
        for of_prompt, target in zip(masks, truth, strict=True)
    ]
    found = best_of_three(
        FakeSam(logits).sessions, np.zeros((*SIZE, 3), np.uint8), np.ones((2, 2), np.float32), truth, 64
    )
    np.testing.assert_allclose(found, by_hand)


def test_prompts_follow_the_graph_contract(logits: np.ndarray) -> None:
    sam = FakeSam(logits)
    points = np.float32([[3.5, 4.5], [60.5, 40.5]])
    best_of_three(sam.sessions, np.zeros((*SIZE, 3), np.uint8), points, np.ones((2, *SIZE), np.bool_), SQUARE)
    feeds = sam.feeds["point_decoder"]
    assert feeds["image_size"].tolist() == list(SIZE)
    assert feeds["points"].tolist() == [[[3.5, 4.5], [0, 0]], [[60.5, 40.5], [0, 0]]]
    assert feeds["labels"].tolist() == [[1, -1], [1, -1]]
    dtypes = {name: feeds[name].dtype for name in ("image_size", "points", "labels")}
    assert dtypes == {"image_size": np.int64, "points": np.float32, "labels": np.int64}
    feeds = sam.feeds["mask_decoder"]
    assert feeds["prompt_index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert feeds["prompt_index"].dtype == np.int64
    assert feeds["mask_tokens"].shape == (6, 1)


def test_points_lie_in_the_mask_and_depend_on_the_seed() -> None:
    mask = np.random.default_rng(0).random((30, 40)) < 0.1
    points = np.stack([interior_point(mask, (0, ann_id)) for ann_id in range(300)])
    columns, rows = np.floor(points).astype(int).T
    assert mask[rows, columns].all()
    assert len(np.unique(points, axis=0)) > 80  # of about 120 pixels
    np.testing.assert_array_equal(interior_point(mask, (0, 5)), points[5])
    assert any((interior_point(mask, (1, i)) != points[i]).any() for i in range(5))
