"""What is generated from the stored results is in step with them, and they are of the embedded bundle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from report_samples import RESULTS, ROOT, stored

from risbench.cli import main
from risbench.quality.accuracy import AccuracyReport
from risbench.reports import results
from risbench.reports.results import PICTURE, is_drawn, rendered_results
from risbench.reports.stored import markdown
from risbench.speed.latency_report import RANDOM_WEIGHTS, LatencyReport
from risengine.bundle import open_bundle
from risengine.errors import InputError

NAMES = [path.stem for path in sorted(RESULTS.glob("*.json"))]


def test_everything_generated_is_in_step() -> None:
    for path, text in rendered_results(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of step. Run: risbench results"
    assert {path.stem for path in RESULTS.glob("*.md")} == set(NAMES)


@pytest.mark.parametrize(
    ("page", "names"),
    [("README.md", {"accuracy-tabletop-spatial", "gain", "latency"}), ("benchmarks/README.md", {"latency-vit-b"})],
)
def test_the_pages_show_stored_figures(page: str, names: set[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert all(f"<!-- results: {name} -->" in text for name in names)
    shown = [name for name in NAMES if f"<!-- results: {name} -->" in text]
    assert all(markdown(stored(name)) in text for name in shown)


def test_the_stored_accuracy_is_of_the_embedded_bundle_and_reaches_the_goals() -> None:
    report = stored("accuracy-tabletop")
    assert isinstance(report, AccuracyReport)
    assert report.bundle.id == open_bundle("tabletop").id
    for name, miou in (("scenes", 0.62), ("compositional", 0.55)):
        result = report.splits[name]
        assert result.images >= 60
        assert result.point_iou >= 0.80
        assert result.kinds["all"].oracle.miou >= 0.75
        assert result.kinds["attribute"].right_object >= 0.88
        assert result.kinds["attribute"].answers.miou >= miou


def test_the_picture_shows_stored_figures_each_at_its_bar() -> None:
    picture = (ROOT / PICTURE).read_text(encoding="utf-8")
    texts = re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)<', picture)
    places = {text: (float(x), float(y)) for x, y, text in texts}
    shown = [report for name in NAMES if isinstance(report := stored(name), LatencyReport)]
    shown = [report for report in shown if report.weights == RANDOM_WEIGHTS]
    assert len(shown) >= 2
    zero, hundred = places["0"][0], places["100"][0]
    for report in shown:
        for name, side in report.sides.items():
            seconds = side.whole.p50_ms / 1e3
            x, y = places[f" {seconds:.1f} s"]
            assert abs(y - places[f"{report.bundle.name}, {name}"][1]) < 2
            assert x == pytest.approx(zero + (hundred - zero) * seconds / 100, rel=0.01)
    assert is_drawn(ROOT), "Run: risbench results"


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_random_weights_are_labelled(name: str) -> None:
    report = stored(name)
    if isinstance(report, LatencyReport) and report.weights != "trained":
        assert report.weights == RANDOM_WEIGHTS
        assert f"weights {RANDOM_WEIGHTS}" in markdown(report)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    shutil.copy(RESULTS / "features-vit-b-32.json", folder / "mine.json")
    (tmp_path / "README.md").write_text("before\n<!-- results: mine -->\nold\n<!-- end of results -->\nafter\n")
    monkeypatch.setattr(results, "__file__", str(tmp_path / "benchmarks" / "risbench" / "reports" / "results.py"))
    return tmp_path


def test_generated_files_are_written_and_checked(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme, table = repository / "README.md", repository / "benchmarks" / "results" / "mine.md"
    assert main(["results", "--check"]) == 1
    assert "README.md is out of step" in capsys.readouterr().out
    assert "old" in readme.read_text()
    assert not table.exists()
    assert main(["results"]) == 0
    assert main(["results", "--check"]) == 0
    assert table.read_text() == markdown(stored("features-vit-b-32")) + "\n"
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: mine -->\n\n| median ms")
    assert text.endswith("Weights random: latency only.\n\n<!-- end of results -->\nafter\n")
    assert "old" not in text
    table.write_text("edited by hand")
    assert main(["results", "--check"]) == 1


def test_the_picture_is_of_the_stored_reports(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results"]) == 0
    assert is_drawn(repository)  # nothing to draw
    measured = repository / "benchmarks" / "results" / "latency-mine.json"
    shutil.copy(RESULTS / "latency-vit-b.json", measured)
    assert main(["results", "--check"]) == 1
    assert f"{PICTURE} is out of step" in capsys.readouterr().out
    assert main(["results"]) == 0
    assert main(["results", "--check"]) == 0
    picture = (repository / PICTURE).read_text()
    assert "<svg" in picture
    shutil.copy(RESULTS / "latency-vit-t.json", measured)
    assert not is_drawn(repository)


def test_results_that_are_not_there(repository: Path) -> None:
    (repository / "README.md").write_text("<!-- results: yours -->\n<!-- end of results -->")
    with pytest.raises(InputError, match="shows results 'yours'; expected one of mine"):
        rendered_results(repository)
    shutil.rmtree(repository / "benchmarks" / "results")
    with pytest.raises(InputError, match="Run from a checkout"):
        results.repository_root()
