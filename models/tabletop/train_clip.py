"""Trains the small CLIP on tabletop scenes with the very features that the engine computes.

Usage: `python -m tabletop.train_clip DATA --val VAL --out DIR --minutes 12`. A first run at `--image-size 64` learns
most of it at half the cost and leaves only its checkpoint; `--init` lets the run at full size begin from that.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, resize_pos_embed
from safetensors.torch import save

from risengine.output import write_atomically
from tabletop.clip_loss import ClipLoss
from tabletop.clip_model import TokenTable, build_clip, load_config
from tabletop.clip_views import ViewTensors
from tabletop.dataset import SceneData
from tabletop.evaluate import choice_accuracy
from tabletop.run_options import add_run_arguments, run_config
from tabletop.training import RunConfig, TrainingRun
from tabletop.views import make_views

WEIGHT_DECAY = 0.05


def export_clip(model: CLIP, table: TokenTable, path: Path) -> None:
    """Saves ordinary weights, float16, that `open_clip.model.CLIP(**config)` loads strictly.

    Args:
        model: The model, its token table compact.
        table: The token table's rows.
        path: File to write.
    """
    state = dict(model.state_dict())
    full = load_config()["text_cfg"]["vocab_size"]
    state["token_embedding.weight"] = table.expand(state["token_embedding.weight"], full)
    halves = {name: value.half().cpu().contiguous() for name, value in state.items()}
    write_atomically(path, lambda file: file.write(save(halves)))


@dataclass(frozen=True)
class ClipRun:
    """What only this trainer asks for.

    Attributes:
        scenes_per_step: Scenes a step.
        image_size: Side of the image input, px.
        init: `checkpoint.pt` of a finished run of another image size to begin from; its position embedding is resized.
    """

    scenes_per_step: int
    image_size: int
    init: Path | None = None


def train(data: SceneData, validation: SceneData, config: RunConfig, clip_run: ClipRun) -> dict[str, Any]:
    """Trains, writes `clip_metrics.json` and, at the config's image size, exports `clip.safetensors`.

    Args:
        data: Training scenes.
        validation: Scenes for the figures.
        config: The run's settings.
        clip_run: Batch, image size and first weights.

    Returns:
        The figures.

    Raises:
        ValueError: `config.out` holds an earlier run, or the image size does not fit patches and views.
        RuntimeError: The training diverged.
    """
    torch.manual_seed(config.seed)
    table = TokenTable.of_texts(data.texts)
    model = build_clip(load_config(), len(table), clip_run.image_size).to(config.device)
    if clip_run.init is not None:
        state = torch.load(clip_run.init, map_location=config.device, weights_only=True)["ema"]
        resize_pos_embed(state, model)
        model.load_state_dict(state)
    average = copy.deepcopy(model)
    run = TrainingRun(model, average, config)
    views, validation_views = (ViewTensors(make_views(part, seed=0), config.device) for part in (data, validation))
    loss = ClipLoss(model, data, views, table, clip_run.scenes_per_step)
    figures = run.fit(loss, lambda candidate: choice_accuracy(candidate, table, validation, validation_views))
    # Weights of another size would not load with the config: a first stage is for --init alone.
    if clip_run.image_size == load_config()["vision_cfg"]["image_size"]:
        export_clip(average, table, config.out / "clip.safetensors")
    text = json.dumps(figures, indent=2) + "\n"
    write_atomically(config.out / "clip_metrics.json", lambda file: file.write(text.encode()))
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: Command-line words; None takes the process'.
    """
    parser = argparse.ArgumentParser(prog="tabletop.train_clip", description=(__doc__ or "").splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--scenes-per-step", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=load_config()["vision_cfg"]["image_size"])
    parser.add_argument("--init", type=Path, help="checkpoint.pt of a run at another image size")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_float32_matmul_precision("high")
    config = dataclasses.replace(run_config(options, WEIGHT_DECAY), muon=True)
    data, validation = SceneData(options.data, torch.device("cpu")), SceneData(options.val, torch.device("cpu"))
    clip_run = ClipRun(options.scenes_per_step, options.image_size, options.init)
    print(json.dumps(train(data, validation, config, clip_run), indent=2))


if __name__ == "__main__":
    main()
