"""HybridGL's features computed the long way, mask by mask, on open_clip's modules; see :mod:`.plain`."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from risengine.method import Method
from risexport.checks.plain_steps import pooled, square

__all__ = ["blurred", "plain_fused"]

_KERNEL_PX = 15


@torch.inference_mode()
def plain_fused(visual: VisionTransformer, method: Method, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Computes what the two directions of HybridGL read of every mask (Liu, Li, CVPR 2025).

    Args:
        visual: open_clip's ViT with a class token, in float32 or float64.
        method: Values of the method; ``fusion`` is not none.
        image: (H, W, 3) uint8, RGB.
        masks: (N, H, W) bool.

    Returns:
        Features from local to global and from global to local, both (N, E), not normalised; the same twice where only
        one is wanted.
    """
    dtype = next(visual.parameters()).dtype
    mean, std, fill = (
        torch.tensor(value, dtype=dtype)[:, None, None] for value in (method.mean, method.std, method.fill)
    )
    values = image.permute(2, 0, 1).to(dtype) / 255
    pixels, scene = (values - mean) / std, (blurred(values) - mean) / std
    weights = pooled(masks.to(dtype), visual.grid_size, method)
    pairs = [
        _directions(
            visual,
            method,
            square(torch.where(mask, pixels, fill), method),
            square(torch.where(mask, pixels, scene), method),
            weight.flatten(),
        )
        for mask, weight in zip(masks, weights, strict=True)
    ]
    to_global, to_local = (torch.cat(features) for features in zip(*pairs, strict=True))
    if method.fusion == "both":
        return to_global, to_local
    return (to_local, to_local) if method.fusion == "g2l" else (to_global, to_global)


def blurred(values: Tensor) -> Tensor:
    """Blurs (3, H, W) with a Gaussian of 15 x 15 px, pixels mirrored about those at the edge."""
    reach = _KERNEL_PX // 2
    deviation = 0.3 * ((_KERNEL_PX - 1) * 0.5 - 1) + 0.8  # what OpenCV takes for a kernel of this size
    kernel = [math.exp(-((tap - reach) ** 2) / (2 * deviation**2)) for tap in range(_KERNEL_PX)]
    padded = np.pad(values.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    height, width = values.shape[1:]
    result = torch.zeros_like(values)
    for (row, down), (column, across) in itertools.product(enumerate(kernel), repeat=2):
        result += torch.from_numpy(padded[:, row : row + height, column : column + width]) * down * across
    return result / sum(kernel) ** 2


def _directions(
    visual: VisionTransformer, method: Method, alone: Tensor, in_scene: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Runs one mask, from its two inputs (1, 3, S, S) and the weights (T,) of its patches."""
    blocks = list(visual.transformer.resblocks)
    split = len(blocks) - method.masked_blocks
    local_tokens, global_tokens = visual._embeds(alone), visual._embeds(in_scene)
    for block in blocks[:split]:
        local_tokens, global_tokens = block(local_tokens), block(global_tokens)
    length = 1 + len(weight)
    attention = torch.zeros(length, length, dtype=weight.dtype)
    attention[0, 1:][weight <= 0] = -math.inf
    gate = torch.cat([weight.new_ones(1), weight])[:, None]
    to_local, to_global = local_tokens, global_tokens
    for block in blocks[split:]:
        to_local = block(to_local + 2 * (gate * global_tokens))
        to_global = block(local_tokens + 2 * to_global, attn_mask=attention)
        local_tokens, global_tokens = block(local_tokens), block(global_tokens, attn_mask=attention)
    first, second = (visual.ln_post(tokens[:, 0]) @ visual.proj for tokens in (to_global, to_local))
    return first, second
