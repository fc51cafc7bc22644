"""What the tests at true size share: random weights in which nothing is trivially zero or one."""

from __future__ import annotations

import torch
from torch import nn


def perturb(model: nn.Module, seed: int = 0) -> None:
    """Moves what is initialised to one value: biases, norms, running averages, positions. They would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point() and value.numel() > 1 and (value == value.flatten()[0]).all():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(value * torch.exp(0.2 * noise) if value.any() else 0.1 * noise)
