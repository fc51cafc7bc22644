"""The text encoder: token ids in, CLIP text features out, equal to open_clip's ``encode_text``.

Attention is causal, so that nothing after the end token reaches the feature: in the packed layout the graph computes
the longest text's tokens instead of the whole context.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from risengine.errors import InputError
from risexport.clip.blocks import NEVER, Block, Layout, constant, require_plain_blocks, rows
from risexport.clip.features import unit

__all__ = ["ClipTextEncoder"]

_logger = logging.getLogger(__name__)


class ClipTextEncoder(nn.Module):
    """The ``text_encoder`` role for an open_clip model with CLIP's own causal text tower."""

    def __init__(self, clip: nn.Module, normalised: bool = False, layout: Layout = "packed") -> None:
        """Lays the text tower's weights out for the exported graph.

        Matrices and embeddings are copied; norms, layer scales and activations are the model's own modules. The model
        is not changed.

        Args:
            clip: open_clip's ``CLIP``, which holds the tower's parts itself, or ``CustomTextCLIP``, which has a tower.
            normalised: Give features of unit length. A method that compares by product mixes such, and their mix is no
                longer normalised by anyone.
            layout: Whether what follows the longest text is left out.

        Raises:
            InputError: The text tower is not causal, reads its feature elsewhere than at the end token, or has blocks
                that this encoder does not compute.
        """
        super().__init__()
        self.normalised, self.layout = normalised, layout
        tower: Any = getattr(clip, "text", clip)
        pooling = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)
        plain = hasattr(tower, "token_embedding") and getattr(tower, "cls_emb", None) is None
        if not plain or pooling != "argmax" or tower.attn_mask is None:
            kind = "the text tower" if tower is clip else f"the text tower, a {type(tower).__name__},"
            raise InputError(
                f"{kind} pools by {pooling!r}; expected CLIP's causal text transformer, read at its end token. Use a "
                "plain CLIP such as ViT-B-32, ViT-B-16 or ViT-L-14."
            )
        require_plain_blocks(tower.transformer.resblocks, "text")
        table, self.id_map = _compact(tower.token_embedding.weight)
        self.table = constant(table)
        self.positions = constant(tower.positional_embedding)
        self.blocks = nn.ModuleList(Block(block, last=False) for block in tower.transformer.resblocks)
        self.norm_final = tower.ln_final
        self.projection, self.projection_bias = _projection(tower)

    def forward(self, tokens: Tensor) -> Tensor:
        """Describes texts.

        Args:
            tokens: (T, context_length) int64: start, text, end, zeros; the end token has the highest id.

        Returns:
            (T, E) float32, of unit length if ``normalised``.
        """
        end = tokens.argmax(-1)
        length: Any = tokens.shape[1]
        if self.layout == "packed":
            length = end.max().item() + 1
            torch._check(length >= 1)
            torch._check(length <= tokens.shape[1])
            tokens = tokens[:, :length]
        if self.id_map is not None:
            tokens = torch.index_select(self.id_map, 0, tokens.flatten()).reshape(tokens.shape)
        states = rows(self.table, tokens) + self.positions[:length]
        order = torch.arange(length, device=tokens.device)
        future = torch.where(order > order[:, None], NEVER, 0.0)
        for block in self.blocks:
            states = block(states, future)
        first = torch.arange(states.shape[0], device=tokens.device) * length
        features: Tensor = self.norm_final(rows(states.flatten(0, 1), first + end))
        if self.projection is not None:
            features = features @ self.projection
        if self.projection_bias is not None:
            features = features + self.projection_bias
        return unit(features) if self.normalised else features


def _compact(embedding: Tensor) -> tuple[Tensor, nn.Parameter | None]:
    """Stores equal rows of a token table once, behind a map from id to row, where at least half of them are equal.

    A model trained on few words leaves most of the table untouched; with one row for all of them it is small, and says
    what an unseen word means.

    Args:
        embedding: (V, D) float32, a row for each token id.

    Returns:
        The distinct rows (R, D) and the (V,) int64 map, or the table itself and None.
    """
    table = np.ascontiguousarray(embedding.detach().cpu().numpy())
    keys = table.view(np.dtype((np.void, table.shape[1] * table.itemsize)))[:, 0]
    _, first, row = np.unique(keys, return_index=True, return_inverse=True)
    if 2 * len(first) > len(table):
        return embedding, None
    _logger.info("token table: %d distinct rows of %d are kept", len(first), len(table))
    return embedding[torch.from_numpy(first)], constant(torch.from_numpy(row))


def _projection(tower: Any) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    projection = tower.text_projection
    if projection is None:
        return None, None
    if isinstance(projection, nn.Linear):
        return constant(projection.weight.t()), None if projection.bias is None else constant(projection.bias)
    return constant(projection), None
