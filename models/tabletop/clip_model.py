"""The small CLIP: its config, its compact token table, and the method's features in differentiable batches.

The features are those of the engine's "clean" preset: an image branch whose patch tokens are weighted by the mask
before each of the last blocks, and a crop branch on the mask's box with everything else filled by the mean colour
(Yu, Seo, Son, CVPR 2023).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from risexport.clip.blocks import NEVER
from risexport.presets import MASKED_BLOCKS, SENTENCE_WEIGHT

CONFIG_PATH = Path(__file__).with_name("clip.json")

GLOBAL_WEIGHT = 0.5
"""Share v of the image branch in the visual feature; for this model, not the preset's."""


def load_config() -> dict[str, Any]:
    """Reads the config that `open_clip.model.CLIP(**config)` accepts."""
    config: dict[str, Any] = json.loads(CONFIG_PATH.read_text(encoding="utf-8"))
    return config


@functools.lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@functools.lru_cache(maxsize=65536)
def _word_ids(word: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(word))


class TokenTable:
    """Maps CLIP's token ids to rows of a compact embedding table; row 0 stands for every word never seen.

    Rows keep the order of the ids, so that the end-of-text token stays the greatest, where CLIP looks for it.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        """Takes the ids that get a row of their own.

        Args:
            ids: Token ids of the corpus. Start and end of text are added; id 0 is left out, since it is the padding.
        """
        tokenizer = _tokenizer()
        self._ends = (tokenizer.sot_token_id, tokenizer.eot_token_id)
        self.ids = tuple(sorted({*ids, *self._ends} - {0}))
        self._row_of = {token: row for row, token in enumerate(self.ids, start=1)}

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> TokenTable:
        """Makes the table of a corpus.

        Args:
            texts: The corpus' texts.

        Returns:
            A table with a row for every token that occurs.
        """
        words = {word for text in texts for word in text.lower().split()}
        return cls(token for word in words for token in _word_ids(word))

    def __len__(self) -> int:
        """Counts the rows."""
        return len(self.ids) + 1

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Turns texts into rows of the table.

        Args:
            texts: T texts.

        Returns:
            (T, L) int64, L the longest text's length plus one free place; padded with 0 behind the end of text.
        """
        start, end = self._ends
        found = [[start, *(i for word in text.lower().split() for i in _word_ids(word)), end] for text in texts]
        rows = torch.zeros((len(found), max(map(len, found)) + 1), dtype=torch.long)
        for row, tokens in zip(rows, found, strict=True):
            row[: len(tokens)] = torch.tensor([self._row_of.get(token, 0) for token in tokens])
        return rows

    def expand(self, compact: Tensor, vocabulary: int) -> Tensor:
        """Gives every token id its embedding; ids without a row share row 0.

        Args:
            compact: (len(self), D) float embeddings.
            vocabulary: Number of token ids.

        Returns:
            (vocabulary, D), the dtype of `compact`.
        """
        full = compact[:1].repeat(vocabulary, 1)
        full[torch.tensor(self.ids, device=compact.device)] = compact[1:]
        return full


def build_clip(config: dict[str, Any], vocabulary: int, image_size: int | None = None) -> CLIP:
    """Builds the model with a token table of another length.

    Args:
        config: As in `clip.json`.
        vocabulary: Rows of the token table.
        image_size: Side of the image input in pixels; the config's when left out.

    Returns:
        The model with fresh weights.
    """
    vision = {**config["vision_cfg"], "image_size": image_size or config["vision_cfg"]["image_size"]}
    return CLIP(**{**config, "vision_cfg": vision, "text_cfg": {**config["text_cfg"], "vocab_size": vocabulary}})


@dataclass(frozen=True)
class VisualInputs:
    """What the two visual branches look at; S is the model's image size, G its number of patch tokens.

    Attributes:
        squashed: (B, 3, S, S) float, whole images, normalised.
        weights: (V, G) float, share of every token's cell that the mask covers, 0 to 1.
        crops: (V, 3, S, S) float, the masks' boxes with everything else 0, normalised.
        owner: (V,) int64, the image of every mask.
    """

    squashed: Tensor
    weights: Tensor
    crops: Tensor
    owner: Tensor


def _embed(model: CLIP, images: Tensor) -> Tensor:
    # Under autocast the convolution answers in bfloat16; the residual stream stays float32.
    tokens: Tensor = model.visual._embeds(images).float()
    return tokens


def _pool(model: CLIP, tokens: Tensor) -> Tensor:
    features: Tensor = model.visual.ln_post(tokens[:, 0]) @ model.visual.proj
    return features.float()


def global_features(model: CLIP, inputs: VisualInputs) -> Tensor:
    """Describes every mask inside its scene (method: global branch).

    Only the tokens that some mask of the batch keeps are computed, padded to the most that one keeps; those of weight
    0 are one key and value, as in the exported graph.

    Args:
        model: The CLIP.
        inputs: What to describe.

    Returns:
        (V, E) raw features, float32.
    """
    blocks = list(model.visual.transformer.resblocks)
    tokens = _embed(model, inputs.squashed)
    for block in blocks[:-MASKED_BLOCKS]:
        tokens = block(tokens)
    weights = F.pad(inputs.weights, (1, 0), value=1.0)
    kept = weights > 0
    counts = kept.sum(1)
    longest = int(counts.max())
    place = torch.argsort(kept.byte(), dim=1, descending=True, stable=True)[:, :longest]
    used = torch.arange(longest, device=place.device) < counts[:, None]
    weight = weights.gather(1, place)[:, :, None]
    masked_out = (weights.shape[1] - counts)[:, None]
    sink = torch.where(masked_out > 0, masked_out.clamp(min=1).float().log(), NEVER)
    bias = torch.cat([sink, torch.where(used, 0.0, NEVER)], dim=1)[:, None, None]
    tokens = tokens[inputs.owner[:, None], place]
    for block in blocks[-MASKED_BLOCKS:]:
        tokens = _masked_block(block, tokens * weight, bias)
    return _pool(model, tokens)


def _masked_block(block: ResidualAttentionBlock, tokens: Tensor, bias: Tensor) -> Tensor:
    """A block on (V, K, D) kept tokens, whose keys begin with that of the zero token; bias (V, 1, 1, 1 + K)."""
    attention = block.attn
    # The zero token, which layer normalisation turns into its bias, goes first.
    normed = block.ln_1(F.pad(tokens, (0, 0, 1, 0)))
    query, key, value = (
        part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2)
        for part in F.linear(normed, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    )
    context = F.scaled_dot_product_attention(query[:, :, 1:], key, value, attn_mask=bias.to(query.dtype))
    tokens = tokens + attention.out_proj(context.transpose(1, 2).flatten(2))
    result: Tensor = tokens + block.mlp(block.ln_2(tokens))
    return result


def local_features(model: CLIP, inputs: VisualInputs) -> Tensor:
    """Describes every mask cut out (method: local branch).

    Args:
        model: The CLIP.
        inputs: What to describe.

    Returns:
        (V, E) raw features, float32.
    """
    tokens = _embed(model, inputs.crops)
    for block in model.visual.transformer.resblocks:
        tokens = block(tokens)
    return _pool(model, tokens)


def visual_features(model: CLIP, inputs: VisualInputs) -> Tensor:
    """Describes every mask by the mix of both branches.

    Args:
        model: The CLIP.
        inputs: What to describe.

    Returns:
        (V, E) raw features, float32.
    """
    return GLOBAL_WEIGHT * global_features(model, inputs) + (1 - GLOBAL_WEIGHT) * local_features(model, inputs)


def encode_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """Encodes texts shorter than the context; equal to `encode_text` of the padded text, because CLIP's text is causal.

    Args:
        model: The CLIP.
        tokens: (T, L) int64 rows of its token table, L at most the context length.

    Returns:
        (T, E) raw features.
    """
    length = tokens.shape[1]
    embedded = model.token_embedding(tokens) + model.positional_embedding[:length]
    hidden = model.transformer(embedded, attn_mask=model.attn_mask[:length, :length])
    # The end of text has the greatest row.
    ends = hidden[torch.arange(len(tokens), device=tokens.device), tokens.argmax(1)]
    features: Tensor = model.ln_final(ends) @ model.text_projection
    return features


def text_features(model: CLIP, sentences: Tensor, phrases: Tensor) -> Tensor:
    """Mixes sentence and noun phrase.

    Args:
        model: The CLIP.
        sentences: (T, L) int64 rows of its token table.
        phrases: (T, L) int64 rows of its token table.

    Returns:
        (T, E) raw features, float32.
    """
    sentence, phrase = encode_tokens(model, torch.cat([sentences, phrases])).float().chunk(2)
    return SENTENCE_WEIGHT * sentence + (1 - SENTENCE_WEIGHT) * phrase
