"""How good the bundle's SAM is by itself: the best of its three masks at a random point inside every object."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import Session
from risengine.generator.prompts import Prompts
from risengine.generator.proposals import prompted_proposals
from risengine.generator.sam import SamImage
from risengine.manifest import Role
from risengine.method import ProposalSettings

__all__ = ["best_of_three", "interior_point"]


def interior_point(mask: NDArray[np.bool_], seed: tuple[int, int]) -> NDArray[np.float32]:
    """Draws the centre of a pixel of a mask, all its pixels alike.

    Args:
        mask: (H, W) bool, not empty.
        seed: Seed of the run, and what tells this mask from the others.

    Returns:
        (2,) float32 xy in pixels.
    """
    rows, columns = np.nonzero(mask)
    pick = np.random.default_rng(seed).integers(len(rows))
    return np.array([columns[pick] + 0.5, rows[pick] + 0.5], np.float32)


def best_of_three(
    sessions: Mapping[Role, Session],
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    truth: NDArray[np.bool_],
    sam_image_size_px: int,
) -> NDArray[np.float64]:
    """Prompts SAM with one point an object.

    Args:
        sessions: SAM's four are used.
        image: (H, W, 3) uint8 RGB.
        points: (G, 2) float32 xy in pixels.
        truth: (G, H, W) bool, the objects prompted for.
        sam_image_size_px: Side of SAM's square input.

    Returns:
        (G,) float64 in [0, 1], for every object the highest IoU of its three masks.
    """
    sam = SamImage.encode(sessions, image, sam_image_size_px)
    proposals = prompted_proposals(sam, Prompts.at_points(points), ProposalSettings())
    best = []
    for row, known in enumerate(truth):
        masks = proposals[3 * row : 3 * row + 3].masks
        best.append(max(np.count_nonzero(mask & known) / np.count_nonzero(mask | known) for mask in masks))
    return np.array(best, np.float64)
