from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import risengine
from risengine import BackendError, BundleError, InputError
from risengine.bundle import open_bundle
from risengine.demo import DemoPicture
from risengine.generator.proposals import generate_proposals
from risengine.text import TextEncoder, parse_expression


def test_a_segmentation_is_consistent(
    engine: risengine.Engine, encoded: risengine.EncodedImage, picture: DemoPicture, tmp_path: Path
) -> None:
    text = picture.questions[0].text
    answer = engine.segment(encoded, text)
    assert answer.mask.shape == encoded.size
    assert answer.mask.dtype == np.bool_
    assert answer.text == text
    assert answer.phrase in text.lower()
    assert -1 <= answer.score <= 1
    np.testing.assert_array_equal(answer.mask, encoded.proposals.masks[answer.index])
    assert set(answer.timings_ms) == {
        "load_image",
        "proposals",
        "proposal_features",
        "phrase",
        "text_features",
        "score",
        "mask_out",
    }
    answer.save_overlay(tmp_path / "out.png")
    engine.segment(encoded, "the red\nmug").save_overlay(tmp_path / "two-lines.png")
    with Image.open(tmp_path / "out.png") as overlay:
        assert overlay.width == encoded.size[1]


def test_answers_do_not_alias_the_encoded_image(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    before = encoded.proposals.masks.copy()
    answer = engine.segment(encoded, "the mug")
    answer.mask[:] = True
    answer.box[:] = 0
    answer.timings_ms.clear()
    assert encoded.timings_ms
    with pytest.raises(ValueError, match="read-only"):
        answer.image[:] = 0
    np.testing.assert_array_equal(encoded.proposals.masks, before)


def test_rank_is_sorted_and_begins_with_the_answer(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    answers = engine.rank(encoded, "the mug", top_k=3)
    assert answers[0].index == engine.segment(encoded, "the mug").index
    scores = [answer.score for answer in answers]
    assert scores == sorted(scores, reverse=True)
    assert len(engine.rank(encoded, "the mug", top_k=10_000)) == len(encoded.proposals)
    with pytest.raises(InputError, match="top_k = 0"):
        engine.rank(encoded, "the mug", top_k=0)


def test_path_array_and_encoded_image_agree(
    engine: risengine.Engine, encoded: risengine.EncodedImage, picture: DemoPicture
) -> None:
    text = picture.questions[0].text
    with Image.open(picture.path) as image:
        array = np.asarray(image.convert("RGB"))
    expected = engine.segment(encoded, text)
    for source in (picture.path, array):
        answer = engine.segment(source, text)
        np.testing.assert_array_equal(answer.mask, expected.mask)
        assert answer.score == pytest.approx(expected.score, abs=1e-5)


def test_features_are_of_unit_norm_and_do_not_depend_on_the_batch(
    engine: risengine.Engine, encoded: risengine.EncodedImage
) -> None:
    np.testing.assert_allclose(np.linalg.norm(encoded.features, axis=1), 1, rtol=1e-5)
    alone = engine.encode_image(encoded.image, masks=encoded.proposals.masks[:1])
    np.testing.assert_allclose(alone.features[0], encoded.features[0], atol=1e-5)


def test_masks_beyond_one_call_are_split_with_the_same_result(
    engine: risengine.Engine, encoded: risengine.EncodedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("risengine.proposal_features._MASKED_PIXELS", 2 * encoded.size[0] * encoded.size[1])
    split = engine.encode_image(encoded.image, masks=encoded.proposals.masks)
    np.testing.assert_allclose(split.features, encoded.features, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3, 700)])
def test_extreme_images_give_an_answer_or_none(engine: risengine.Engine, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    assert len(engine.rank(image, "the mug")) == min(5, len(engine.proposals(image)))
    masks = np.ones((1, *size), np.bool_)
    assert np.isfinite(engine.encode_image(image, masks=masks).features).all()


def test_nothing_proposed_is_a_typed_error_or_an_empty_list(engine: risengine.Engine) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    settings = replace(engine.manifest.proposals, pred_iou_thresh=1.0)
    assert len(generate_proposals(engine.sessions, image, settings, engine.manifest.sam_image_size_px)) == 0
    empty = engine.encode_image(image, masks=np.zeros((0, 60, 80), np.bool_))
    assert engine.rank(empty, "the mug") == []
    with pytest.raises(InputError, match="no object was found"):
        engine.segment(empty, "the mug")


def test_an_image_of_another_bundle_is_refused(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    foreign = risengine.EncodedImage(encoded.image, encoded.proposals, encoded.features, "0" * 64, {}, 0.5)
    with pytest.raises(InputError, match="encoded by bundle 000000000000"):
        engine.segment(foreign, "the mug")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "blank"),
        (" \t\n ", "blank"),
        ("mug " * 2500, "10000 characters; at most 1000"),
        ("the mug\x00", r"control character U\+0000"),
        ("the \x1b[31mmug", r"control character U\+001B"),
        ("the mug \ud800", r"U\+D800"),
        (" ".join(["mug"] * 76), "78 CLIP tokens"),
    ],
)
def test_texts_that_are_refused(
    engine: risengine.Engine, encoded: risengine.EncodedImage, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        engine.segment(encoded, text)


def test_a_text_that_is_none(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    with pytest.raises(InputError, match="text is a NoneType"):
        engine.segment(encoded, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["la taza roja", "красная кружка", "赤いマグカップ", "the 🍎", "!", "the  red\tmug", "THE RED MUG"]
)
def test_texts_in_other_scripts_give_some_answer(
    engine: risengine.Engine, encoded: risengine.EncodedImage, text: str
) -> None:
    assert np.isfinite(engine.segment(encoded, text).score)


def test_a_full_context_is_accepted(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    assert np.isfinite(engine.segment(encoded, " ".join(["mug"] * 75)).score)


def test_texts_are_encoded_as_few_at_a_time_as_the_engine_takes(engine: risengine.Engine) -> None:
    session, calls = engine.sessions["text_encoder"], []

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(len(feeds["tokens"]))
        return session.run(feeds)

    narrow: Any = SimpleNamespace(run=run, largest={"T": 2}.get)
    texts = ["a", "b", "c", "a", "d", "e"]
    features = TextEncoder(narrow, open_bundle("tabletop").tokenizer_path, engine.manifest.text.context_length).encode(
        texts
    )
    assert calls == [2, 2, 1]
    np.testing.assert_allclose(features, engine._text.encode(texts), atol=1e-6)


def test_case_and_white_space_do_not_matter(engine: risengine.Engine) -> None:
    method = engine.manifest.method
    plain = parse_expression("the red mug", method)
    odd = parse_expression("  The RED\n mug ", method)
    assert (odd.sentence, odd.phrase) == (plain.sentence, plain.phrase)


def test_one_engine_serves_many_threads(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    texts = [f"the {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("mug", "box", "ball")]
    expected = [engine.segment(encoded, text).index for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: engine.segment(encoded, text).index, texts)) == expected


def test_a_closed_engine_says_so(picture: DemoPicture) -> None:
    with risengine.load() as engine:
        pass
    with pytest.raises(BackendError, match="closed"):
        engine.segment(picture.path, "the mug")


def test_a_bundle_for_another_device_is_refused(bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    (bundle_copy / "manifest.json").write_text(json.dumps({**manifest, "target": "tensorrt"}))
    with pytest.raises(BundleError, match="built for target 'tensorrt', which runs on tensorrt; the device is 'cpu'"):
        risengine.load(bundle_copy, risengine.RuntimeConfig("cpu"))
    with pytest.raises(BackendError, match="device 'tensorrt' cannot be used: tensorrt is missing"):
        risengine.load(bundle_copy)


def test_runtime_settings_are_checked() -> None:
    with pytest.raises(InputError, match="threads = -1"):
        risengine.RuntimeConfig(threads=-1)


def test_box_and_point_prompts_find_what_they_point_at(
    engine: risengine.Engine, encoded: risengine.EncodedImage
) -> None:
    boxes = encoded.proposals.boxes[:5]
    from_boxes = engine.proposals(encoded.image, boxes=boxes)
    assert len(from_boxes) == 15
    assert (np.diff(from_boxes.scores.reshape(5, 3), axis=1) <= 0).all()
    best = from_boxes[::3]
    meet = np.minimum(best.boxes[:, 2:], boxes[:, 2:]) - np.maximum(best.boxes[:, :2], boxes[:, :2])
    assert (meet > 0).all()
    points = (boxes[:, :2] + boxes[:, 2:]) / 2
    told: list[tuple[int, int]] = []
    at_points = engine.proposals(encoded.image, lambda *step: told.append(step), points=points)
    assert len(at_points) == 15
    assert told[-1] == (5, 5)
    labels = np.array([[1, 0]] * 5)
    clicks = engine.proposals(encoded.image, points=np.stack([points, points[::-1]], axis=1), labels=labels)
    assert len(clicks) == 15
    assert clicks != at_points
    with pytest.raises(InputError, match=r"boxes \[0\] have no area"):
        engine.proposals(encoded.image, boxes=[[5, 5, 5, 9]])


def test_prompted_masks_can_be_asked_for(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    prompted = engine.proposals(encoded.image, boxes=encoded.proposals.boxes[:4])[::3]
    again = engine.encode_image(encoded.image, masks=prompted)
    assert again.proposals == prompted
    records = [record["segmentation"] for record in prompted.to_coco()]
    from_records = engine.encode_image(encoded.image, masks=records)
    np.testing.assert_allclose(from_records.features, again.features, atol=1e-5)
    assert engine.segment(again, "the mug").index < 4
