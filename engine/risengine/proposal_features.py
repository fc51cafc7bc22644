"""CLIP's features of masks: the ``proposal_encoder`` graph, called on as many masks at a time as there is room for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import Session, brought_near, run_chained
from risengine.generator.found import Found
from risengine.manifest import GraphSpec
from risengine.method import Method

__all__ = ["encode_proposals"]

# What is described in one call, so that memory does not grow with the number of masks.
_MASKED_PIXELS = 1 << 25  # of all masks; the graph holds three floats for each: about 400 MB
_CROPPED_PIXELS = 64 * 224**2  # of all crops; the towers hold 5 to 15 MB for each crop of 224 px


def encode_proposals(
    session: Session, spec: GraphSpec, method: Method, pixels: NDArray[np.uint8], found: Found
) -> NDArray[np.float32]:
    """Describes masks.

    Args:
        session: Of ``proposal_encoder``.
        spec: The manifest's description of it; bounds the masks of one call.
        method: The method in force.
        pixels: (H, W, 3) uint8 RGB.
        found: N proposals.

    Returns:
        (N, E) float32, local and global features mixed, as the graph gives them.

    Raises:
        BackendError: The graph failed.
    """
    if not len(found):
        (features,) = (tensor for tensor in session.outputs if tensor.name == "features")
        return np.zeros((0, int(features.shape[-1])), np.float32)
    image = brought_near(session, pixels)
    weight = brought_near(session, np.array(method.global_weight, np.float32))
    step = _masks_per_call(spec, method, (pixels.shape[0], pixels.shape[1]))
    parts = []
    for start in range(0, len(found), step):
        masks = found.masks(start, min(start + step, len(found)))
        feeds = {"image": image, "masks": masks, "global_weight": weight}
        parts.append(run_chained(session, feeds, to_host=("features",))["features"])
    return np.concatenate(parts)


def _masks_per_call(spec: GraphSpec, method: Method, size: tuple[int, int]) -> int:
    views = 1 if method.fusion == "none" else 2  # of every mask
    fitting = min(_MASKED_PIXELS // (size[0] * size[1]), _CROPPED_PIXELS // method.image_size_px**2 // views)
    return min(max(1, fitting), spec.largest("N") or max(1, fitting))
