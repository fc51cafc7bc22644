from __future__ import annotations

import time

import pytest

from risbench.machine.timing import TimingConfig, clocked, collect_in_turns, summarise_ms, time_in_turns
from risengine.errors import InputError


class Clock:
    """Time that passes only in the calls; call ``x`` takes as many milliseconds as its entry says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, durations_ms: dict[str, float]) -> None:
        self.now, self.made = 0.0, ""
        self.calls = {name: lambda name=name: self.pass_by(name, durations_ms[name]) for name in durations_ms}
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_by(self, name: str, duration_ms: float) -> None:
        self.made += name
        self.now += 1e-3 * duration_ms


def test_calls_take_turns_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {"a": 10, "b": 30, "c": 1})
    timings = time_in_turns(clock.calls, TimingConfig(warmups=2, rounds=3, seconds=0))
    assert clock.made == "abcabc" + "abccbaabc"
    assert {name: timing.runs for name, timing in timings.items()} == {"a": 3, "b": 3, "c": 3}
    assert [timings[name].p50_ms for name in "abc"] == pytest.approx([10, 30, 1])
    assert timings["b"].cv == pytest.approx(0, abs=1e-9)


def test_quick_calls_run_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {"a": 10, "b": 15})
    timings = time_in_turns(clock.calls, TimingConfig(warmups=1, rounds=2, seconds=0.24))
    assert timings["a"].runs == timings["b"].runs == 10
    assert len(clock.made) == 22


def test_what_calls_return_is_kept_in_order_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {"a": 1, "b": 1})
    counters = {"a": iter(range(10)), "b": iter("vwxyz")}
    calls = {name: lambda counter=counter: next(counter) for name, counter in counters.items()}
    found = collect_in_turns(calls, TimingConfig(warmups=1, rounds=3, seconds=0))
    assert found == {"a": [1, 2, 3], "b": ["w", "x", "y"]}
    assert clocked(clock.calls["a"])() == pytest.approx(1)


def test_summary() -> None:
    timing = summarise_ms([*range(1, 100), 1000])
    assert (timing.runs, timing.min_ms, timing.p50_ms) == (100, 1, 50.5)
    assert timing.mean_ms == pytest.approx(59.5)
    assert timing.p90_ms == pytest.approx(90.1)
    assert timing.p95_ms == pytest.approx(95.05)
    assert timing.per_s == pytest.approx(1000 / 59.5)
    assert timing.unstable
    assert 99 < timing.p99_ms < 1000
    assert summarise_ms([3, 1]).cv == pytest.approx(0.5)
    assert not summarise_ms([10, 11]).unstable


def test_nothing_to_summarise() -> None:
    with pytest.raises(InputError, match="no duration"):
        summarise_ms([])


@pytest.mark.parametrize("options", [{"rounds": 0}, {"warmups": -1}, {"seconds": -0.1}])
def test_settings_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        TimingConfig(**options)
