"""MobileSAM's ``vit_t``: timm's TinyViT as image encoder, and how its tensors are called in MobileSAM's checkpoints.

MobileSAM's encoder is TinyViT-5M with three differences: the last stage keeps the grid of the one before it, the
classifier is never called, and the neck of segment-anything's ViTs follows. Its prompt encoder and mask decoder are
segment-anything's own. timm puts the convolutions between two stages at the head of the later one, MobileSAM at the end
of the earlier one; they compute the same.

In evaluation mode timm gathers each attention's biases at the first call and keeps them. An exporter that calls the
model once beforehand, as :func:`risexport.onnx_export.export_graph` does, therefore sees constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from risexport.checkpoints.checkpoint_files import load_weights

__all__ = ["UNUSED_TENSORS", "TinyVitEncoder", "build_sam_vit_t", "load_mobile_sam", "mobile_sam_name"]

UNUSED_TENSORS = frozenset(
    f"image_encoder.{layer}.{tensor}" for layer in ("norm_head", "head") for tensor in ("weight", "bias")
)
"""Tensors of a MobileSAM checkpoint that are left out: TinyViT's classifier, which MobileSAM stores but never calls."""

_IMAGE_SIZE_PX = 1024
_CHANNELS = 256
_WIDTHS = (64, 128, 160, 320)
_STRIDE = 16

_RENAMES = (
    (r"\.patch_embed\.conv1\.", ".patch_embed.seq.0."),
    (r"\.patch_embed\.conv2\.", ".patch_embed.seq.2."),
    (r"\.stages\.(\d)\.blocks\.", r".layers.\1.blocks."),
    (r"\.stages\.1\.downsample\.", ".layers.0.downsample."),
    (r"\.stages\.2\.downsample\.", ".layers.1.downsample."),
    (r"\.stages\.3\.downsample\.", ".layers.2.downsample."),
    (r"\.conv\.weight$", ".c.weight"),
)
"""What differs between timm's names and MobileSAM's, as patterns and replacements."""


class TinyVitEncoder(nn.Module):
    """MobileSAM's image encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.img_size = _IMAGE_SIZE_PX
        vit = TinyVit(num_classes=0, embed_dims=_WIDTHS, num_heads=(2, 4, 5, 10), drop_path_rate=0.0)
        merging: Any = vit.stages[3].downsample
        merging.conv2.conv.stride = (1, 1)
        self.patch_embed, self.stages = vit.patch_embed, vit.stages
        self.neck = nn.Sequential(
            nn.Conv2d(_WIDTHS[-1], _CHANNELS, 1, bias=False),
            LayerNorm2d(_CHANNELS),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(_CHANNELS),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encodes images.

        Args:
            images: (B, 3, S, S) float32, normalised and padded; S divisible by 16.

        Returns:
            (B, 256, S // 16, S // 16) float32.
        """
        embedding: Tensor = self.neck(self.stages(self.patch_embed(images)))
        return embedding


def build_sam_vit_t() -> Sam:
    """Builds MobileSAM with fresh weights, for images of 1024 x 1024 px."""
    grid = (_IMAGE_SIZE_PX // _STRIDE, _IMAGE_SIZE_PX // _STRIDE)
    return Sam(
        TinyVitEncoder(),
        PromptEncoder(_CHANNELS, grid, (_IMAGE_SIZE_PX, _IMAGE_SIZE_PX), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=_CHANNELS,
            transformer=TwoWayTransformer(depth=2, embedding_dim=_CHANNELS, num_heads=8, mlp_dim=2048),
        ),
    )


def load_mobile_sam(sam: Sam, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a MobileSAM checkpoint strictly; of its tensors only :data:`UNUSED_TENSORS` are left out.

    Args:
        sam: Model of :func:`build_sam_vit_t`; receives the weights.
        state: Tensors by MobileSAM's names.
        source: Where they come from and what they should be, for messages.

    Raises:
        InputError: A tensor is missing, unexpected, of another shape than the model's, or holds NaN or infinity. It is
            called by the name in the checkpoint.
    """
    used = {name: value for name, value in state.items() if name not in UNUSED_TENSORS}
    load_weights(sam, used, source, mobile_sam_name)


def mobile_sam_name(name: str) -> str:
    """Returns a tensor's name in MobileSAM's checkpoints, given its name in :func:`build_sam_vit_t`'s model."""
    if name.startswith("image_encoder."):
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
    return name
