"""The accuracy report on two tiny scenes with hand-computed figures; the engine is a fake that answers as told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_samples import CLEAN
from refer_data import python2_pickle, rectangle, write_refer

import risengine
from risbench import cli
from risbench.data.plain_pickle import read_plain_pickle
from risbench.quality.accuracy import AccuracyConfig, measure_accuracy
from risbench.quality.baselines import guess_fitting_object, guess_fitting_proposal, guess_proposal
from risbench.quality.metrics import mask_overlaps
from risbench.reports.tables import format_accuracy, format_table
from risengine.errors import InputError
from risengine.method import ProposalSettings
from risengine.types import EncodedImage, Proposals, Segmentation

SIZE = (10, 20)


def _boxes(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(boxes), *SIZE), np.bool_)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


OBJECTS = [(0, 0, 4, 5), (10, 0, 14, 5), (10, 6, 20, 8)]
"""Three objects of 20 pixels each, alike in both scenes."""

PROPOSALS = {
    "one.png": _boxes(
        (0, 0, 4, 5), (10, 0, 14, 10), (9, 9, 10, 10)
    ),  # the first object; the second and as much again; table
    "two.png": _boxes(),
}


class FakeEngine:
    """Says "pick i" -> proposal i; "object i" -> mask i among the ground truth; refuses "?"."""

    bundle_id = "0123456789abcdef"
    providers = ("FakeProvider",)
    strategy = "global_local"

    def __init__(self) -> None:
        self.manifest = SimpleNamespace(
            name="fake",
            precision="fp32",
            target="cpu",
            sam_image_size_px=32,
        )
        self.method, self.proposal_settings = CLEAN, ProposalSettings()
        perfect = np.full((3, 3, 8, 8), -1.0, np.float32)
        perfect[:, 1] = 1.0  # the second mask covers the image
        self.sessions = {
            "image_encoder": SimpleNamespace(run=lambda feeds: {"image_embedding": np.zeros((1, 8, 2, 2), np.float32)}),
            "image_projector": SimpleNamespace(run=lambda feeds: {}),
            "point_decoder": SimpleNamespace(
                on_gpu=False,
                run=lambda feeds: {
                    "iou_predictions": np.ones((len(feeds["points"]), 3), np.float32),
                    "mask_tokens": np.zeros((len(feeds["points"]), 3, 1), np.float32),
                    "image_features": np.zeros((len(feeds["points"]), 4, 8), np.float32),
                },
            ),
            "mask_decoder": SimpleNamespace(run=lambda feeds: {"logits": perfect.reshape(9, 8, 8)}, on_gpu=False),
        }
        self.encoded_images = 0

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def encode_image(self, image: Any, masks: np.ndarray | None = None) -> EncodedImage:
        self.encoded_images += 1
        found = PROPOSALS[image.name] if masks is None else masks
        proposals = Proposals.from_masks(found)
        source = "sam" if masks is None else "truth"
        return EncodedImage(
            np.zeros((*SIZE, 3), np.uint8), proposals, np.zeros((len(found), 2), np.float32), source, {}, 0.95
        )

    def rank(self, image: EncodedImage, text: str, top_k: int) -> list[Segmentation]:
        if "?" in text:
            raise InputError("text is unreadable")
        if not len(image.proposals):
            return []
        _, pick, _, truth = text.split()
        index = int(pick) if image.bundle_id == "sam" else int(truth)
        masks, boxes = image.proposals.masks, image.proposals.boxes
        return [Segmentation(masks[index], boxes[index], 0.5, index, text, "the mug", {}, image.image)]


def _sentence(number: int, raw: str, kind: str, fits: list[int], phrase: str = "The mug") -> dict[str, Any]:
    common = {"sent_id": number, "raw": raw, "sent": raw, "tokens": raw.split()}
    return {**common, "kind": kind, "phrase": phrase, "fits": fits}


def _ref(number: int, ann_id: int, image_id: int, sentences: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ref_id": number,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 1,
        "split": "scenes",
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
        "file_name": "misleading.jpg",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    refs = [
        _ref(
            1,
            1,
            1,
            [_sentence(1, "pick 0 object 0", "attribute", [1]), _sentence(2, "pick 1 object 0", "place", [1, 2])],
        ),
        _ref(
            2,
            2,
            1,
            [_sentence(3, "pick 1 object 2", "relation", [1, 2, 3], "the cup"), _sentence(4, "?", "place", [2])],
        ),
        _ref(3, 6, 2, [_sentence(5, "pick 0 object 2", "attribute", [6])]),
    ]
    annotations = [
        {"id": i + 1, "image_id": i // 3 + 1, "category_id": 1, "segmentation": [rectangle(*OBJECTS[i % 3])]}
        for i in range(6)
    ]
    images = [{"id": i + 1, "file_name": f"{n}.png", "height": 10, "width": 20} for i, n in enumerate(["one", "two"])]
    write_refer(
        tmp_path, "tabletop", "tabletop", refs, {"images": images, "annotations": annotations}, "images/tabletop"
    )
    return tmp_path


def _measure(root: Path, **changes: Any) -> Any:
    engine: Any = FakeEngine()
    return measure_accuracy(engine, AccuracyConfig(root, "tabletop", ("scenes",), **changes)).splits["scenes"]


def test_figures_by_hand(root: Path) -> None:
    result = _measure(root)
    assert (result.images, result.objects, result.proposals) == (2, 6, 1.5)
    assert result.point_iou == pytest.approx(20 / 200)  # the mask that covers all of the image

    everything = result.kinds["all"]
    # sentence 1: right, IoU 1; 2: proposal 1 misses object 1; 3: 20 of 40 pixels; 4: refused; 5: nothing proposed
    overlaps = [(20, 20), (0, 60), (20, 40), (0, 20), (0, 20)]
    assert everything.answers.count == 5
    assert everything.answers.miou == pytest.approx(1.5 / 5)
    assert everything.answers.oiou == pytest.approx(sum(i for i, _ in overlaps) / sum(u for _, u in overlaps))
    assert everything.answers.precision == {"0.5": 0.4, "0.7": 0.2, "0.9": 0.2}
    assert everything.oracle.miou == pytest.approx((1 + 1 + 0.5 + 0.5 + 0) / 5)
    assert everything.right_object == pytest.approx(3 / 5)
    assert everything.right_phrase == pytest.approx(3 / 5)
    assert everything.refused == 1
    assert everything.random_proposal == pytest.approx((1 / 3 + 1 / 3 + 0.5 / 3 + 0.5 / 3 + 0) / 5)
    assert everything.random_object == pytest.approx(1 / 3)
    # best proposals of objects 1, 2, 3: the first, the second, the second; only the first meets object 1
    assert everything.fitting_proposal == pytest.approx((1 + 1 / 2 + (0 + 0.5 + 0.5) / 3 + 0.5 + 0) / 5)
    assert everything.fitting_object == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 + 1) / 5)


def test_kinds_are_apart(root: Path) -> None:
    kinds = _measure(root).kinds
    assert {kind: figures.answers.count for kind, figures in kinds.items()} == {
        "all": 5,
        "attribute": 2,
        "place": 2,
        "relation": 1,
    }
    assert kinds["attribute"].answers.miou == pytest.approx(0.5)
    assert kinds["attribute"].right_object == 1
    assert (kinds["place"].refused, kinds["attribute"].refused) == (1, 0)


def test_each_image_is_encoded_once_for_all_expressions(root: Path) -> None:
    engine: Any = FakeEngine()
    measure_accuracy(engine, AccuracyConfig(root, "tabletop", ("scenes",)))
    assert engine.encoded_images == 4  # two images, with proposals and with the ground truth


def test_limit(root: Path) -> None:
    result = _measure(root, limit=1)
    assert (result.images, result.kinds["all"].answers.count) == (1, 4)
    with pytest.raises(InputError, match="limit = 0; expected at least one"):
        _measure(root, limit=0)


def test_data_without_kinds_and_fits(root: Path) -> None:
    path = root / "tabletop" / "refs(tabletop).p"
    refs = read_plain_pickle(path)
    for ref in refs:
        for sentence in ref["sentences"]:
            del sentence["kind"], sentence["fits"], sentence["phrase"]
    path.write_bytes(python2_pickle(refs))
    kinds = _measure(root).kinds
    assert list(kinds) == ["all"]
    assert (kinds["all"].fitting_proposal, kinds["all"].fitting_object, kinds["all"].right_phrase) == (None, None, None)


def test_image_of_another_size_is_refused(root: Path) -> None:
    path = root / "tabletop" / "instances.json"
    instances = json.loads(path.read_text())
    instances["images"][0]["height"] = 11
    path.write_text(json.dumps(instances))
    with pytest.raises(InputError, match=r"one\.png is \(10, 20\) \(H, W\); instances.json says \(11, 20\)"):
        _measure(root)


def test_baselines() -> None:
    overlaps = mask_overlaps(PROPOSALS["one.png"], _boxes(*OBJECTS))
    assert guess_proposal(overlaps, 1) == pytest.approx(0.5 / 3)
    assert guess_fitting_object([0, 1, 2, 5], 5) == 0.25
    assert guess_fitting_object([0, 1], 2) == 0
    assert guess_fitting_proposal(overlaps, [0], 0) == 1
    assert guess_fitting_proposal(overlaps, [], 0) == 0
    nothing = mask_overlaps(_boxes(), _boxes(*OBJECTS))
    assert guess_proposal(nothing, 0) == 0
    assert guess_fitting_proposal(nothing, [0, 1], 0) == 0


def test_command_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, object]] = []

    def load(bundle: str, runtime: risengine.RuntimeConfig, **overrides: object) -> FakeEngine:
        asked.append(overrides)
        return FakeEngine()

    monkeypatch.setattr(risengine, "load", load)
    out = tmp_path / "report.json"
    arguments = ["accuracy", "fake", "--refer", str(root), "--split", "scenes", "--json", str(out)]
    assert cli.main([*arguments, "--points-per-side", "32", "--search", "turbo"]) == 0
    assert asked == [{"points_per_side": 32, "search": "turbo"}]
    shown = capsys.readouterr()
    assert "tabletop, scenes: 2 images, 6 objects, 1.5 proposals an image" in shown.out
    assert "mIoU=30.0" in shown.err

    report = json.loads(out.read_text())
    assert report["schema_version"] == 1
    assert report["bundle"]["id"] == FakeEngine.bundle_id
    assert report["bundle"]["method"] == json.loads(json.dumps(dataclasses.asdict(CLEAN)))
    assert report["config"]["refer"] == str(root)
    assert report["environment"]["packages"]["numpy"] == np.__version__
    assert report["splits"]["scenes"]["kinds"]["all"]["answers"]["miou"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "refcoco"], "does not come with risbench. Pass REFER's data folder"),
        (["--refer", "/nowhere"], "does not exist; expected REFER's layout"),
        (["--refer", "/nowhere", "--dataset", "refcocog", "--split-by", "unc"], "expected one of umd, google"),
        (["--json", "/nowhere/report.json"], "/nowhere does not exist"),
    ],
)
def test_refusals(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(risengine, "load", lambda bundle, runtime, **overrides: FakeEngine())
    assert cli.main(["accuracy", "fake", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_unknown_bundle_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["accuracy", str(root / "none"), "--refer", str(root)]) == 2
    assert "no bundle at" in capsys.readouterr().err


def test_table_columns_are_aligned() -> None:
    table = format_table(["kind", "n", "mIoU"], [["all", "120", "61.0"], ["attribute", "9", "-"]])
    assert table.splitlines() == [
        "kind         n  mIoU",
        "---------  ---  ----",
        "all        120  61.0",
        "attribute    9     -",
    ]


def test_report_for_the_terminal(root: Path) -> None:
    engine: Any = FakeEngine()
    text = format_accuracy(measure_accuracy(engine, AccuracyConfig(root, "tabletop", ("scenes",))))
    row = next(line.split() for line in text.splitlines() if line.startswith("attribute"))
    assert row == ["attribute", "2", "50.0", "50.0", "50.0", "50.0", "50.0", "50.0", "16.7", "50.0"]
