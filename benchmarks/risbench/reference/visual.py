"""Masks to features: the mask inside its scene (global), the mask cropped out (local), and their mix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor

from risbench.reference.preprocess import crop_masks, normalise, squash, token_weights
from risengine.errors import InputError
from risengine.method import Method

__all__ = [
    "VisualFeatures",
    "check_method",
    "encode_masks",
    "global_features_resnet",
    "global_features_vit",
    "masked_tail_vit",
    "trunk_tokens_vit",
]


@dataclass(frozen=True)
class VisualFeatures:
    """Features of N masks, all raw.

    Attributes:
        global_features: (N, E) float32.
        local_features: (N, E) float32; of unit norm for ResNet towers.
        features: (N, E) float32, ``v * global + (1 - v) * local``.
    """

    global_features: Tensor
    local_features: Tensor
    features: Tensor


def check_method(method: Method) -> None:
    """Refuses HybridGL's method.

    Raises:
        InputError: The method has a fusion.
    """
    if method.fusion != "none":
        raise InputError(
            f"the bundle's method has fusion {method.fusion}; expected none: the PyTorch reference is Yu, Seo and "
            "Son's. Measure this bundle without the reference, or build one without --fusion."
        )


@torch.inference_mode()
def encode_masks(
    visual: VisionTransformer | ModifiedResNet, image: NDArray[np.uint8], masks: NDArray[np.bool_], method: Method
) -> VisualFeatures:
    """Describes every mask of an image.

    Args:
        visual: The visual tower of an open_clip model, in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool, none empty.
        method: The method's values.

    Raises:
        InputError: The tower is neither a ViT with a class token nor a modified ResNet, a mask is empty, the masks are
            of another size than the image, or the method is HybridGL's, which this reference is not.
    """
    check_method(method)
    if masks.shape[1:] != image.shape[:2]:
        raise InputError(f"masks are {masks.shape[1:]}; expected the image's {image.shape[:2]}. Resize them first.")
    if not masks.any(axis=(1, 2)).all():
        raise InputError("a mask is empty; expected at least one pixel each. Leave it out.")
    device = next(visual.parameters()).device
    if not len(masks):  # open_clip's towers do not take an empty batch
        nothing = torch.zeros((0, visual.output_dim), device=device)
        return VisualFeatures(nothing, nothing, nothing)
    pixels = normalise(image, method, device)
    on_device = torch.from_numpy(masks).to(device)
    whole, crops = squash(pixels, method), crop_masks(pixels, on_device, method)
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok":
        weights = token_weights(on_device, visual.grid_size, method)
        global_features = global_features_vit(visual, whole, weights, method.masked_blocks)
        local_features = visual(crops)
    elif isinstance(visual, ModifiedResNet):
        side = method.image_size_px // 32
        global_features = global_features_resnet(visual, whole, token_weights(on_device, (side, side), method))
        local_features = F.normalize(visual(crops), dim=-1)
    else:
        raise InputError(
            f"visual tower {type(visual).__name__} has no class token to mask for; expected open_clip's "
            "VisionTransformer pooled by token, or ModifiedResNet."
        )
    share = method.global_weight
    mixed = share * global_features + (1 - share) * local_features
    return VisualFeatures(global_features, local_features, mixed)


@torch.inference_mode()
def global_features_vit(visual: VisionTransformer, image: Tensor, weights: Tensor, masked_blocks: int) -> Tensor:
    """The class token after the last blocks have seen only the mask's image tokens.

    The first blocks run once for the image. Before each of the last ``masked_blocks`` the image tokens are multiplied
    by their weights; attention itself is full, so a token of weight 0 still takes part as the LayerNorm's bias.

    Args:
        visual: ViT with a class token.
        image: (1, 3, S, S) float32, normalised.
        weights: (N, T) float32 in [0, 1] for the T image tokens.
        masked_blocks: k, at most the number of blocks.

    Returns:
        (N, E) float32, raw.
    """
    tokens = trunk_tokens_vit(visual, image, masked_blocks)
    return masked_tail_vit(visual, tokens, weights, masked_blocks)


@torch.inference_mode()
def trunk_tokens_vit(visual: VisionTransformer, image: Tensor, masked_blocks: int) -> Tensor:
    """The part of :func:`global_features_vit` before the masks: (1, 3, S, S) to (1, 1 + T, D) float32."""
    patches = visual.conv1(image).flatten(2).transpose(1, 2)
    embedded = torch.cat([visual.class_embedding.expand(1, 1, -1), patches], dim=1)
    tokens: Tensor = visual.ln_pre(embedded + visual.positional_embedding)
    blocks = visual.transformer.resblocks
    for block in list(blocks)[: len(blocks) - masked_blocks]:
        tokens = block(tokens)
    return tokens


@torch.inference_mode()
def masked_tail_vit(visual: VisionTransformer, tokens: Tensor, weights: Tensor, masked_blocks: int) -> Tensor:
    """The part of :func:`global_features_vit` after the trunk.

    Args:
        visual: ViT with a class token.
        tokens: (1, 1 + T, D) float32, what the trunk made of the image.
        weights: (N, T) float32 in [0, 1].
        masked_blocks: k, at most the number of blocks.

    Returns:
        (N, E) float32, raw.
    """
    tokens = tokens.expand(len(weights), -1, -1)
    blocks = visual.transformer.resblocks
    for block in list(blocks)[len(blocks) - masked_blocks :]:
        tokens = block(torch.cat([tokens[:, :1], weights[:, :, None] * tokens[:, 1:]], dim=1))
    features: Tensor = visual.ln_post(tokens[:, 0])
    return features if visual.proj is None else features @ visual.proj


@torch.inference_mode()
def global_features_resnet(visual: ModifiedResNet, image: Tensor, weights: Tensor) -> Tensor:
    """The attention pool over the mask's part of the feature map, whose locations have unit norm.

    Args:
        visual: CLIP's ResNet.
        image: (1, 3, S, S) float32, normalised.
        weights: (N, g * g) float32 in [0, 1] for the locations of the feature map.

    Returns:
        (N, E) float32, raw.
    """
    trunk = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(image)))))
    masks = weights.view(len(weights), 1, *trunk.shape[2:])
    features: Tensor = visual.attnpool(F.normalize(trunk, dim=1) * masks)
    return features
