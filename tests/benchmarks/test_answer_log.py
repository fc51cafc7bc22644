"""Runs that go on where they were cut short, variants of the method, and the picture of the extremes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_accuracy import FakeEngine, root  # noqa: F401 (a fixture)

import risengine
from risbench import cli
from risbench.data.refer import tabletop_root
from risbench.quality.ablations import ABLATIONS, opened_variants
from risbench.quality.accuracy import AccuracyConfig, AccuracyReport, measure_accuracy
from risbench.quality.answer_log import AnswerLog, SentenceRecord
from risbench.quality.answers import Answer
from risbench.quality.extremes import pick_extremes
from risbench.quality.metrics import Overlap
from risbench.quality.published import PUBLISHED, published_beside
from risbench.reports.tables import format_accuracy, markdown_accuracy
from risengine.errors import InputError

CONDITIONS = {"bundle": "fake"}


def measured(folder: Path, log: AnswerLog) -> tuple[AccuracyReport, int]:
    """Resumes, measures, and tells how often an image was encoded."""
    engine: Any = FakeEngine()
    log.resume()
    report = measure_accuracy(engine, AccuracyConfig(folder, "tabletop", ("scenes",)), log)
    return dataclasses.replace(report, environment=None), engine.encoded_images  # type: ignore[arg-type]


def test_every_sentence_is_a_line(root: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "answers.jsonl"
    measured(root, AnswerLog(path, CONDITIONS))
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header == CONDITIONS
    sentences = [line for line in lines if "sent_id" in line]
    assert [line["sent_id"] for line in sentences] == [1, 2, 3, 4, 5]
    third = sentences[2]
    assert (third["split"], third["image_id"], third["ref_id"], third["ann_id"]) == ("scenes", 1, 2, 2)
    assert (third["text"], third["iou"], third["ablation"]) == ("pick 1 object 2", 0.5, None)
    assert third["answer"]["overlap"] == {"intersection": 20, "union": 40}
    assert third["answer"]["kind"] == "relation"
    finished = [line for line in lines if "finished_image" in line]
    assert [(line["finished_image"], line["proposals"], len(line["point_ious"])) for line in finished] == [
        (1, 3, 3),
        (2, 0, 3),
    ]


@pytest.mark.parametrize("cut", [0, 1, 700, 1500, -2, -200], ids=lambda cut: f"cut at {cut}")
def test_an_interrupted_run_goes_on(root: Path, tmp_path: Path, cut: int) -> None:  # noqa: F811
    path = tmp_path / "answers.jsonl"
    whole, encodings = measured(root, AnswerLog(path, CONDITIONS))
    assert encodings == 4
    complete = path.read_bytes()
    head = complete.index(b"\n") + 1
    path.write_bytes(complete[: max(cut, head) if cut > 0 else cut] if cut else b"")
    again, encodings = measured(root, AnswerLog(path, CONDITIONS))
    assert again == whole
    assert path.read_bytes() == complete
    if cut < 0:
        assert encodings == 2  # the first image was complete
    assert measured(root, AnswerLog(path, CONDITIONS)) == (whole, 0)


def test_answers_of_another_run_are_refused(root: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "answers.jsonl"
    measured(root, AnswerLog(path, CONDITIONS))
    before = path.read_bytes()
    with pytest.raises(InputError, match="is of another bundle, data set or setting"):
        AnswerLog(path, {"bundle": "other"}).resume()
    assert path.read_bytes() == before


def record(sent_id: int, ref_id: int, iou: float, oracle: float = 1.0, **changes: Any) -> SentenceRecord:
    values = {"right_object": True, "right_phrase": None, "refused": False, "random_proposal": 0.0}
    answer = Answer(
        kind=None,
        overlap=Overlap(round(100 * iou), 100),
        oracle=Overlap(round(100 * oracle), 100),
        random_object=0.0,
        fitting_proposal=None,
        fitting_object=None,
        **{**values, **changes.pop("answer", {})},
    )
    return SentenceRecord("val", 1, ref_id, ref_id, sent_id, "a cup", iou, answer, **changes)


def test_extremes() -> None:
    records = [
        record(1, 1, 0.9),
        record(2, 1, 0.95),
        record(3, 2, 0.8),
        record(4, 3, 0.0, oracle=0.3),
        record(5, 4, 0.0, oracle=0.9),
        record(6, 5, 0.2),
        record(7, 6, 1.0, ablation="global"),
        record(8, 7, 0.0, answer={"refused": True}),
    ]
    best, worst = pick_extremes(records, 2)
    assert [found.sent_id for found in best] == [2, 3]  # one about an object
    assert [found.sent_id for found in worst] == [5, 4]  # the well-proposed one first
    assert pick_extremes(records[:1], 3) == (records[:1], [])


@pytest.fixture(scope="module")
def ablated() -> AccuracyReport:
    config = AccuracyConfig(tabletop_root(), "tabletop", ("scenes",), limit=1)
    with (
        risengine.load("tabletop", points_per_side=8) as engine,
        opened_variants("tabletop", list(ABLATIONS)) as variants,
    ):
        return measure_accuracy(engine, config, variants=variants)


def test_variants_are_the_method_with_one_part_alone(ablated: AccuracyReport) -> None:
    scenes = ablated.splits["scenes"]
    assert set(scenes.ablations) == {"global", "local", "sentence", "phrase"}
    counts = {figures["all"].answers.count for figures in scenes.ablations.values()}
    assert counts == {scenes.kinds["all"].answers.count}
    for figures in scenes.ablations.values():
        assert figures["all"].oracle == scenes.kinds["all"].oracle  # they choose among the same proposals
    ious = {name: figures["all"].answers.miou for name, figures in scenes.ablations.items()}
    assert ious["global"] != ious["local"]
    with opened_variants("tabletop", ["global", "phrase"]) as variants:
        weights = {name: (v.method.global_weight, v.method.sentence_weight) for name, v in variants.items()}
    own = ablated.bundle.method
    assert weights == {"global": (1.0, own.sentence_weight), "phrase": (own.global_weight, 0.0)}


def test_variants_stand_in_the_tables(ablated: AccuracyReport) -> None:
    for text in (markdown_accuracy(ablated), format_accuracy(ablated)):
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert [row.split("|")[1].strip() for row in rows[-5:]] == [
            "whole method",
            "global only",
            "local only",
            "sentence only",
            "phrase only",
        ]
    local = ablated.splits["scenes"].ablations["local"]["all"]
    assert f"| local only | {100 * local.answers.miou:.1f}, {100 * local.right_object:.1f} |" in markdown_accuracy(
        ablated
    )


def test_contact_sheet_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, answers = tmp_path / "sheet.png", tmp_path / "answers.jsonl"
    arguments = ["accuracy", "tabletop", "--split", "scenes", "--limit", "1", "--answers", str(answers)]
    assert cli.main([*arguments, "--contact-sheet", str(sheet)]) == 0
    with Image.open(sheet) as picture:
        assert picture.width == 4 * 480 + 5 * 8
        assert picture.height > 300
    lines = answers.read_bytes()
    capsys.readouterr()
    assert cli.main([*arguments, "--ablation", "global"]) == 2
    assert "is of another bundle, data set or setting" in capsys.readouterr().err
    assert answers.read_bytes() == lines
    assert cli.main(["accuracy", "tabletop", "--contact-sheet", str(tmp_path / "sheet.txt")]) == 2


def test_published_figures() -> None:
    rows = published_beside("refcocog", "umd", ("val", "test"))
    assert ("HybridGL", "mIoU", ["51.25", "51.59"]) in [(r.method, r.metric, cells) for r, cells in rows]
    assert len(rows) == len(PUBLISHED) == 6
    assert published_beside("refcocog", "google", ("val",)) == []
    assert published_beside("refcoco", "unc", ("train",)) == []
    (first, cells) = published_beside("refcoco+", "unc", ("testB", "train"))[1]
    assert (first.method, first.metric, cells) == (PUBLISHED[0].method, "mIoU", ["27.84", "-"])


def test_published_figures_stand_beside_a_result(ablated: AccuracyReport) -> None:
    config = dataclasses.replace(ablated.config, dataset="refcoco", splits=("val",))
    report = dataclasses.replace(ablated, config=config, splits={"val": ablated.splits["scenes"]})
    text = markdown_accuracy(report)
    assert "| CaR, published | mIoU | 33.57 |" in text
    assert f"| **this run** | oIoU | {100 * report.splits['val'].kinds['all'].answers.oiou:.1f} |" in text
    assert "published" not in markdown_accuracy(ablated)
