"""The small SAM: segment-anything's own modules around a convolutional image encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

IMAGE_SIZE = 256
STRIDE = 8
WIDTH = 64


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with group normalisation around a shortcut."""

    def __init__(self, width: int) -> None:
        """Builds the block.

        Args:
            width: Channels, a multiple of 8.
        """
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_1 = nn.GroupNorm(8, width)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_2 = nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width, h, w) to the same shape."""
        hidden = F.relu(self.norm_1(self.conv_1(x)))
        return F.relu(x + self.norm_2(self.conv_2(hidden)))


class TabletopEncoder(nn.Module):
    """Image encoder: stride 8, with a path at stride 32 that sees the whole image.

    Dense 3 x 3 convolutions, group normalisation and ReLU: what a CPU runs at its full rate.
    """

    def __init__(self) -> None:
        """Builds the encoder with fresh weights."""
        super().__init__()
        self.img_size = IMAGE_SIZE
        self.stem = nn.Sequential(_down(3, 24), _down(24, 40))
        self.middle = nn.Sequential(_down(40, 96), ResidualBlock(96))
        self.context = nn.Sequential(_down(96, 96), ResidualBlock(96), _down(96, 96), ResidualBlock(96))
        self.merge = ResidualBlock(96)
        self.neck = nn.Sequential(nn.Conv2d(96, WIDTH, 1, bias=False), LayerNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images.

        Args:
            x: (B, 3, 256, 256) float, normalised and padded as `Sam.preprocess` does.

        Returns:
            (B, 64, 32, 32) float.
        """
        fine = self.middle(self.stem(x))
        coarse = F.interpolate(self.context(fine), scale_factor=4.0, mode="bilinear", align_corners=False)
        embedding: Tensor = self.neck(self.merge(fine + coarse))
        return embedding


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU()
    )


def build_tabletop_sam() -> Sam:
    """Builds the model with fresh weights; its exported state dict loads strictly.

    Returns:
        A `Sam` that takes images of at most 256 pixels a side.
    """
    grid = IMAGE_SIZE // STRIDE
    return Sam(
        image_encoder=TabletopEncoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=(grid, grid),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=256, num_heads=4),
            transformer_dim=WIDTH,
            activation=nn.ReLU,
            iou_head_depth=3,
            iou_head_hidden_dim=128,
        ),
    )


def decode_prompts(sam: Sam, embeddings: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the mask decoder for the prompts of several images at once; the stock decoder takes one image.

    Args:
        sam: The model.
        embeddings: (B, C, h, w), images.
        sparse: (B, P, T, C), embedded prompts of each image.

    Returns:
        Logits (B * P, 4, 4h, 4w) and predicted IoU (B * P, 4), the single-mask output first.
    """
    decoder, prompts = sam.mask_decoder, sam.prompt_encoder
    images, per_image, _, channels = sparse.shape
    count = images * per_image
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([outputs.expand(count, -1, -1), sparse.flatten(0, 1)], 1)
    source = embeddings + prompts.no_mask_embed.weight.view(1, -1, 1, 1)
    height, width = source.shape[2:]
    source = source[:, None].expand(-1, per_image, -1, -1, -1).flatten(0, 1)
    queries, keys = decoder.transformer(source, prompts.get_dense_pe(), tokens)
    upscaled = decoder.output_upscaling(keys.transpose(1, 2).reshape(count, channels, height, width))
    heads = [mlp(queries[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    logits = (torch.stack(heads, 1) @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
    return logits, decoder.iou_prediction_head(queries[:, 0])
