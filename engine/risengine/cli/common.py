"""Options and helpers that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from risengine.cli.fields import PROPOSAL_OPTIONS, add_field_options
from risengine.config import RuntimeConfig, StrategyName
from risengine.engine import Engine, load
from risengine.errors import InputError
from risengine.generator.proposals import Progress
from risengine.manifest import Target
from risengine.method import Method, ProposalSettings
from risengine.output import check_image_path
from risengine.overrides import RUNTIME_WEIGHTS

__all__ = [
    "Subparsers",
    "add_device_options",
    "add_engine_options",
    "check_output_paths",
    "describe_timings",
    "load_engine",
    "prompt_progress",
    "runtime_config",
]

Subparsers = argparse._SubParsersAction  # argparse offers no public name for the type


def add_engine_options(parser: argparse.ArgumentParser, weights: bool = True) -> None:
    """Adds ``--bundle``, the device and what may be set in place of the bundle's values.

    Args:
        parser: Parser of a command that calls :func:`load_engine`.
        weights: Whether the command compares masks with texts, so that the method's weights matter.
    """
    parser.add_argument("--bundle", default="tabletop", help="embedded name or bundle directory (default: tabletop)")
    add_device_options(parser)
    group = parser.add_argument_group("in place of the bundle's settings")
    if weights:
        group.add_argument(
            "--strategy",
            choices=get_args(StrategyName),
            default=RuntimeConfig.strategy,
            help="how masks are scored; global_local is the paper's (default: %(default)s)",
        )
        add_field_options(group, Method, RUNTIME_WEIGHTS, unset="the bundle's")
    add_field_options(group, ProposalSettings, PROPOSAL_OPTIONS, unset="the bundle's")


def load_engine(options: argparse.Namespace) -> Engine:
    """Loads the engine that the shared options ask for."""
    given = {name: getattr(options, name, None) for name in (*RUNTIME_WEIGHTS, *PROPOSAL_OPTIONS)}
    overrides = {name: value for name, value in given.items() if value is not None}
    return load(options.bundle, runtime_config(options), **overrides)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``, ``--fallback`` and ``--threads``; :func:`runtime_config` reads them."""
    parser.add_argument(
        "--device", choices=get_args(Target), help="what runs the graphs (default: the bundle's target)"
    )
    parser.add_argument("--fallback", action="store_true", help="run on the CPU where the device is missing")
    parser.add_argument("--threads", type=int, default=0, help="threads of one call; 0 = automatic (default)")


def runtime_config(options: argparse.Namespace) -> RuntimeConfig:
    """Returns what :func:`add_device_options` asked for, and the strategy where the command has one."""
    strategy = getattr(options, "strategy", RuntimeConfig.strategy)
    return RuntimeConfig(options.device, options.threads, options.fallback, strategy)


def check_output_paths(options: argparse.Namespace, check_output: Callable[[str], Path]) -> None:
    """Checks, before the work, ``--output`` and ``--overlay`` where they are given.

    Args:
        options: What was parsed.
        check_output: Checks the former and returns it absolute, links followed.

    Raises:
        InputError: One cannot be written, or both are the same file.
    """
    output = check_output(options.output) if options.output else None
    if options.overlay and check_image_path(options.overlay) == output:
        raise InputError(f"output and overlay would both be written to {output}. Give them different names.")


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
