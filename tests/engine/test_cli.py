from __future__ import annotations

import json
import subprocess
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


@pytest.fixture
def no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an engine that must not be loaded."""

    def work(options: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("risengine.cli.segment.load_engine", work)
    monkeypatch.setattr("risengine.cli.proposals.load_engine", work)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["segment", "IMAGE", "the mug", "-o", "none/x.png"], "does not exist. Create it first"),
        (["segment", "IMAGE", "the mug", "--overlay", "none/x.png"], "does not exist. Create it first"),
        (["segment", "IMAGE", "the mug", "-o", "mask.jpg"], "expected .png"),
        (["segment", "IMAGE", "the mug", "-o", "a.png", "--overlay", "b.xyz"], "unknown suffix '.xyz'"),
        (["segment", "IMAGE", "the mug", "-o", "a.png", "--overlay", "a.png"], "both be written"),
        (["proposals", "IMAGE", "-o", "none/x.json"], "does not exist. Create it first"),
        (["proposals", "IMAGE", "--overlay", "x"], "unknown suffix ''"),
        (["rank", "IMAGE", "the mug", "--top-k", "0"], "--top-k 0; expected at least 1"),
    ],
)
def test_bad_options_are_refused_before_the_work(
    picture: DemoPicture, no_work: Path, words: list[str], message: str, capsys: Captured
) -> None:
    assert main([str(picture.path) if word == "IMAGE" else word for word in words]) == 2
    assert message in capsys.readouterr().err
    assert not any(no_work.iterdir())


def test_a_bad_text_is_refused_before_the_image_is_read(capsys: Captured) -> None:
    assert main(["rank", "no-such-image.png", " "]) == 2
    assert "text is blank" in capsys.readouterr().err


def test_refusals_are_one_line_and_status_2(tmp_path: Path, capsys: Captured) -> None:
    assert main(["segment", str(tmp_path / "none.png"), "the mug"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["segment", "x.png", "the mug", "--bundle", str(tmp_path)]) == 2


BUILD_WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "open_clip", "segment_anything", "onnx", "onnxscript"):
    sys.modules[name] = None
from risengine.cli import main
sys.exit(main(["build", "out", "--clip", "ViT-B-32", "--sam", "vit_b"]))
"""


def test_build_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", BUILD_WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert 'is not installed. Run: pip install "risengine[export]"' in result.stderr
    assert not any(tmp_path.iterdir())


def test_the_demo_is_right_at_least_nine_times_out_of_ten(tmp_path: Path, capsys: Captured) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    assert capsys.readouterr().out.count("right  IoU") >= 9
    assert (tmp_path / "demo" / "contact_sheet.png").is_file()
    assert len(list((tmp_path / "demo").glob("*.png"))) == 11


def test_an_unwritable_demo_folder(capsys: Captured) -> None:
    assert main(["demo", "-o", "/proc/none/demo"]) == 2
    assert "Choose another with -o" in capsys.readouterr().err
