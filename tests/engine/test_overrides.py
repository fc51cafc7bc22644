"""What may be set when a bundle is loaded: the weights and proposal settings, and nothing that the graphs fix."""

from __future__ import annotations

import json

import numpy as np
import pytest

import risengine
from risengine import InputError
from risengine.bundle import open_bundle
from risengine.cli import main
from risengine.demo import DemoPicture
from risengine.method import ProposalSettings
from risengine.overrides import apply_overrides

TEXT = "the red mug left of the blue box"


def describe(engine: risengine.Engine, encoded: risengine.EncodedImage, name: str) -> np.ndarray:
    """Unit-norm rows of an output of ``proposal_encoder`` for the masks of an encoded image."""
    feeds = {"image": encoded.image, "masks": encoded.proposals.masks, "global_weight": np.array(0.5, np.float32)}
    features = engine.sessions["proposal_encoder"].run(feeds)[name]
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize(("global_weight", "name"), [(0, "local_features"), (1.0, "global_features")])
def test_global_weight_mixes_the_features(
    engine: risengine.Engine, encoded: risengine.EncodedImage, global_weight: float, name: str
) -> None:
    with risengine.load("tabletop", global_weight=global_weight) as other:
        assert other.method.global_weight == global_weight
        assert other.manifest == engine.manifest  # the bundle's facts stay as they are
        found = other.encode_image(encoded.image, masks=encoded.proposals.masks)
    np.testing.assert_allclose(found.features, describe(engine, encoded, name), atol=1e-5)
    assert np.abs(found.features - encoded.features).max() > 0.01


def test_sentence_weight_mixes_the_text(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    with risengine.load("tabletop", sentence_weight=0.0) as other:
        answer = other.segment(encoded, TEXT, "global_local")  # made under the same global weight: usable
        assert answer.phrase == "the red mug"
        phrase_alone = engine.segment(encoded, "the red mug")
        assert answer.index == phrase_alone.index
        assert answer.score == pytest.approx(phrase_alone.score, abs=1e-5)
    assert abs(engine.segment(encoded, TEXT, "global_local").score - answer.score) > 1e-3


def test_images_encoded_under_another_global_weight_are_refused(
    engine: risengine.Engine, encoded: risengine.EncodedImage
) -> None:
    with risengine.load("tabletop", global_weight=0.85) as other:
        with pytest.raises(InputError, match=r"with global_weight 0\.5, this engine mixes with 0\.85.*masks=encoded"):
            other.segment(encoded, TEXT)
        again = other.encode_image(encoded.image, masks=encoded.proposals.masks)
        assert np.isfinite(other.segment(again, TEXT).score)


def test_proposal_settings(picture: DemoPicture, encoded: risengine.EncodedImage) -> None:
    with risengine.load("tabletop", points_per_side=2) as engine:
        bundled = engine.manifest.proposals
        assert engine.proposal_settings.points_per_side == 2
        assert engine.proposal_settings.pred_iou_thresh == bundled.pred_iou_thresh
        prompts: list[int] = []
        proposals = engine.proposals(picture.path, lambda done, total: prompts.append(total))
    assert set(prompts) == {4}
    assert len(proposals) < len(encoded.proposals)


def test_values_may_be_numpys() -> None:
    manifest = open_bundle("tabletop").manifest
    overrides = {"points_per_side": np.int64(3), "global_weight": np.float64(0.25)}
    method, proposals = apply_overrides(manifest, overrides)
    assert (proposals.points_per_side, method.global_weight) == (3, 0.25)
    assert type(proposals.points_per_side) is int
    grid = np.random.default_rng(0).random((4, 2))
    _, proposals = apply_overrides(manifest, {"point_grids": [grid]})  # the form that segment-anything takes
    assert proposals.point_grids == (tuple(map(tuple, grid.tolist())),)
    assert apply_overrides(manifest, {}) == (manifest.method, manifest.proposals)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("masked_blocks", 2, "masked_blocks is fixed when the bundle is built.*Build another bundle"),
        ("mask_pooling", "point", "mask_pooling is fixed when the bundle is built"),
        ("preset", "reference", "preset is fixed when the bundle is built"),
        ("point_per_side", 8, "no setting of an engine. Did you mean points_per_side?"),
        ("colour", 1, "colour is no setting of an engine. Use one of global_weight, sentence_weight"),
        ("global_weight", 1.5, r"global_weight = 1.5; expected a share in \[0, 1\]"),
        ("sentence_weight", float("nan"), "sentence_weight = nan; expected a share"),
        ("global_weight", "much", "global_weight: expected `float`, got `str`"),
        ("points_per_side", 8.5, "points_per_side: expected `int`, got `float`"),
        ("points_per_side", 0, "points_per_side = 0; expected at least 1"),
        ("point_grids", "0.5", "point_grids: expected `array | null`, got `str`"),
        ("point_grids", [np.zeros((3, 1))], r"point_grids.*: expected `array` of length 2, got 1"),
        ("point_grids", [{0.5, 0.25}], "point_grids"),
        ("point_grids", np.array([[["a", "b"]]]), r"point_grids.*: expected `float`, got `str`"),
        ("pred_iou_thresh", None, "pred_iou_thresh: expected `float`, got `null`"),
        ("search", "fast", "search: invalid enum value .fast."),
    ],
)
def test_what_cannot_be_set_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        risengine.load("tabletop", **{name: value})  # type: ignore[arg-type]


def test_command_line_takes_them(
    engine: risengine.Engine,
    encoded: risengine.EncodedImage,
    picture: DemoPicture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--json", "--global-weight", "0", "--sentence-weight", "1"]
    assert main(["segment", str(picture.path), TEXT, *options]) == 0
    score = json.loads(capsys.readouterr().out)["score"]
    with risengine.load("tabletop", global_weight=0, sentence_weight=1) as same:
        assert score == pytest.approx(same.segment(picture.path, TEXT).score, abs=1e-5)
    assert abs(score - engine.segment(encoded, TEXT).score) > 1e-3
    assert main(["proposals", str(picture.path), "--points-per-side", "1"]) == 0
    assert int(capsys.readouterr().out.split()[0]) <= 3
    assert main(["proposals", str(picture.path), "--box-nms-thresh", "7"]) == 2
    assert "box_nms_thresh = 7.0; expected a number in [0, 1]" in capsys.readouterr().err


def test_command_line_offers_what_applies_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for command in ("segment", "rank", "demo", "proposals"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown[command] = " ".join(capsys.readouterr().out.split())
        assert (
            "--points-per-side INT Points of the prompt grid along each side (default: the bundle's)" in shown[command]
        )
    assert "--sentence-weight FLOAT r, the share of the whole sentence in the text feature" in shown["rank"]
    assert "--global-weight" not in shown["proposals"]
    assert "masked-blocks" not in shown["segment"]


def test_settings_of_the_bundle_are_the_defaults(engine: risengine.Engine) -> None:
    assert engine.method == engine.manifest.method
    assert engine.proposal_settings == engine.manifest.proposals != ProposalSettings()
