"""The agreement report on two tiny scenes with hand-computed figures; the engines are fakes that answer as told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_samples import CLEAN
from refer_data import rectangle, write_refer

import risengine
from risbench import cli
from risbench.quality.accuracy import AccuracyConfig
from risbench.quality.agreement import AgreementReport, measure_agreement
from risbench.reports.tables import format_agreement, markdown_agreement
from risengine.errors import InputError
from risengine.method import ProposalSettings
from risengine.types import EncodedImage, Proposals, Segmentation

SIZE = (10, 20)


def _columns(*spans: tuple[int, int]) -> np.ndarray:
    """Masks of all rows from one column to another."""
    masks = np.zeros((len(spans), *SIZE), np.bool_)
    for mask, (left, right) in zip(masks, spans, strict=True):
        mask[:, left:right] = True
    return masks


class FakeEngine:
    """Proposes the given masks in ``one.png`` and none in ``two.png``; chooses by the word of the text."""

    providers = ("FakeProvider",)
    strategy = "global_local"
    method = CLEAN
    proposal_settings = ProposalSettings()

    def __init__(
        self, name: str, masks: np.ndarray, features: np.ndarray, choice: Mapping[str, int], proposal_ms: float = 8.0
    ) -> None:
        self.manifest = SimpleNamespace(name=name, precision="fp32", target="cpu")
        self.bundle_id = name * 12
        self.masks, self.features, self.choice, self.proposal_ms = masks, features, choice, proposal_ms

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def encode_image(self, image: Any, masks: Proposals | None = None) -> EncodedImage:
        if masks is None:
            masks = Proposals.from_masks(self.masks if image.name == "one.png" else self.masks[:0])
        pixels = np.zeros((*SIZE, 3), np.uint8)
        return EncodedImage(
            pixels, masks, self.features[: len(masks)], self.bundle_id, {"proposals": self.proposal_ms}, 0.5
        )

    def rank(self, image: EncodedImage, text: str, top_k: int) -> list[Segmentation]:
        if "?" in text:
            raise InputError("text is unreadable")
        if not len(image.proposals):
            return []
        index = self.choice[text]
        box = image.proposals.boxes[index]
        return [Segmentation(image.proposals.masks[index], box, 0.5, index, text, text, {}, image.image)]


# The second engine proposes the first mask a column narrower (IoU 0.9) and the second two columns narrower (IoU 0.8);
# it confuses them where the text is "third". It sees the second mask's feature at an angle whose cosine is 0.6.
A = FakeEngine(
    "a", _columns((0, 10), (10, 20)), np.array([[1, 0], [0, 1]], np.float32), {"first": 0, "second": 1, "third": 0}
)
B = FakeEngine(
    "b",
    _columns((0, 9), (10, 18)),
    np.array([[2, 0], [0.8, 0.6]], np.float32),
    {"first": 0, "second": 1, "third": 1},
    proposal_ms=2.5,
)


@pytest.fixture
def config(tmp_path: Path) -> AccuracyConfig:
    texts = {1: ["first", "second", "third", "?"], 2: ["first"]}
    refs = []
    for image_id, words in texts.items():
        sentences = [{"sent_id": i, "raw": word, "sent": word, "tokens": [word]} for i, word in enumerate(words)]
        ids = {"ref_id": image_id, "ann_id": image_id, "image_id": image_id, "category_id": 1}
        refs.append({**ids, "split": "scenes", "sent_ids": list(range(len(words))), "sentences": sentences})
    annotations = [{"id": i, "image_id": i, "category_id": 1, "segmentation": [rectangle(0, 0, 10, 10)]} for i in texts]
    images = [{"id": i + 1, "file_name": f"{n}.png", "height": 10, "width": 20} for i, n in enumerate(["one", "two"])]
    write_refer(
        tmp_path, "tabletop", "tabletop", refs, {"images": images, "annotations": annotations}, "images/tabletop"
    )
    return AccuracyConfig(tmp_path, "tabletop", ("scenes",))


def _measure(a: FakeEngine, b: FakeEngine, config: AccuracyConfig) -> AgreementReport:
    engines: Any = (a, b)
    return measure_agreement(*engines, config)


def test_figures_by_hand(config: AccuracyConfig) -> None:
    report = _measure(A, B, config)
    result = report.splits["scenes"]
    assert (result.images, result.expressions, result.refused) == (2, 4, 1)
    assert (result.proposals_a, result.proposals_b) == (1, 1)
    assert result.recall == pytest.approx(1 / 2)  # of A's two masks, the first
    assert (result.proposal_ms_a, result.proposal_ms_b) == (8, 2.5)
    # first: IoU 0.9, the same; second: 0.8; third: disjoint; in the empty scene both have nothing to say, the same
    assert result.end_to_end.same_mask == pytest.approx(2 / 4)
    assert result.end_to_end.miou_a == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert result.end_to_end.miou_b == pytest.approx((0.9 + 0 + 0 + 0) / 4)
    # with A's masks only the third differs
    assert result.same_proposals.same_mask == pytest.approx(3 / 4)
    assert result.same_proposals.miou_a == result.end_to_end.miou_a
    assert result.same_proposals.miou_b == pytest.approx((1 + 0 + 0 + 0) / 4)
    assert result.lowest_cosine == pytest.approx(0.6)
    assert result.mean_cosine == pytest.approx(0.8)
    assert report.splits["all"] == result


def test_one_without_an_answer_disagrees(config: AccuracyConfig) -> None:
    blind = FakeEngine("b", _columns(), B.features, B.choice)
    result = _measure(A, blind, config).splits["all"]
    assert result.end_to_end.same_mask == pytest.approx(1 / 4)
    assert (result.end_to_end.miou_b, result.proposals_b, result.recall) == (0, 0, 0)


def test_a_bundle_agrees_with_itself(config: AccuracyConfig) -> None:
    result = _measure(A, A, config).splits["all"]
    assert (result.end_to_end.same_mask, result.same_proposals.same_mask, result.recall) == (1, 1, 1)
    assert result.lowest_cosine == 1


def test_where_nothing_is_proposed_there_is_no_recall(config: AccuracyConfig) -> None:
    blind = FakeEngine("a", _columns(), A.features, A.choice)
    assert _measure(blind, B, config).splits["all"].recall is None


def test_nothing_to_ask_is_refused(config: AccuracyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("text is unreadable")

    monkeypatch.setattr(FakeEngine, "rank", refuse)
    with pytest.raises(InputError, match="no expression of tabletop could be asked"):
        _measure(A, B, config)


def test_command_line(
    config: AccuracyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []

    def load(bundle: str, runtime: risengine.RuntimeConfig, **overrides: object) -> FakeEngine:
        loaded.append((bundle, runtime.threads, overrides))
        return {"a": A, "b": B}[bundle]

    monkeypatch.setattr(risengine, "load", load)
    out = tmp_path / "report.json"
    arguments = ["agreement", "a", "b", "--refer", str(config.refer), "--split", "scenes", "--limit", "1"]
    assert cli.main([*arguments, "--json", str(out), "--threads", "1", "--search", "turbo"]) == 0
    assert loaded == [("a", 1, {}), ("b", 1, {"search": "turbo"})]
    shown = capsys.readouterr()
    assert "same=33.3%" in shown.err
    report = json.loads(out.read_text())
    assert (report["schema_version"], report["same_mask_iou"], report["threads"]) == (2, 0.9, 1)
    assert (report["a"]["name"], report["b"]["name"], report["config"]["limit"]) == ("a", "b", 1)
    assert report["environment"]["packages"]["numpy"] == np.__version__
    assert report["splits"]["all"]["end_to_end"]["same_mask"] == pytest.approx(1 / 3)


def test_report_for_the_terminal(config: AccuracyConfig) -> None:
    lines = format_agreement(_measure(A, B, config)).splitlines()
    assert "A  a (fp32, aaaaaaaaaaaa), exact search, FakeProvider" in lines
    own, shared = (line.split("proposals")[1].split() for line in lines if line.startswith("all, "))
    assert own == ["2", "4", "1", "50.0", "50.0", "22.5", "-27.50", "-", "-"]
    assert shared == ["2", "4", "1", "75.0", "50.0", "25.0", "-25.00", "0.600000", "0.800000"]
    proposed = next(line.split() for line in lines if line.startswith("all  "))
    assert proposed == ["all", "2", "1.0", "1.0", "50.0", "8.0", "2.5", "3.20"]


def test_report_for_the_readme(config: AccuracyConfig) -> None:
    report = _measure(A, B, config)
    header, _rule, *rows = markdown_agreement(report).split("\n\n")[0].splitlines()
    names = [cell.strip() for cell in header.strip("|").split("|")]
    cells = dict(zip(names, (cell.strip() for cell in rows[-1].strip("|").split("|")), strict=True))
    result = report.splits["all"]
    assert cells["set"] == "all"
    assert cells["same answer"] == f"{100 * result.end_to_end.same_mask:.1f}"
    assert cells["same answer, A's masks"] == f"{100 * result.same_proposals.same_mask:.1f}"
    assert cells["mIoU B"] == f"{100 * result.end_to_end.miou_b:.1f}"
    assert cells["proposals, A / B"] == f"{result.proposal_ms_a / result.proposal_ms_b:.2f} x"
    assert "an IoU of at least 0.9" in markdown_agreement(report)
