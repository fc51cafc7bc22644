"""Which change is a regression, by hand; and the exit status that people's CI reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from report_samples import RESULTS, latency_report, stored, without_reference

from risbench.cli import main
from risbench.options import write_json
from risbench.quality.accuracy import AccuracyReport
from risbench.reports.compare import Change, Thresholds, compare_reports
from risbench.reports.stored import Report
from risbench.speed.latency_report import LatencyReport
from risbench.speed.native import NativeReport
from risengine.errors import InputError


def changes(old: Report, new: Report, thresholds: Thresholds | None = None) -> dict[str, Change]:
    return {change.name: change for change in compare_reports(old, new, thresholds or Thresholds())}


def test_ratios_to_the_reference_are_compared_where_both_have_it() -> None:
    found = changes(latency_report(), latency_report(prompts_ms=120.0))
    prompts = found["prompts: reference / engine"]
    assert (prompts.old, prompts.new) == pytest.approx((12.0, 10.0))
    assert prompts.loss == pytest.approx(0.2)
    assert prompts.regressed
    assert not found["proposal_features: reference / engine"].regressed
    assert found["whole: reference / engine"].loss == pytest.approx(170 / 150 - 1)
    assert not changes(latency_report(), latency_report(prompts_ms=109.0))["prompts: reference / engine"].regressed
    assert changes(latency_report(), latency_report(prompts_ms=50.0))["prompts: reference / engine"].loss < 0


def test_without_a_reference_the_machines_own_rate_is_the_measure() -> None:
    old = without_reference(latency_report(gemm=100.0))
    slower_machine = without_reference(latency_report(prompts_ms=200.0, features_ms=100.0, gemm=50.0))
    found = changes(old, slower_machine)
    assert (found["engine, cpu, prompts"].old, found["engine, cpu, prompts"].new) == pytest.approx((10, 10))
    assert found["engine, cpu, whole"].loss == pytest.approx(0)
    assert changes(old, without_reference(latency_report(prompts_ms=130.0)))["engine, cpu, prompts"].regressed


def test_quick_stages_are_not_compared_by_themselves() -> None:
    quick = latency_report(features_ms=5.0)
    assert "proposal_features: reference / engine" not in changes(quick, quick)
    assert "engine, cpu, proposal_features" not in changes(without_reference(quick), without_reference(quick))


def worse_by(report: AccuracyReport, points: float) -> AccuracyReport:
    """The report with less mIoU over all scenes."""
    scenes = report.splits["scenes"]
    everything = scenes.kinds["all"]
    answers = dataclasses.replace(everything.answers, miou=everything.answers.miou - points)
    kinds = {**scenes.kinds, "all": dataclasses.replace(everything, answers=answers)}
    return dataclasses.replace(report, splits={**report.splits, "scenes": dataclasses.replace(scenes, kinds=kinds)})


def test_shares_are_compared_by_difference() -> None:
    report = stored("accuracy-tabletop")
    assert isinstance(report, AccuracyReport)
    assert not any(change.regressed for change in changes(report, worse_by(report, 0.009)).values())
    found = changes(report, worse_by(report, 0.02))
    assert [name for name, change in found.items() if change.regressed] == ["scenes, all: mIoU"]
    assert found["scenes, all: mIoU"].loss == pytest.approx(0.02)
    assert not any(
        change.regressed for change in changes(report, worse_by(report, 0.02), Thresholds(worse=0.03)).values()
    )


def native_times(factors: dict[str, float], peak: float = 1.0) -> NativeReport:
    """The stored report with the times of each runtime multiplied, and C++'s memory."""
    report = stored("native-tabletop")
    assert isinstance(report, NativeReport)
    sides = {}
    for name, side in report.sides.items():
        factor = factors.get(name, 1.0)
        times = {
            part: dataclasses.replace(getattr(side, part), p50_ms=factor * getattr(side, part).p50_ms)
            for part in ("cold_start", "encode", "ask", "ask_again")
        }
        sides[name] = dataclasses.replace(side, **times)
    sides["C++"] = dataclasses.replace(sides["C++"], peak_mib=peak * sides["C++"].peak_mib)
    return dataclasses.replace(report, sides=sides)


@pytest.mark.parametrize(
    ("factors", "losses"),
    [
        ({"C++": 1.5}, {"C++": 0.5, "Python": 0.0}),
        ({"Python": 1.5}, {"C++": 0.0, "Python": 0.5}),
        ({"Python": 0.5}, {"C++": 0.0, "Python": -0.5}),  # a gain of one is no loss of the other
        ({"C++": 2.0, "Python": 2.0}, {"C++": 0.0, "Python": 0.0}),  # a slower machine
        ({"C++": 3.0, "Python": 2.0}, {"C++": 0.5, "Python": 0.0}),
    ],
)
def test_either_runtime_is_worse_where_it_takes_longer_itself(
    factors: dict[str, float], losses: dict[str, float]
) -> None:
    found = changes(native_times({}), native_times(factors))
    for name, loss in losses.items():
        for part in ("cold_start", "encode", "ask", "ask_again"):
            assert found[f"{name}, {part}"].loss == pytest.approx(loss)
            assert found[f"{name}, {part}"].regressed == (loss > 0.1)


def test_more_memory_is_worse() -> None:
    found = changes(native_times({}), native_times({}, peak=1.2))
    assert [name for name, change in found.items() if change.regressed] == ["C++, peak memory"]
    assert not any(change.regressed for change in changes(native_times({}), native_times({}, peak=0.5)).values())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_stored_report_equals_itself(path: Path) -> None:
    found = changes(stored(path.stem), stored(path.stem))
    assert found
    assert all(change.loss == 0 and not change.regressed for change in found.values())


def test_reports_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="a LatencyReport is no AccuracyReport"):
        compare_reports(latency_report(), stored("accuracy-tabletop"), Thresholds())
    empty: LatencyReport = dataclasses.replace(without_reference(latency_report()), sides={})
    with pytest.raises(InputError, match="no figure in common"):
        compare_reports(empty, empty, Thresholds())
    with pytest.raises(InputError, match="slower = -1"):
        Thresholds(slower=-1)


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    write_json(old, latency_report())
    write_json(new, latency_report(prompts_ms=120.0))
    assert main(["compare", str(old), str(old)]) == 0
    assert "REGRESSED" not in capsys.readouterr().out
    assert main(["compare", str(old), str(new)]) == 1
    assert "REGRESSED" in capsys.readouterr().out
    assert main(["compare", str(old), str(new), "--slower", "0.5"]) == 0
    new.write_text("{}")
    assert main(["compare", str(old), str(new)]) == 2
    assert "has the fields of no report" in capsys.readouterr().err
    new.write_text(old.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    assert main(["compare", str(old), str(new)]) == 2
    assert "has schema version 99; this risbench reads 1" in capsys.readouterr().err
    new.write_text(old.read_text().replace('"threads": 2', '"threads": "two"'))
    assert main(["compare", str(old), str(new)]) == 2
    assert "is no LatencyReport: Expected `int`, got `str`" in capsys.readouterr().err
    assert main(["compare", str(old), str(tmp_path / "none.json")]) == 2
    assert "is no report" in capsys.readouterr().err
