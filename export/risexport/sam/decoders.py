"""The prompts' side of segment-anything's ``Sam``: what masks are made of, their scores, and their logits."""

from __future__ import annotations

import math

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from risexport.sam.image import dense_positions, fitted_size

__all__ = ["MaskDecoder", "PointDecoder"]


class PointDecoder(nn.Module):
    """From prompts to predicted IoUs and what the masks are made of, for the three masks of ``multimask_output``."""

    frequencies: Tensor
    label_embeddings: Tensor
    image_pe: Tensor
    output_tokens: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        prompts, decoder = sam.prompt_encoder, sam.mask_decoder
        self.side_px: int = sam.image_encoder.img_size
        self.transformer = decoder.transformer
        self.iou_head = decoder.iou_prediction_head
        self.mask_heads = decoder.output_hypernetworks_mlps[1:]
        embeddings = [prompts.not_a_point_embed, *prompts.point_embeddings]
        buffers = {
            "frequencies": prompts.pe_layer.positional_encoding_gaussian_matrix,
            "label_embeddings": torch.cat([embedding.weight for embedding in embeddings]),
            "image_pe": dense_positions(sam),
            "output_tokens": torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(
        self,
        image_cells: Tensor,
        image_keys: Tensor,
        image_values: Tensor,
        image_queries: Tensor,
        image_size: Tensor,
        points: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes prompts on one image.

        Args:
            image_cells: (1, h * w, C) float32 from :class:`ImageProjector`, as are the next three.
            image_keys: (1, h * w, D) float32.
            image_values: (1, h * w, D) float32.
            image_queries: (1, h * w, D) float32.
            image_size: (2,) int64, (H, W) in px of the image that was encoded.
            points: (P, K, 2) float32, (x, y) in px of that image.
            labels: (P, K) int64: 1 foreground, 0 background, 2 and 3 a box's corners, -1 padding.

        Returns:
            Predicted IoUs (P, 3) float32; mask tokens (P, 3, C // 8) float32; the image's features after the
            transformer (P, h * w, C) float32.
        """
        prompts = self.embed_prompts(image_size, points, labels)
        tokens = torch.cat([self.output_tokens.expand(prompts.shape[0], -1, -1), prompts], dim=1)
        first, *later = self.transformer.layers
        queries = _first_token_side(first, tokens, image_keys, image_values)
        attention = first.cross_attn_image_to_token
        keys = _heads(attention, attention.k_proj(queries + tokens))
        logits = keys @ _heads(attention, image_queries).transpose(-1, -2)
        image = first.norm4(image_cells + _spread(attention, logits, queries))
        for block in later:
            queries, image = _later_block(block, queries, tokens, image, self.image_pe)
        # Read are the token of the predicted IoUs and those of the three masks, not that of the single mask.
        attended = torch.cat([queries[:, :1], queries[:, 2:5]], dim=1)
        asking = attended + torch.cat([tokens[:, :1], tokens[:, 2:5]], dim=1)
        attention = self.transformer.final_attn_token_to_image
        attended = attended + _tokens_to_image(attention, asking, image + self.image_pe, image)
        attended = self.transformer.norm_final_attn(attended)
        mask_tokens = [head(attended[:, 1 + i]) for i, head in enumerate(self.mask_heads)]
        return self.iou_head(attended[:, 0])[:, 1:], torch.stack(mask_tokens, dim=1), image

    def embed_prompts(self, image_size: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Embeds points as ``PromptEncoder`` does, from the image's own pixel coordinates.

        Args:
            image_size: (2,) int64, (H, W) in px.
            points: (P, K, 2) float32, (x, y) in px.
            labels: (P, K) int64 in [-1, 3].

        Returns:
            (P, K, C) float32.
        """
        scale = fitted_size(image_size, self.side_px).clamp(min=1) / image_size
        coordinates = (points * scale.flip(0) + 0.5) / self.side_px
        angles = (2 * math.pi) * ((2 * coordinates - 1) @ self.frequencies)
        position = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return position * (labels >= 0)[..., None] + F.embedding(labels + 1, self.label_embeddings)


class MaskDecoder(nn.Module):
    """From a prompt's image features and a mask token to the mask's logits at a quarter of SAM's resolution."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        first, norm, first_act, second, second_act = sam.mask_decoder.output_upscaling
        self.grid: tuple[int, int] = tuple(sam.prompt_encoder.image_embedding_size)
        self.first, self.second = _cellwise(first), _cellwise(second)
        self.norm, self.first_act, self.second_act = norm, first_act, second_act

    def forward(self, image_features: Tensor, mask_tokens: Tensor, prompt_index: Tensor) -> Tensor:
        """Computes mask logits.

        Args:
            image_features: (Q, h * w, C) float32, rows of :class:`PointDecoder`'s third output.
            mask_tokens: (M, C // 8) float32.
            prompt_index: (M,) int64 in [0, Q), the row of each mask.

        Returns:
            (M, 4h, 4w) float32 logits of the whole padded square.
        """
        prompts = image_features.shape[0]
        cells = self.grid[0] * self.grid[1]
        norm = self.norm
        fine = self.first(image_features).view(prompts, 4 * cells, -1)
        fine = self.first_act(F.layer_norm(fine, (fine.shape[-1],), norm.weight, norm.bias, norm.eps))
        finest = self.second_act(self.second(fine)).view(prompts, 16 * cells, -1)
        logits = finest.index_select(0, prompt_index) @ mask_tokens[..., None]
        # Axes after the mask's: y and x of the cell, then of the half cell, then of the quarter.
        nested: Tensor = logits.view(-1, *self.grid, 2, 2, 2, 2)
        return nested.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * self.grid[0], 4 * self.grid[1])


def _cellwise(convolution: nn.ConvTranspose2d) -> nn.Linear:
    """Returns the linear map from a cell's channels to its 2 x 2 pixels (y, x, channel) of the convolution."""
    channels, outputs, *_ = convolution.weight.shape
    linear = nn.Linear(channels, 4 * outputs)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.permute(2, 3, 1, 0).reshape(4 * outputs, channels))
        bias = torch.zeros(outputs) if convolution.bias is None else convolution.bias
        linear.bias.copy_(bias.repeat(4))
    return linear.requires_grad_(False)


def _first_token_side(block: TwoWayAttentionBlock, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Runs the tokens' (P, T, C) side of the block whose image side, (1, h * w, D), is the same for all prompts."""
    prompts, count, width = tokens.shape
    queries = block.norm1(block.self_attn(q=tokens, k=tokens, v=tokens))
    attention = block.cross_attn_token_to_image
    # One image: the tokens of all prompts are queries of one attention.
    flat = _heads(attention, attention.q_proj((queries + tokens).reshape(1, prompts * count, width)))
    attended = F.scaled_dot_product_attention(flat, _heads(attention, keys), _heads(attention, values))
    attended = attention.out_proj(attended.transpose(1, 2).reshape(prompts, count, -1))
    queries = block.norm2(queries + attended)
    normed: Tensor = block.norm3(queries + block.mlp(queries))
    return normed


def _later_block(
    block: TwoWayAttentionBlock, queries: Tensor, tokens: Tensor, image: Tensor, pe: Tensor
) -> tuple[Tensor, Tensor]:
    """Runs a block whose image side, (P, h * w, C), differs between prompts; queries and tokens (P, T, C)."""
    attended = queries + tokens
    queries = block.norm1(queries + block.self_attn(q=attended, k=attended, v=queries))
    located = image + pe
    queries = block.norm2(queries + _tokens_to_image(block.cross_attn_token_to_image, queries + tokens, located, image))
    queries = block.norm3(queries + block.mlp(queries))
    attention = block.cross_attn_image_to_token
    keys = _heads(attention, attention.k_proj(queries + tokens))
    bias = keys @ attention.q_proj.bias.view(attention.num_heads, -1, 1)
    logits = _per_image(keys @ _head_rows(attention.q_proj, attention), located) + bias
    return queries, block.norm4(image + _spread(attention, logits, queries))


def _tokens_to_image(attention: Attention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attends from tokens (P, T, C) to the image (P, h * w, C) without projecting the image; returns (P, T, C)."""
    queries = _heads(attention, attention.q_proj(tokens))
    heads, width = attention.num_heads, queries.shape[-1]
    # The keys' bias adds the same to all logits of a query.
    logits = _per_image(queries @ _head_rows(attention.k_proj, attention), keys)
    weights = (logits / math.sqrt(width)).softmax(dim=-1)
    context = weights.flatten(1, 2) @ values
    context = context.view(weights.shape[0], heads, -1, values.shape[-1])
    # A query's weights sum to one, so the values' bias can be added afterwards.
    projected = context @ _head_rows(attention.v_proj, attention).transpose(-1, -2)
    projected = projected + attention.v_proj.bias.view(heads, 1, width)
    mixed: Tensor = attention.out_proj(projected.transpose(1, 2).flatten(2))
    return mixed


def _spread(attention: Attention, logits: Tensor, tokens: Tensor) -> Tensor:
    """Gives every image cell its mix of the tokens (P, T, C); logits (P, heads, T, h * w); returns (P, h * w, C)."""
    values = _heads(attention, attention.v_proj(tokens))
    weights = (logits / math.sqrt(values.shape[-1])).softmax(dim=-2)
    out_rows = attention.out_proj.weight.T.reshape(attention.num_heads, values.shape[-1], -1)
    # A cell's weights sum to one in every head, so each head's outputs can carry a share of the bias: it is added to a
    # few tokens instead of to the whole image.
    outputs = values @ out_rows + attention.out_proj.bias / attention.num_heads
    mixed: Tensor = weights.flatten(1, 2).transpose(1, 2) @ outputs.flatten(1, 2)
    return mixed


def _per_image(tokens: Tensor, image: Tensor) -> Tensor:
    """Multiplies (P, heads, T, C) with the image (P, h * w, C) in one product per prompt: (P, heads, T, h * w)."""
    prompts, heads, count, width = tokens.shape
    products = tokens.reshape(prompts, heads * count, width) @ image.transpose(1, 2)
    return products.view(prompts, heads, count, -1)


def _heads(attention: Attention, x: Tensor) -> Tensor:
    """Splits (P, n, heads * d) into (P, heads, n, d)."""
    heads: int = attention.num_heads
    return x.view(x.shape[0], -1, heads, x.shape[-1] // heads).transpose(1, 2)


def _head_rows(projection: nn.Linear, attention: Attention) -> Tensor:
    """Returns a projection's weight as (heads, d, C)."""
    rows: Tensor = projection.weight.view(attention.num_heads, -1, projection.in_features)
    return rows
