"""What both trainers share: a wall-clock budget, the schedule tied to it, weight averaging, checkpoints, a log."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from risengine.output import write_atomically

_LOG = logging.getLogger(__name__)

WARMUP = 0.04
CHECKPOINT_S = 60.0
LOG_EVERY = 50
EMA_DECAY = 0.9985
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class RunConfig:
    """Settings of one training run.

    Attributes:
        out: Directory of the log, the checkpoint and the exported weights.
        minutes: Wall-clock budget of the whole run, resumed parts included; the learning rate follows the share spent.
        seed: Seed of the weights and of every batch. The learning rate follows the wall clock, so that two runs of
            one seed see the same batches and still do not end bit-equal.
        learning_rate: Peak learning rate.
        weight_decay: AdamW's weight decay on matrices; vectors and embeddings have none.
        validate_s: Seconds between validations.
        device: Where the model lives.
        resume: Checkpoint to go on from.
        muon: Whether the transformer blocks' matrices are trained by Muon, which takes fewer steps, instead of AdamW.
    """

    out: Path
    minutes: float
    seed: int
    learning_rate: float
    weight_decay: float
    validate_s: float
    device: torch.device
    resume: Path | None = None
    muon: bool = False


@dataclass(frozen=True)
class Randomness:
    """The random sources of one step: functions of seed and step alone, so that a resumed run draws the same.

    Attributes:
        host: For choosing rows.
        device: For tensors on the training device.
    """

    host: np.random.Generator
    device: torch.Generator


class LossFunction(Protocol):
    """One training step's loss."""

    def __call__(self, random: Randomness) -> dict[str, Tensor]:
        """Returns scalar tensors; "loss" is the one that is minimised, the others are logged."""


def randomness(seed: int, step: int, device: torch.device) -> Randomness:
    """Makes the random sources of a step.

    Args:
        seed: The run's seed.
        step: The step's number.
        device: The training device.

    Returns:
        Sources that depend on nothing but `seed` and `step`.
    """
    host = np.random.default_rng([seed, step])
    generator = torch.Generator(device=device)
    generator.manual_seed(int(host.integers(2**62)))
    return Randomness(host, generator)


def learning_rate_factor(spent: float) -> float:
    """Gives the learning rate's share of its peak: linear warm-up, then a cosine to zero.

    Args:
        spent: Share of the budget spent, 0 to 1.

    Returns:
        A factor, 0 to 1.
    """
    if spent < WARMUP:
        return max(spent, WARMUP / 20) / WARMUP
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (spent - WARMUP) / (1.0 - WARMUP))))


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Gives the mixed-precision context of a device: bfloat16 where its matrix units have it.

    Args:
        device: The training device.

    Returns:
        A context manager.
    """
    supported = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=supported)


class TrainingRun:
    """Trains a model until its time budget is spent.

    `model` holds the weights under training, `ema` their moving average; validation and export take the average.
    """

    def __init__(
        self, model: nn.Module, ema: nn.Module, config: RunConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Sets up optimizer and log and, when resuming, restores all state.

        Args:
            model: Weights to train, on the device.
            ema: A second instance of the same architecture, on the device; overwritten.
            config: The run's settings.
            clock: Seconds that only grow; read once a step.

        Raises:
            ValueError: `config.out` holds another run's checkpoint, which this run would overwrite.
        """
        checkpoint = config.out / "checkpoint.pt"
        if config.resume is None and checkpoint.exists():
            raise ValueError(
                f"expected no earlier run in {config.out}, found {checkpoint.name}; "
                f"go on from it with --resume {checkpoint} or choose another --out"
            )
        self.model, self.ema, self._config, self._clock = model, ema.requires_grad_(False).eval(), config, clock
        self.step, self._elapsed_s = 0, 0.0
        fused = config.device.type == "cuda"
        matrices = _hidden_matrices(model) if config.muon else []
        groups = _parameter_groups(model, config.weight_decay, matrices)
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=fused)
        ]
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            optimizers.append(muon)
        self._optimizers = optimizers
        config.out.mkdir(parents=True, exist_ok=True)
        if config.resume is None:
            ema.load_state_dict(model.state_dict())
            (config.out / "log.jsonl").unlink(missing_ok=True)
        else:
            self._restore(config.resume)

    def fit(self, loss_of: LossFunction, validate: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
        """Runs steps until the budget is spent, with a checkpoint a minute, then validates the averaged weights.

        Args:
            loss_of: Computes a step's losses with `model`.
            validate: Measures a model; called with the averaged weights.

        Returns:
            The last validation's figures with `step` and `elapsed_s`.

        Raises:
            RuntimeError: The loss or its gradient is no longer finite; the checkpoint is from before that.
        """
        budget_s, before_s, start_s = self._config.minutes * 60.0, self._elapsed_s, self._clock()
        saved_s = validated_s = logged_s = before_s
        logged_step = self.step
        losses: dict[str, Tensor] = {}
        with tqdm(total=round(budget_s), initial=round(before_s), unit="s", desc="training") as bar:
            while True:
                self._elapsed_s = before_s + self._clock() - start_s
                spent = self._elapsed_s / budget_s
                bar.update(min(round(self._elapsed_s), round(budget_s)) - bar.n)
                if spent >= 1.0:
                    break
                if self._elapsed_s - validated_s >= self._config.validate_s:
                    self._log({"validation": dict(validate(self.ema))})
                    validated_s = self._elapsed_s
                losses = self._advance(loss_of, spent)
                if self.step % LOG_EVERY == 0:
                    self._require_finite(losses)
                    rate = (self.step - logged_step) / max(self._elapsed_s - logged_s, 1e-9)
                    logged_step, logged_s = self.step, self._elapsed_s
                    self._log_losses(losses, rate)
                if self._elapsed_s - saved_s >= CHECKPOINT_S:
                    self._require_finite(losses)
                    self.save_checkpoint()
                    saved_s = self._elapsed_s
        self._require_finite(losses)
        self.save_checkpoint()
        figures = {**validate(self.ema), "step": self.step, "elapsed_s": round(self._elapsed_s, 1)}
        self._log({"final": figures})
        return figures

    def save_checkpoint(self) -> None:
        """Writes `checkpoint.pt` with everything a resumed run needs; a crash leaves the previous one whole."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
            "elapsed_s": self._elapsed_s,
        }
        write_atomically(self._config.out / "checkpoint.pt", lambda file: torch.save(state, file))

    def _advance(self, loss_of: LossFunction, spent: float) -> dict[str, Tensor]:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._config.learning_rate * learning_rate_factor(spent)
        losses = loss_of(randomness(self._config.seed, self.step, self._config.device))
        self.model.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1.0 - decay)
        return {**losses, "gradient_norm": norm}

    def _require_finite(self, losses: Mapping[str, Tensor]) -> None:
        # A finite loss alone does not vouch for the weights: the step it led to may have spoilt them.
        for name in ("loss", "gradient_norm"):
            value = float(losses[name].detach()) if losses else 0.0  # a run resumed at its end makes no step
            if not math.isfinite(value):
                raise RuntimeError(
                    f"expected a finite {name}, got {value} at step {self.step}; resume from the checkpoint "
                    "with a lower learning rate"
                )

    def _log_losses(self, losses: dict[str, Tensor], steps_per_s: float) -> None:
        values = {name: round(float(value.detach()), 4) for name, value in losses.items()}
        rate = self._optimizers[0].param_groups[0]["lr"]
        self._log({**values, "lr": round(rate, 6), "steps_per_s": round(steps_per_s, 2)})

    def _log(self, figures: dict[str, Any]) -> None:
        line = {"step": self.step, "elapsed_s": round(self._elapsed_s, 1), **figures}
        _LOG.info("%s", line)
        with (self._config.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self._config.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self._elapsed_s = state["step"], state["elapsed_s"]


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    return [value for name, value in model.named_parameters() if value.ndim == 2 and "resblocks" in name]


def _parameter_groups(model: nn.Module, weight_decay: float, without: list[nn.Parameter]) -> list[dict[str, Any]]:
    left_out = set(map(id, without))
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if id(parameter) in left_out:
            continue
        is_matrix = parameter.ndim >= 2 and "embed" not in name and "token" not in name
        (decayed if is_matrix else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
