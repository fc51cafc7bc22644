from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco

from risengine import BackendError, InputError, Proposals


@pytest.fixture
def masks(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.random((4, 30, 41)) < 0.2)


@pytest.fixture
def proposals(masks: np.ndarray) -> Proposals:
    scores = np.array([0.9, 0.7, 0.6, 0.5], np.float32)
    return replace(Proposals.from_masks(masks), scores=scores, stability_scores=scores / 2)


def test_masks_come_back_whole_or_one_by_one(proposals: Proposals, masks: np.ndarray) -> None:
    np.testing.assert_array_equal(proposals.masks, masks)
    np.testing.assert_array_equal(proposals.mask(2), masks[2])
    assert proposals.masks.dtype == np.bool_
    proposals.mask(2)[:] = True
    np.testing.assert_array_equal(proposals.mask(2), masks[2])


def test_slices_and_equality(proposals: Proposals, masks: np.ndarray) -> None:
    best = proposals[::3]
    np.testing.assert_array_equal(best.masks, masks[::3])
    np.testing.assert_array_equal(best.scores, proposals.scores[::3])
    assert [len(one) for one in proposals] == [1, 1, 1, 1]
    assert proposals[proposals.scores > 0.55] == proposals[:3] == proposals[np.array([0, 1, 2])]
    assert Proposals.joined([proposals[:2], proposals[2:]]) == proposals
    assert proposals[:2] != proposals[1:3]
    assert proposals != replace(proposals, scores=proposals.scores[::-1])
    assert proposals != "proposals"
    assert proposals[:0].masks.shape == (0, 30, 41)


def test_coco_records_are_read_by_pycocotools(proposals: Proposals, masks: np.ndarray) -> None:
    records = proposals.to_coco()
    for record, mask, score in zip(records, masks, proposals.scores, strict=True):
        np.testing.assert_array_equal(coco.decode(record["segmentation"]), mask)
        assert record["area"] == coco.area(record["segmentation"]) == mask.sum()
        assert record["bbox"] == coco.toBbox(record["segmentation"]).tolist()
        assert record["predicted_iou"] == pytest.approx(score)
        assert record["stability_score"] == pytest.approx(score / 2)


@pytest.mark.parametrize("count", [0, 4])
def test_supervision_detections(proposals: Proposals, count: int) -> None:
    pytest.importorskip("supervision", reason="the package supervision is not installed")
    detections = proposals[:count].to_supervision()
    assert len(detections) == count
    np.testing.assert_array_equal(detections.mask, proposals.masks[:count])
    np.testing.assert_array_equal(detections.xyxy, proposals.boxes[:count])
    np.testing.assert_array_equal(detections.confidence, proposals.scores[:count])
    np.testing.assert_array_equal(detections.data["stability_score"], proposals.stability_scores[:count])


def test_without_supervision(proposals: Proposals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(BackendError, match=r'pip install "risengine\[supervision\]"'):
        proposals.to_supervision()


def test_the_overlay_wants_the_image_of_the_proposals(proposals: Proposals) -> None:
    image = np.zeros((30, 41, 3), np.uint8)
    assert np.asarray(proposals.overlay(image))[:30].any()
    with pytest.raises(InputError, match=r"proposals are of one of \(30, 41\)"):
        proposals.overlay(image[:20])
