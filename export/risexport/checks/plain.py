"""The features of masks computed the long way, on open_clip's own modules: what the fused graph is measured against.

Every mask runs through all masked blocks in full attention, or through the whole attention pool; every crop is cut and
resized on its own; nothing is shared with the export modules. ``risbench.reference`` computes the same in batches and
with times, as the whole pipeline; risexport cannot use it, because risbench imports risexport and a build must not need
the benchmarks.
"""

from __future__ import annotations

import math

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from risengine.method import Method
from risexport.checks.plain_fusion import plain_fused
from risexport.checks.plain_steps import pooled, square

__all__ = ["plain_features"]


@torch.inference_mode()
def plain_features(
    visual: VisionTransformer | ModifiedResNet, method: Method, image: Tensor, masks: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes global and local features of masks (Yu, Seo, Son, CVPR 2023), or HybridGL's in their place.

    Args:
        visual: open_clip's image tower, a ResNet or a ViT with a class token, in float32 or float64.
        method: Values of the method.
        image: (H, W, 3) uint8, RGB.
        masks: (N, H, W) bool; an empty mask's crop is one pixel of fill.

    Returns:
        Global and local features, both (N, E) in the tower's precision; a ResNet's local features are of unit length,
        the others are not normalised.
    """
    if method.fusion != "none":
        return plain_fused(visual, method, image, masks)
    dtype = next(visual.parameters()).dtype
    mean, std, fill = (
        torch.tensor(value, dtype=dtype)[:, None, None] for value in (method.mean, method.std, method.fill)
    )
    pixels = (image.permute(2, 0, 1).to(dtype) / 255 - mean) / std
    crops = []
    for mask in masks:
        top, bottom = _span(mask.any(1), method)
        left, right = _span(mask.any(0), method)
        crops.append(square(torch.where(mask, pixels, fill)[:, top:bottom, left:right], method))
    local_features = torch.cat([visual(crop) for crop in crops])
    whole, soft = square(pixels, method), masks.to(dtype)
    if isinstance(visual, ModifiedResNet):
        return _resnet_global(visual, method, whole, soft), F.normalize(local_features, dim=-1)
    return _vit_global(visual, method, whole, soft), local_features


def _vit_global(visual: VisionTransformer, method: Method, image: Tensor, masks: Tensor) -> Tensor:
    tokens = visual._embeds(image)
    blocks = list(visual.transformer.resblocks)
    split = len(blocks) - method.masked_blocks
    for block in blocks[:split]:
        tokens = block(tokens)
    features = []
    for weights in pooled(masks, visual.grid_size, method):
        weighted = torch.cat([weights.new_ones(1), weights.flatten()])[:, None]
        state = tokens
        for block in blocks[split:]:
            state = block(state * weighted)
        features.append(visual.ln_post(state[:, 0]) @ visual.proj)
    return torch.cat(features)


def _resnet_global(visual: ModifiedResNet, method: Method, image: Tensor, masks: Tensor) -> Tensor:
    state = visual.stem(image)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        state = layer(state)
    state = F.normalize(state, dim=1)
    grid = (state.shape[2], state.shape[3])
    return torch.cat([visual.attnpool(state * weights) for weights in pooled(masks, grid, method)])


def _span(occupied: Tensor, method: Method) -> tuple[int, int]:
    """Returns first and one past the last pixel of a mask's box along an axis, of at least one pixel."""
    indices = occupied.nonzero().flatten()
    if not len(indices):
        return 0, 1
    if method.box_rule == "tight":
        return int(indices[0]), int(indices[-1]) + 1
    centre, half = indices.double().mean().item(), len(indices) / 2
    start = max(0, math.trunc(centre - half))
    return start, max(math.trunc(centre + half), start + 1)
