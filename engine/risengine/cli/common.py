"""Options and helpers that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from risengine.config import RuntimeConfig
from risengine.engine import Engine, load
from risengine.proposals import Progress

__all__ = ["Subparsers", "add_engine_options", "describe_timings", "load_engine", "prompt_progress"]

Subparsers = argparse._SubParsersAction  # argparse offers no public name for the type


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--bundle`` and ``--threads``."""
    parser.add_argument("--bundle", default="tabletop", help="embedded name or bundle directory (default: tabletop)")
    parser.add_argument("--threads", type=int, default=0, help="threads of one call; 0 = automatic (default)")


def load_engine(options: argparse.Namespace) -> Engine:
    """Loads the engine that the shared options ask for."""
    return load(options.bundle, RuntimeConfig(threads=options.threads))


@contextmanager
def prompt_progress() -> Iterator[Progress]:
    """Yields a progress callback that shows a bar on standard error once the work has taken half a second."""
    with tqdm(desc="proposals", unit="prompt", delay=0.5, leave=False, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def describe_timings(timings_ms: dict[str, float]) -> str:
    """Returns the stages and their milliseconds on one line, with their sum."""
    stages = " + ".join(f"{stage} {value:.0f}" for stage, value in timings_ms.items())
    return f"{sum(timings_ms.values()):.0f} ms = {stages}"
