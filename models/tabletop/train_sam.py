"""Trains the small SAM on tabletop scenes: points, boxes and points on the bare table.

Usage: `python -m tabletop.train_sam DATA --val VAL --out DIR --minutes 12`.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from segment_anything.modeling import Sam

from risengine.output import write_atomically
from tabletop.dataset import SceneData
from tabletop.evaluate import point_accuracy
from tabletop.run_options import add_run_arguments, run_config
from tabletop.sam_loss import SamLoss
from tabletop.sam_model import build_tabletop_sam
from tabletop.training import RunConfig, TrainingRun

WEIGHT_DECAY = 0.02


def export_sam(model: Sam, path: Path) -> None:
    """Saves ordinary float32 weights that `build_tabletop_sam()` loads strictly.

    Args:
        model: The model.
        path: File to write.
    """
    state = {name: value.float().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, lambda file: file.write(save(state)))


def train(data: SceneData, validation: SceneData, config: RunConfig, batch: tuple[int, int]) -> dict[str, Any]:
    """Trains, exports `sam.safetensors` and writes `sam_metrics.json`.

    Args:
        data: Training scenes.
        validation: Scenes for the figures.
        config: The run's settings.
        batch: Images a step and prompts an image.

    Returns:
        The figures.

    Raises:
        ValueError: `config.out` holds an earlier run.
        RuntimeError: The training diverged.
    """
    torch.manual_seed(config.seed)
    model = build_tabletop_sam().to(config.device)
    average = copy.deepcopy(model)
    run = TrainingRun(model, average, config)
    figures = run.fit(SamLoss(model, data, *batch), lambda candidate: point_accuracy(candidate, validation))
    export_sam(average, config.out / "sam.safetensors")
    text = json.dumps(figures, indent=2) + "\n"
    write_atomically(config.out / "sam_metrics.json", lambda file: file.write(text.encode()))
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: Command-line words; None takes the process'.
    """
    parser = argparse.ArgumentParser(prog="tabletop.train_sam", description=(__doc__ or "").splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--images-per-step", type=int, default=32)
    parser.add_argument("--prompts-per-image", type=int, default=12)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_float32_matmul_precision("high")
    config = run_config(options, WEIGHT_DECAY)
    data, validation = SceneData(options.data, config.device), SceneData(options.val, config.device)
    batch = (options.images_per_step, options.prompts_per_image)
    print(json.dumps(train(data, validation, config, batch), indent=2))


if __name__ == "__main__":
    main()
