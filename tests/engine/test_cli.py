from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from risengine.cli import main
from risengine.demo import DemoPicture
from risengine.masks import decode_rle

Captured = pytest.CaptureFixture[str]


def test_segment_writes_mask_overlay_and_json(picture: DemoPicture, tmp_path: Path, capsys: Captured) -> None:
    mask, overlay = tmp_path / "mask.png", tmp_path / "overlay.png"
    text = picture.questions[0].text
    status = main(["segment", str(picture.path), text, "-o", str(mask), "--overlay", str(overlay), "--json"])
    assert status == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == text
    with Image.open(mask) as image:
        np.testing.assert_array_equal(np.asarray(image) == 255, decode_rle(answer["mask_rle"]))
    assert overlay.stat().st_size > 0


def test_segment_says_what_it_did(picture: DemoPicture, capsys: Captured) -> None:
    assert main(["segment", str(picture.path), picture.questions[0].text]) == 0
    out = capsys.readouterr().out
    assert out.startswith("score ")
    assert "proposals" in out


def test_rank_lists_the_best_first(picture: DemoPicture, capsys: Captured) -> None:
    assert main(["rank", str(picture.path), "the mug", "--top-k", "3", "--json"]) == 0
    scores = [answer["score"] for answer in json.loads(capsys.readouterr().out)]
    assert scores == sorted(scores, reverse=True)
    assert main(["rank", str(picture.path), "the mug", "--top-k", "2"]) == 0
    assert [line[:3] for line in capsys.readouterr().out.splitlines()] == [" 1.", " 2."]


def test_proposals_are_written(picture: DemoPicture, tmp_path: Path, capsys: Captured) -> None:
    out, overlay = tmp_path / "masks.json", tmp_path / "overlay.png"
    assert main(["proposals", str(picture.path), "-o", str(out), "--overlay", str(overlay)]) == 0
    rows = json.loads(out.read_text())
    assert capsys.readouterr().out == f"{len(rows)} proposals\n"
    assert decode_rle(rows[0]["mask_rle"]).any()
    assert overlay.exists()


def test_inspect_shows_every_role_and_the_raw_manifest(capsys: Captured) -> None:
    assert main(["inspect"]) == 0
    out = capsys.readouterr().out
    for word in ("image_encoder", "point_decoder", "mask_decoder", "proposal_encoder", "text_encoder", "parity"):
        assert word in out
    assert main(["inspect", "tabletop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tabletop"


@pytest.mark.parametrize("option", ["-o", "--overlay"])
def test_unwritable_outputs_are_refused_before_the_work(
    tmp_path: Path, option: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(options: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("risengine.cli.segment.load_engine", work)
    assert main(["segment", "a.png", "the mug", option, str(tmp_path / "none" / "x.png")]) == 2
    assert "does not exist. Create it first" in capsys.readouterr().err


def test_refusals_are_one_line_and_status_2(tmp_path: Path, capsys: Captured) -> None:
    assert main(["segment", str(tmp_path / "none.png"), "the mug"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["segment", "x.png", "the mug", "--bundle", str(tmp_path)]) == 2


def test_build_without_the_exporter_says_what_to_install(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "risexport.cli", None)
    assert main(["build", "out", "--clip", "ViT-B-32"]) == 2
    assert 'pip install "risengine[export]"' in capsys.readouterr().err
