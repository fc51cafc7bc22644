"""open_clip's transformer block in the layout of the exported graphs, for whole sequences and for packed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from risengine.errors import InputError

__all__ = ["NEVER", "Block", "Layout", "Packing", "constant", "require_plain_blocks", "rows"]

Layout: TypeAlias = Literal["packed", "dense"]
"""``packed`` leaves out what masks or short texts make superfluous, so that sizes inside the graph follow from their
values; ``dense`` computes it, for TensorRT, whose engines have no fast way, or none, for such sizes."""

NEVER = -1e4
"""A logit whose share of any softmax is exactly 0; within the range of float16, as minus infinity would not be."""


def constant(value: Tensor) -> nn.Parameter:
    """Returns a contiguous copy of a weight, fixed."""
    return nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Returns rows of a (R, D) table at an int64 index of any shape; exported as Gather (indexing gives GatherND)."""
    return functional.embedding(index, table)


def require_plain_blocks(blocks: nn.Module, tower: str) -> None:
    """Checks that every block is one that :class:`Block` computes.

    Raises:
        InputError: A block is of another kind.
    """
    for block in blocks.children():
        if not isinstance(block, ResidualAttentionBlock):
            raise InputError(
                f"{tower} tower has blocks of type {type(block).__name__} (qk_norm, scale_heads ...); expected "
                "ResidualAttentionBlock. Use a plain CLIP such as ViT-B-32, ViT-B-16 or ViT-L-14."
            )


@dataclass(frozen=True)
class Packing:
    """Where the T kept tokens of N masks lie: packed one after the other, or padded to K a mask.

    Attributes:
        position: (T,) int64, the token's place in the image's sequence; 0 is the class token.
        weight: (T, 1) float32, what it is multiplied by before every masked block.
        slot: (T,) int64, its index in the padded (N * K) layout.
        query: (N, K) int64, packed index of each padded slot; unused slots name any token.
        key: (N, 1 + K) int64, the same with the sink, at packed index 0, in front and in all unused slots.
        bias: (N, 1, 1, 1 + K) float32, added to the logits: log of the number of masked-out tokens for the sink, 0 for
            a kept token, :data:`NEVER` for an unused slot.
        first: (N,) int64, packed index of each mask's class token.
    """

    position: Tensor
    weight: Tensor
    slot: Tensor
    query: Tensor
    key: Tensor
    bias: Tensor
    first: Tensor


class Block(nn.Module):
    """A pre-norm transformer block; the last one of a stack reads class tokens only.

    Weights are stored (in, out), so that a graph needs no transposed copies; the attention's scale is folded into the
    query's.
    """

    def __init__(self, block: ResidualAttentionBlock, last: bool) -> None:
        """Lays the block's weights out: matrices are copied; norms, layer scales and activation are the block's own.

        Args:
            block: open_clip's block, not changed.
            last: Compute the output of the first token of each sequence only.
        """
        super().__init__()
        attention = block.attn
        width = attention.embed_dim
        self.heads = attention.num_heads
        self.last = last
        self.norm_1, self.norm_2 = block.ln_1, block.ln_2
        scale = torch.ones(3 * width)
        scale[:width] = (width // self.heads) ** -0.5
        weight = (attention.in_proj_weight * scale[:, None]).t()
        bias = attention.in_proj_bias * scale
        # Key and value of the zero vector, which the norm turns into its bias.
        self.sink = constant((block.ln_1.bias @ weight[:, width:] + bias[width:])[None])
        if last:
            self.query_weight, self.query_bias = constant(weight[:, :width]), constant(bias[:width])
            weight, bias = weight[:, width:], bias[width:]
        self.in_weight, self.in_bias = constant(weight), constant(bias)
        self.out_weight, self.out_bias = constant(attention.out_proj.weight.t()), constant(attention.out_proj.bias)
        self.scale_1, self.scale_2 = block.ls_1, block.ls_2
        self.up_weight, self.up_bias = constant(block.mlp.c_fc.weight.t()), constant(block.mlp.c_fc.bias)
        self.activation = block.mlp.gelu
        self.down_weight, self.down_bias = constant(block.mlp.c_proj.weight.t()), constant(block.mlp.c_proj.bias)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Runs the block on whole sequences.

        Args:
            tokens: (B, P, D) float32.
            bias: Added to the attention's logits, broadcast to (B, heads, P, P); None for nothing.

        Returns:
            (B, P, D) float32; (B, 1, D) from the last block.
        """
        normed = self.norm_1(tokens)
        projected = normed @ self.in_weight + self.in_bias
        if self.last:
            tokens = tokens[:, :1]
            query = normed[:, :1] @ self.query_weight + self.query_bias
            key, value = projected.chunk(2, dim=-1)
        else:
            query, key, value = projected.chunk(3, dim=-1)
        return self._finish(tokens, self._attend(query, key, value, bias))

    def masked(self, tokens: Tensor, packing: Packing) -> Tensor:
        """Runs the block on the packed tokens of all masks, already weighted, each mask attending to itself and a sink.

        Args:
            tokens: (T, D) float32.
            packing: Their layout.

        Returns:
            (T, D) float32; class tokens (N, D) from the last block.
        """
        normed = self.norm_1(tokens)
        projected = normed @ self.in_weight + self.in_bias
        if self.last:
            tokens = rows(tokens, packing.first)
            query = (rows(normed, packing.first) @ self.query_weight + self.query_bias)[:, None]
            pairs = projected
        else:
            width = tokens.shape[1]
            query, pairs = rows(projected[:, :width], packing.query), projected[:, width:]
        key, value = rows(torch.cat([self.sink, pairs]), packing.key).chunk(2, dim=-1)
        context = self._attend(query, key, value, packing.bias).flatten(0, 1)
        return self._finish(tokens, context if self.last else rows(context, packing.slot))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        query, key, value = (
            part.reshape(part.shape[0], part.shape[1], self.heads, -1).transpose(1, 2) for part in (query, key, value)
        )
        logits = query @ key.transpose(-1, -2)
        if bias is not None:
            logits = logits + bias
        return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)

    def _finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        tokens = tokens + self.scale_1(context @ self.out_weight + self.out_bias)
        hidden = self.activation(self.norm_2(tokens) @ self.up_weight + self.up_bias)
        result: Tensor = tokens + self.scale_2(hidden @ self.down_weight + self.down_bias)
        return result
