"""The image's side of segment-anything's ``Sam``: from pixels to the embedding and its projections, once an image."""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor, nn

from risexport.resample import resize_weights
from risexport.sam.sam_vit import VitImageEncoder

__all__ = ["ImageEncoder", "ImageProjector", "dense_positions", "fitted_size"]


def fitted_size(image_size: Tensor, target_px: int) -> Tensor:
    """Returns the size at which an image's longest side is ``target_px``.

    In integers, because not every runtime of the graphs has double precision. segment-anything's ``int(x + 0.5)`` of a
    double gives the same except where the exact value ends in .5 and its product falls below: never for a target of
    1024 and sides up to 8192, and one pixel in 65 of the 33.5 million such sizes for 320.

    Args:
        image_size: (2,) int64, (H, W) in px.
        target_px: Longest side of the result in px.

    Returns:
        (2,) int64, (H, W) in px; a side of an extremely long image can be 0.
    """
    longest = image_size.max()
    return torch.div(2 * image_size * target_px + longest, 2 * longest, rounding_mode="floor")


class ImageEncoder(nn.Module):
    """From the image to SAM's embedding: resize, normalise and pad as ``SamPredictor.set_image``, then the encoder."""

    mean: Tensor
    std: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.encoder = VitImageEncoder(encoder) if isinstance(encoder, ImageEncoderViT) else encoder
        self.side_px: int = sam.image_encoder.img_size
        self.register_buffer("mean", sam.pixel_mean.detach().clone(), persistent=False)
        self.register_buffer("std", sam.pixel_std.detach().clone(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Encodes an image.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            (1, C, h, w) float32.
        """
        embedding: Tensor = self.encoder(self.preprocess(image)[None])
        return embedding

    def preprocess(self, image: Tensor) -> Tensor:
        """Resizes, normalises and pads an image.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            (3, S, S) float32, normalised; zero right of and below the image.
        """
        height, width, _ = image.shape
        size = torch.cat([torch.full((1,), height), torch.full((1,), width)])
        # A 1 x 4000 image would shrink to a height of 0, at which segment-anything fails.
        fitted = fitted_size(size, self.side_px).clamp(min=1)
        start = torch.zeros(1, dtype=torch.int64)
        rows = resize_weights(start, size[:1], self.side_px, height, "antialias", fitted[:1])[0]
        columns = resize_weights(start, size[1:], self.side_px, width, "antialias", fitted[1:])[0]
        # Pillow stores 8-bit values after each axis. It takes x first; since version 13, y in images more than twice as
        # tall as wide, which moves some of their pixels by one grey level.
        pixels = _rounded(image.permute(2, 0, 1).float() @ columns.T)
        pixels = _rounded(rows @ pixels)
        side = torch.arange(self.side_px)
        inside = (side < fitted[0])[:, None] & (side < fitted[1])
        return (pixels - self.mean) / self.std * inside


def _rounded(pixels: Tensor) -> Tensor:
    """Rounds to whole numbers, halves up. The margin keeps a half a half that a runtime sums in another order."""
    return torch.floor(pixels + (0.5 + 2**-12))


class ImageProjector(nn.Module):
    """From an image's embedding to what all prompts on it read of it."""

    image_pe: Tensor
    dense_embedding: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        first = sam.mask_decoder.transformer.layers[0]
        self.keys = first.cross_attn_token_to_image.k_proj
        self.values = first.cross_attn_token_to_image.v_proj
        self.queries = first.cross_attn_image_to_token.q_proj
        self.register_buffer("image_pe", dense_positions(sam), persistent=False)
        dense_embedding = sam.prompt_encoder.no_mask_embed.weight.detach().clone()
        self.register_buffer("dense_embedding", dense_embedding, persistent=False)

    def forward(self, image_embedding: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Projects an image's cells.

        Args:
            image_embedding: (1, C, h, w) float32 from :class:`ImageEncoder`.

        Returns:
            The cells (1, h * w, C) float32, and for the attentions of the first block their keys, values and queries,
            (1, h * w, D) float32 each.
        """
        cells = image_embedding.flatten(2).transpose(1, 2) + self.dense_embedding
        located = cells + self.image_pe
        return cells, self.keys(located), self.values(cells), self.queries(located)


def dense_positions(sam: Sam) -> Tensor:
    """Returns the positional encoding of the embedding's cells, (1, h * w, C)."""
    positions: Tensor = sam.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    return positions.detach().clone()
