from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from risbench.cli import main
from risbench.machine.arithmetic import Measured
from risbench.machine.timing import TimingConfig
from risbench.reports.latency_tables import format_features, markdown_features
from risbench.speed.features import FeaturesConfig, FeaturesReport, measure_features
from risengine.errors import InputError

GRID, WIDTH, LAYERS, MASKED, PATCH, EMBED = 5, 32, 5, 3, 8, 24
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"layers": LAYERS, "width": WIDTH, "head_width": 8, "patch_size": PATCH, "image_size": GRID * PATCH}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32}


pytestmark = pytest.mark.usefixtures("torch_threads")


def write_config(folder: Path, vision: dict[str, object]) -> Path:
    path = folder / "clip.json"
    path.write_text(json.dumps({"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": TEXT}), encoding="utf-8")
    return path


def config_of(path: Path) -> FeaturesConfig:
    timing = TimingConfig(warmups=0, rounds=2, seconds=0)
    return FeaturesConfig(clip=str(path), proposals=6, threads=1, image_size=(60, 90), timing=timing)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FeaturesReport:
    return measure_features(config_of(write_config(tmp_path_factory.mktemp("clip"), VISION)))


def block_flops(sequences: int, tokens: int) -> int:
    return sequences * 2 * (12 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH)


def test_the_references_arithmetic_is_counted_in_full(report: FeaturesReport) -> None:
    """All 6 crops through all blocks; the image through the trunk; 6 masked copies of it through the rest."""
    tokens = GRID**2 + 1
    blocks = 6 * LAYERS + (LAYERS - MASKED) + 6 * MASKED
    patches = 7 * GRID**2 * 3 * PATCH**2 * WIDTH * 2
    flops = patches + block_flops(blocks, tokens) + 12 * WIDTH * EMBED * 2
    assert report.features.reference.gflop == pytest.approx(1e-9 * flops, rel=1e-6)
    tail = block_flops(6 * MASKED, tokens) + 6 * WIDTH * EMBED * 2
    assert report.tail is not None
    assert report.tail.reference.gflop == pytest.approx(1e-9 * tail, rel=1e-6)


def test_the_tail_keeps_a_fifth_of_the_tokens_and_less_arithmetic(report: FeaturesReport) -> None:
    assert report.tail is not None
    assert report.tail.kept_tokens == pytest.approx(math.ceil(GRID**2 / 5) / GRID**2)
    assert report.tail.engine.gflop < report.tail.reference.gflop / 3
    assert 0 < report.features.kept_tokens < 1
    assert report.features.engine.gflop < report.features.reference.gflop


def test_both_sides_compute_the_same(report: FeaturesReport) -> None:
    assert report.tail is not None
    for comparison in (report.features, report.tail):
        assert 0 < comparison.relative_error < 1e-4
        assert comparison.providers == ("CPUExecutionProvider",)
        assert len(comparison.graph_sha256) == 64


def test_rates_follow_from_times(report: FeaturesReport) -> None:
    assert set(report.gemm_gflop_per_s) == {"torch", "onnxruntime"}
    limit = max(report.gemm_gflop_per_s.values())
    assert report.tail is not None
    for comparison in (report.features, report.tail):
        sides: tuple[Measured, ...] = (comparison.engine, comparison.reference)
        assert comparison.speedup == pytest.approx(sides[1].timing.p50_ms / sides[0].timing.p50_ms)
        for side in sides:
            assert side.timing.runs == 2
            assert side.gflop_per_s == pytest.approx(1e3 * side.gflop / side.timing.p50_ms)
            assert side.gemm_share == pytest.approx(side.gflop_per_s / limit)


def test_the_tables_say_what_was_measured(report: FeaturesReport) -> None:
    text, table = format_features(report), markdown_features(report)
    for shown in (text, table):
        assert "6 masks of a 90 x 60 image, fp32, 1 threads" in shown
        assert "random: latency only" in shown
        assert f"{report.features.speedup:.2f} x" in shown
        assert "masked tail (20 % of tokens kept)" in shown


def test_the_command_writes_figures_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a ResNet, which has no masked blocks."""
    clip = write_config(tmp_path, RESNET)
    outputs = tmp_path / "out.json", tmp_path / "out.md"
    sizes = ["--proposals", "3", "--threads", "1", "--rounds", "1"]
    assert (
        main(["features", "--clip", str(clip), *sizes, "--json", str(outputs[0]), "--markdown", str(outputs[1])]) == 0
    )
    written = json.loads(outputs[0].read_text(encoding="utf-8"))
    assert written["tail"] is None
    assert written["weights"] == "random: latency only"
    assert written["features"]["relative_error"] < 1e-4
    assert written["environment"]["packages"]["torch"]
    assert "| features" in outputs[1].read_text(encoding="utf-8")
    assert "3 masks of a 640 x 480 image" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "message"), [({"proposals": 1}, "at least 2"), ({"threads": -1}, "threads = -1")])
def test_settings_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeaturesConfig(**options)


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "--clip", "ViT-B-33"]) == 2
    assert "ViT-B-32" in capsys.readouterr().err
