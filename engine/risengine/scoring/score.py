"""Comparing mask features with a text feature."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["similarity"]


def similarity(
    features: NDArray[np.float32], text_feature: NDArray[np.float32], kind: Literal["cosine", "dot"]
) -> NDArray[np.float32]:
    """Scores every mask against an expression.

    Args:
        features: (N, E) float32 from ``proposal_encoder``; of unit norm for ``cosine``.
        text_feature: (E,) float32, any norm.
        kind: ``cosine``, or ``dot`` without any normalisation (ResNet towers of Yu, Seo, Son 2023).

    Returns:
        (N,) float32.
    """
    if kind == "cosine":
        text_feature = text_feature / np.linalg.norm(text_feature)
    scores: NDArray[np.float32] = features @ text_feature
    return scores
