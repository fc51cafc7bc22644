"""How long calls take, measured in turns: a machine that slows down then slows all of them down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from risengine.errors import InputError

__all__ = ["Timing", "TimingConfig", "summarise_ms", "time_in_turns"]


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
    """

    runs: int
    min_ms: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cv: float


def summarise_ms(durations_ms: Sequence[float]) -> Timing:
    """Summarises durations.

    Raises:
        InputError: There are none.
    """
    if not durations_ms:
        raise InputError("no duration was measured; expected at least one. Run the call first.")
    values = np.array(durations_ms, np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    mean = float(values.mean())
    spread = float(values.std()) / mean if mean else 0.0
    return Timing(len(values), float(values.min()), mean, float(p50), float(p90), float(p99), spread)


def time_in_turns(calls: Mapping[str, Callable[[], object]], config: TimingConfig) -> dict[str, Timing]:
    """Times calls against each other; a progress bar counts the rounds.

    Every round makes each call once, every second round in reverse, so that none always follows the same other.

    Args:
        calls: What is timed, by name. A call has finished its work when it returns.
        config: How often.

    Returns:
        Durations by name.
    """
    for _ in range(config.warmups):
        for call in calls.values():
            call()
    durations_ms: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    begun = time.perf_counter()
    with tqdm(total=config.rounds, desc="measure", unit="round") as progress:
        while progress.n < config.rounds or time.perf_counter() - begun < config.seconds:
            for name in order:
                start = time.perf_counter()
                calls[name]()
                durations_ms[name].append(1e3 * (time.perf_counter() - start))
            order.reverse()
            progress.update()
    return {name: summarise_ms(values) for name, values in durations_ms.items()}
