"""The training loop: budget, resuming, and the checkpoint that neither a failure nor another run may spoil."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabletop.training import RunConfig, TrainingRun, learning_rate_factor

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass by ten at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


def tiny_run(out: Path, stop_at: int | None, resume: Path | None) -> TrainingRun:
    torch.manual_seed(0 if resume is None else 99)
    model = nn.Linear(4, 1)
    config = RunConfig(
        out, minutes=4, seed=2, learning_rate=0.05, weight_decay=0.1, validate_s=50, device=CPU, resume=resume
    )
    run = TrainingRun(model, nn.Linear(4, 1), config, Clock())

    def loss(random: Any) -> dict[str, Tensor]:
        if run.step == stop_at:
            raise KeyboardInterrupt
        x = torch.rand(8, 4, generator=random.device) + random.host.random()
        return {"loss": ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()}

    if stop_at is None:
        run.fit(loss, lambda _: {})
    else:
        with pytest.raises(KeyboardInterrupt):
            run.fit(loss, lambda _: {})
    return run


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path / "whole", None, None)
    tiny_run(tmp_path / "cut", 15, None)
    resumed = tiny_run(tmp_path / "cut", None, tmp_path / "cut" / "checkpoint.pt")
    assert resumed.step == whole.step == 23
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    for name, value in whole.ema.state_dict().items():
        assert torch.equal(value, resumed.ema.state_dict()[name])
        assert not torch.equal(value, whole.model.state_dict()[name])
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"checkpoint.pt", "log.jsonl"}


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    factors = [learning_rate_factor(share / 100) for share in range(101)]
    assert 0 < factors[0] < 0.1
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.0)
    assert factors[50:] == sorted(factors[50:], reverse=True)


def test_a_new_run_does_not_overwrite_an_earlier_one(tmp_path: Path) -> None:
    tiny_run(tmp_path, None, None)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"found checkpoint\.pt; go on from it with --resume .* another --out"):
        tiny_run(tmp_path, None, None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("spoilt", ["loss", "gradient_norm"])
def test_a_diverged_run_keeps_its_last_good_checkpoint(tmp_path: Path, spoilt: str) -> None:
    model = nn.Linear(4, 1)
    config = RunConfig(tmp_path, minutes=4, seed=2, learning_rate=0.05, weight_decay=0.1, validate_s=50, device=CPU)
    run = TrainingRun(model, nn.Linear(4, 1), config, Clock())

    def loss(random: Any) -> dict[str, Tensor]:
        value = model.weight.square().sum()
        if run.step >= 17:  # the clock asks for a checkpoint after steps 6, 12 and 18
            # The square root at 0 is finite, its gradient is not.
            value = value * torch.nan if spoilt == "loss" else value + (0 * model.bias).sqrt().sum()
        return {"loss": value}

    with pytest.raises(RuntimeError, match=rf"expected a finite {spoilt}, got nan .*lower learning rate"):
        run.fit(loss, lambda _: {})
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 12
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
