"""The figures in the README are those of the stored run, and that run was of the embedded bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from risbench.accuracy import AccuracyReport
from risbench.tables import markdown_accuracy
from risengine.bundle import open_bundle

ROOT = Path(__file__).parents[2]


def read_report() -> AccuracyReport:
    def path(kind: type, value: Any) -> Any:
        return kind(value)

    data = (ROOT / "benchmarks" / "results" / "accuracy-tabletop.json").read_bytes()
    return msgspec.json.decode(data, type=AccuracyReport, dec_hook=path)


def test_the_readme_shows_the_stored_figures() -> None:
    assert markdown_accuracy(read_report()) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_stored_figures_are_of_the_embedded_bundle_and_reach_the_goals() -> None:
    report = read_report()
    assert report.bundle.id == open_bundle("tabletop").id
    for name, miou in (("scenes", 0.62), ("compositional", 0.55)):
        result = report.splits[name]
        assert result.images >= 60
        assert result.point_iou >= 0.80
        assert result.kinds["all"].oracle.miou >= 0.75
        assert result.kinds["attribute"].right_object >= 0.88
        assert result.kinds["attribute"].answers.miou >= miou
