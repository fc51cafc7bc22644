"""A SAM made up for tests, and the settings and images it is asked under."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from risengine.method import ProposalSettings
from risengine.types import Proposals

SIDE_PX = 64


class FakeSam:
    """SAM's four sessions with logits and scores made up from the prompt; deterministic, and quick."""

    def __init__(self, seed: int, on_gpu: bool = False, **largest: int) -> None:
        rng = np.random.default_rng(seed)
        self.bases = (4 * rng.normal(size=(5, 16, 16))).astype(np.float32)
        self.shift = np.float32(rng.normal())
        self.looks = np.concatenate([np.ones((16, 1)), rng.normal(size=(16, 7))], axis=1).astype(np.float32)
        self.sessions: Any = {
            "image_encoder": SimpleNamespace(run=self._encode, on_gpu=on_gpu),
            "image_projector": SimpleNamespace(run=self._project, on_gpu=on_gpu),
            "point_decoder": SimpleNamespace(run=self._decode, on_gpu=on_gpu, largest=largest.get),
            "mask_decoder": SimpleNamespace(run=self._draw, on_gpu=on_gpu, largest=largest.get),
        }

    def _encode(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert feeds["image"].flags.c_contiguous
        embedding = np.full((1, 8, 4, 4), feeds["image"].mean() / 255, np.float32)
        return {"image_embedding": embedding}

    def _project(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image_cells": feeds["image_embedding"].reshape(1, 8, 16).transpose(0, 2, 1) * self.looks}

    def _decode(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shares = feeds["points"][:, 0] / feeds["image_size"][::-1]
        tokens = np.sin(np.arange(1, 16).reshape(3, 5) * (shares.sum(axis=1)[:, None, None] + self.shift))
        tokens[shares[:, 0] > 0.9, 2] = -50  # an empty mask
        features = np.zeros((len(shares), 16, 8), np.float32)
        features[:, :, 0] = feeds["image_cells"][0, 0, 0]
        scores = 0.5 + 0.5 * np.cos(7 * tokens[..., 0])
        return {
            "iou_predictions": scores.astype(np.float32),
            "mask_tokens": tokens.astype(np.float32),
            "image_features": features,
        }

    def _draw(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits = np.tensordot(feeds["mask_tokens"], self.bases, axes=1)
        return {"logits": logits + feeds["image_features"][feeds["prompt_index"], 0, :1, None]}


sizes = st.one_of(
    st.sampled_from([(1, 1), (1, 7), (7, 1), (33, 32), (700, 3), (300, 500)]),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
any_settings = st.builds(
    ProposalSettings,
    points_per_side=st.integers(4, 9),
    points_per_batch=st.integers(1, 70),
    pred_iou_thresh=st.floats(-0.5, 1.5),
    stability_score_thresh=st.floats(-0.5, 1.5),
    stability_score_offset=st.floats(-1, 3),
    box_nms_thresh=st.floats(0, 1),
    crop_n_layers=st.integers(0, 2),
    crop_nms_thresh=st.floats(0, 1),
    crop_overlap_ratio=st.floats(0, 1),
    crop_n_points_downscale_factor=st.integers(1, 2),
    min_mask_region_area=st.sampled_from([0, 0, 1, 5, 100, 10**7]),
)


def assert_consistent(found: Proposals, options: ProposalSettings) -> None:
    """Boxes are those of the masks, masks pass the thresholds and come by falling predicted IoU."""
    for box, mask in zip(found.boxes.astype(int), found.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert (np.diff(found.scores) <= 0).all()
    if options.pred_iou_thresh > 0:
        assert (found.scores > np.float32(options.pred_iou_thresh)).all()
    if options.stability_score_thresh > 0:
        assert (found.stability_scores >= np.float32(options.stability_score_thresh)).all()
