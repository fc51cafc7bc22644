"""How long calls take, measured in turns: a machine that slows down then slows all of them down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from risengine.errors import InputError

__all__ = ["UNSTABLE_CV", "Timing", "TimingConfig", "clocked", "collect_in_turns", "summarise_ms", "time_in_turns"]

UNSTABLE_CV = 0.1
"""Coefficient of variation above which a measurement is reported as unstable."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class TimingConfig:
    """How often calls are made. A round is one call of each.

    Attributes:
        warmups: Rounds before the clock starts.
        rounds: Fewest rounds measured.
        seconds: Shortest time measured; quick calls get more rounds.

    Raises:
        InputError: No round, or a negative number.
    """

    warmups: int = 1
    rounds: int = 10
    seconds: float = 3.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"rounds = {self.rounds}; expected at least 1.")
        for name in ("warmups", "seconds"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}; expected 0 or more.")


@dataclass(frozen=True)
class Timing:
    """Durations of one call, in milliseconds.

    Attributes:
        runs: Number of calls measured.
        min_ms: Shortest.
        mean_ms: Mean.
        p50_ms: Median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile; near the longest where there are fewer than 100 runs.
        cv: Standard deviation divided by the mean.
        p95_ms: 95th percentile; None in reports from before it was taken.
    """

    runs: int
    min_ms: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cv: float
    p95_ms: float | None = None

    @property
    def per_s(self) -> float:
        """Calls a second, one after the other."""
        return 1e3 / self.mean_ms

    @property
    def unstable(self) -> bool:
        """Whether the calls differ so much that their figures are hardly worth comparing."""
        return self.cv > UNSTABLE_CV


def summarise_ms(durations_ms: Sequence[float]) -> Timing:
    """Summarises durations.

    Raises:
        InputError: There are none.
    """
    if not durations_ms:
        raise InputError("no duration was measured; expected at least one. Run the call first.")
    values = np.array(durations_ms, np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, [50, 90, 95, 99]))
    mean = float(values.mean())
    spread = float(values.std()) / mean if mean else 0.0
    return Timing(len(values), float(values.min()), mean, p50, p90, p99, spread, p95)


def time_in_turns(calls: Mapping[str, Callable[[], object]], config: TimingConfig) -> dict[str, Timing]:
    """Times calls against each other; see :func:`collect_in_turns`.

    Args:
        calls: What is timed, by name. A call has finished its work when it returns.
        config: How often.

    Returns:
        Durations by name.
    """
    timed = {name: clocked(call) for name, call in calls.items()}
    return {name: summarise_ms(values) for name, values in collect_in_turns(timed, config).items()}


def collect_in_turns(calls: Mapping[str, Callable[[], _Result]], config: TimingConfig) -> dict[str, list[_Result]]:
    """Makes calls in turns and keeps what they return; a progress bar counts the rounds and names the call at work.

    Every round makes each call once, every second round in reverse, so that none always follows the same other.

    Args:
        calls: What is called, by name.
        config: How often. What the warm-up returns is dropped.

    Returns:
        Results by name, in the order of the rounds.
    """
    results: dict[str, list[_Result]] = {name: [] for name in calls}
    order = list(calls)
    with tqdm(total=config.rounds, desc="measure", unit="round") as progress:
        for _ in range(config.warmups):
            for name, call in calls.items():
                progress.set_postfix_str(f"warm-up: {name}")
                call()
        begun = time.perf_counter()
        while progress.n < config.rounds or time.perf_counter() - begun < config.seconds:
            for name in order:
                progress.set_postfix_str(name)
                results[name].append(calls[name]())
            order.reverse()
            progress.update()
    return results


def clocked(call: Callable[[], object]) -> Callable[[], float]:
    """Returns a call that does the same and returns how many milliseconds it took."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    return timed
