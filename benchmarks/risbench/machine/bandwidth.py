"""The other limit beside a latency: how fast this machine moves memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["COPY_GBYTE", "copy_call"]

_BYTES = 1 << 28  # of the array: far more than any cache holds

COPY_GBYTE = 2e-9 * _BYTES
"""What one copy moves: every byte is read once and written once, as the STREAM benchmark counts."""


def copy_call() -> Callable[[], object]:
    """Returns the copying of one large array, with the threads that PyTorch's process has set."""
    source = torch.ones(_BYTES // 4)
    target = torch.full_like(source, 2.0)  # written once, so that the first copy does not pay for fresh pages

    def copy() -> Tensor:
        return target.copy_(source)

    return copy
