from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from risengine.bundle import open_bundle
from risengine.cli import main
from risengine.demo import DemoPicture
from risengine.manifest import MANIFEST_NAME, Manifest
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
    assert decode_rle(rows[0]["segmentation"]).any()
    assert overlay.exists()


def test_inspect_shows_what_a_person_asks(capsys: Captured) -> None:
    manifest = open_bundle("tabletop").manifest
    assert main(["inspect"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("tabletop: fp32 for cpu, 1")
    assert any(line.startswith("  runs here   onnxruntime ") for line in lines)
    assert f"clip.safetensors, sha256 {manifest.sources[0].sha256[:12]}  licence Apache-2.0" in out
    for role, graph in manifest.graphs.items():
        (row,) = (line for line in lines if line.startswith(f"  {role} ") and "GFLOP" in line)
        assert row.split()[1:5] == [f"{graph.size_bytes / 1e6:.2f}", "MB", f"{graph.flops / 1e9:.2f}", "GFLOP"]
    for figure in manifest.parity:
        assert f"{figure.measure} {figure.value:.3g} (" in out
    assert not [line for line in lines if line != line.rstrip()]


def test_inspect_names_addresses_random_weights_and_what_stayed_in_fp32(bundle_copy: Path, capsys: Captured) -> None:
    manifest = open_bundle(bundle_copy).manifest
    clip, sam = manifest.sources
    nodes = ("normalisation: LayerNormalization n3", "normalisation: LayerNormalization n4", "attention: Softmax n5")
    changed = replace(
        manifest,
        target="tensorrt",
        precision="fp16",
        sources=(replace(clip, url="https://example.org/clip"), replace(sam, checkpoint="random", sha256="")),
        graphs={**manifest.graphs, "text_encoder": replace(manifest.graphs["text_encoder"], fp32_nodes=nodes)},
        proposals=replace(manifest.proposals, point_grids=((*(((0.5, 0.5),) * 9),),)),
        parity=(replace(manifest.parity[0], value=0.0125, rounded=True), *manifest.parity),
    )
    (bundle_copy / MANIFEST_NAME).write_bytes(changed.encode())
    assert main(["inspect", str(bundle_copy)]) == 0
    out = capsys.readouterr().out
    assert "runs here   no: tensorrt is missing" in out
    assert "licence Apache-2.0  https://example.org/clip" in out
    assert "random weights" in out
    assert "    fp32  3 nodes: 2 normalisation, 1 attention" in out
    assert "point_grids                     9 values" in out
    exact, rounded = out.split("the same with every result rounded to half precision, as a device rounds it\n")
    assert "relative_error 0.0125" in rounded
    assert "relative_error 0.0125" not in exact
    assert len(rounded.splitlines()) == 1


def test_inspect_prints_the_manifest_itself(capsys: Captured) -> None:
    assert main(["inspect", "tabletop", "--json"]) == 0
    assert Manifest.decode(capsys.readouterr().out.encode()) == open_bundle("tabletop").manifest


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
        (["proposals", "IMAGE", "-o", "x.png", "--overlay", "./x.png"], "both be written"),
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


def test_a_demo_in_which_nothing_is_proposed_is_wrong(tmp_path: Path, capsys: Captured) -> None:
    options = ["--points-per-side", "1", "--stability-score-thresh", "1.1"]
    assert main(["demo", "-o", str(tmp_path), *options]) == 1
    out = capsys.readouterr().out
    assert out.count("wrong  nothing is proposed") == 10
    assert "0 of 10 expressions right (IoU > 0.5). No answer could be drawn." in out
    assert not list(tmp_path.iterdir())


def test_an_unwritable_demo_folder(capsys: Captured) -> None:
    assert main(["demo", "-o", "/proc/none/demo"]) == 2
    assert "Choose another with -o" in capsys.readouterr().err


def test_explain_says_and_draws_why(picture: DemoPicture, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "why.png"
    assert main(["explain", str(picture.path), "the green cube left of the bottle", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert '"kind": "left"' in printed
    assert "looks" in printed
    assert "reference, mask" in printed
    with Image.open(out) as drawn, Image.open(picture.path) as image:
        assert drawn.width == image.width
        assert drawn.height > image.height  # what was read stands below


def test_nothing_matches_is_an_answer_of_its_own(picture: DemoPicture, tmp_path: Path, capsys: Captured) -> None:
    mask = tmp_path / "mask.png"
    words = ["segment", str(picture.path), "the purple cone", "--reject-below", "0.9", "-o", str(mask)]
    assert main(words) == 3
    assert "nothing matches with a confidence of at least 0.9" in capsys.readouterr().out
    assert not mask.exists()
    assert main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out) is None
    assert main(["segment", str(picture.path), picture.questions[0].text, "--reject-below", "0.2"]) == 0
    assert main([*words, "--strategy", "global_local"]) == 2
    assert "reject_below needs a calibrated confidence" in capsys.readouterr().err
