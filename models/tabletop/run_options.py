"""The command-line words that both trainers share, as a run's settings."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tabletop.training import RunConfig


def pick_device(name: str | None) -> torch.device:
    """Chooses the device of a command line.

    Args:
        name: What the user asked for; None takes a GPU where there is one.

    Returns:
        The device.
    """
    if name is not None:
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that both trainers share.

    Args:
        parser: Parser to add to.
    """
    parser.add_argument("data", type=Path, help="directory of training shards")
    parser.add_argument("--val", type=Path, required=True, help="directory of validation shards")
    parser.add_argument("--out", type=Path, required=True, help="directory for weights, checkpoint, log and figures")
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock budget, resumed parts included")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--validate-s", type=float, default=90.0, help="seconds between validations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="checkpoint.pt of an interrupted run")
    parser.add_argument("--device", help="default: the GPU where there is one")


def run_config(options: argparse.Namespace, weight_decay: float) -> RunConfig:
    """Turns parsed arguments into settings.

    Args:
        options: What a parser with `add_run_arguments` returned.
        weight_decay: AdamW's weight decay.

    Returns:
        The run's settings.
    """
    return RunConfig(
        out=options.out,
        minutes=options.minutes,
        seed=options.seed,
        learning_rate=options.learning_rate,
        weight_decay=weight_decay,
        validate_s=options.validate_s,
        device=pick_device(options.device),
        resume=options.resume,
    )
