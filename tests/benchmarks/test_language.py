"""Strategies side by side, hand-written expressions, and objects that are not there."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import risengine
from risbench.data.refer import load_refer, tabletop_root
from risbench.data.spoken import load_spoken
from risbench.quality.absence import absent_phrases, area_under_curve, calibration_error
from risbench.quality.language import LanguageConfig, measure_language
from risbench.reports.compare import Thresholds, compare_reports
from risbench.reports.language_tables import format_language, markdown_language
from risengine.errors import InputError


def test_the_hand_written_set_is_of_the_held_out_scenes() -> None:
    spoken = load_spoken(tabletop_root())
    dataset = load_refer(tabletop_root(), "tabletop")
    assert len(spoken) >= 150
    assert len({item.text for item in spoken}) > 0.9 * len(spoken)
    held_out = {ref.image_id for ref in dataset.split("scenes")}
    generated = {sentence.raw for ref in dataset.split("scenes") for sentence in ref.sentences}
    for item in spoken:
        assert item.image_id in held_out
        assert dataset.annotations[item.ann_id].image_id == item.image_id
    assert sum(item.text in generated for item in spoken) < 0.05 * len(spoken)
    assert min(Counter(item.kind for item in spoken).values()) >= 5


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"spoken\.json cannot be read .*Restore the file"):
        load_spoken(tmp_path)


def test_absent_objects_are_in_no_annotation() -> None:
    root = tabletop_root()
    instances = json.loads((root / "tabletop" / "instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in instances["categories"]}
    phrases = absent_phrases(root, seed=0, count=6)
    for item in instances["annotations"]:
        there = f"the {item['attributes']['colour']} {names[item['category_id']]}"
        assert there not in phrases[item["image_id"]]
    assert all(len(set(some)) == 6 for some in phrases.values())
    assert phrases == absent_phrases(root, seed=0, count=6)


@pytest.mark.parametrize(
    ("positive", "negative", "area"),
    [([3, 4], [1, 2], 1.0), ([1, 2], [3, 4], 0.0), ([1, 1], [1, 1], 0.5), ([2, 5], [1, 2, 3], (1.5 + 3) / 6)],
)
def test_area_under_the_curve(positive: list[float], negative: list[float], area: float) -> None:
    assert area_under_curve(np.array(positive, float), np.array(negative, float)) == pytest.approx(area)


def test_calibration_error_by_hand() -> None:
    confidence, right = np.array([0.15, 0.15, 0.95, 1.0]), np.array([False, True, True, True])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.35 + 0.5 * 0.025)


def test_one_image_is_measured(tmp_path: Path) -> None:
    config = LanguageConfig(tabletop_root(), splits=("scenes",), limit=1)
    with risengine.load("tabletop") as engine, pytest.MonkeyPatch.context() as patch:
        few = load_spoken(config.refer)[:6]
        patch.setattr("risbench.quality.language.load_spoken", lambda root: few)
        report = measure_language(engine, config)
    assert report.count["spoken"]["all"] == 6
    assert report.right["scenes"]["all"]["spatial"] >= report.right["scenes"]["all"]["global_local"]
    assert len(report.failures) == round(6 * (1 - report.right["spoken"]["all"]["spatial"]))
    found = report.rejection["scenes"]
    assert found.present == report.count["scenes"]["all"]
    assert found.absent == 6
    assert "| spoken | all | 6 |" in markdown_language(report)
    assert "ROC AUC" in format_language(report)
    uncalibrated = replace(report, rejection={})
    assert "on own proposals: not measured: the bundle has no calibration" in markdown_language(uncalibrated)
    assert "not measured" in format_language(uncalibrated)
    worse = replace(report, right={"scenes": {"all": dict.fromkeys(report.right["scenes"]["all"], 0.0)}})
    changes = compare_reports(report, worse, Thresholds())
    assert any(change.regressed for change in changes)


def test_without_a_calibration_no_confidence_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("risbench.quality.language.calibration_of", lambda bundle_id: None)
    monkeypatch.setattr("risbench.quality.language.load_spoken", lambda root: [])
    with risengine.load("tabletop") as engine:
        report = measure_language(engine, LanguageConfig(tabletop_root(), splits=("scenes",), limit=1))
    assert not report.rejection
    assert report.count["scenes"]["all"] > 0
