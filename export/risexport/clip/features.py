"""The arithmetic on finished features that the exported graphs share."""

from __future__ import annotations

import torch
from torch import Tensor

from risengine.method import Method

__all__ = ["mix", "unit"]


def mix(global_features: Tensor, local_features: Tensor, global_weight: Tensor, method: Method) -> Tensor:
    """Returns ``v G + (1 - v) L``, of unit length where the method compares by cosine.

    Args:
        global_features: (N, E) float32.
        local_features: (N, E) float32.
        global_weight: () float32 in [0, 1], v.
        method: The similarity.

    Returns:
        (N, E) float32.
    """
    features = global_weight * global_features + (1.0 - global_weight) * local_features
    return unit(features) if method.similarity == "cosine" else features


def unit(features: Tensor) -> Tensor:
    """Returns features (N, E) float32 of unit length; a zero vector stays one."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / lengths.clamp(min=1e-12)
