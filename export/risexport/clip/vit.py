"""The proposal encoder for vision transformers: image and masks in, global, local and mixed features out, in one graph.

Two savings, both exact up to rounding (derivation in models/README.md):

* The image's trunk runs once, as one more item of the crops' batch; only the last k blocks run per mask.
* In those blocks a masked-out token is the zero vector, so that all M of them share one key and one value, and what
  they become is erased before the next block. They are one *sink* key whose logit gets ``+ log M``. The tokens kept by
  all masks lie packed in one (T, D) sequence, so that no linear layer computes padding. The dense layout does without
  this: zero tokens are zero tokens.
"""

from __future__ import annotations

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from risengine.errors import InputError
from risengine.method import Method
from risexport.clip.blocks import NEVER, Block, Layout, Packing, constant, require_plain_blocks, rows
from risexport.clip.crops import square_views, token_weights
from risexport.clip.features import mix

__all__ = ["VitProposalEncoder", "VitTower"]


class VitTower(nn.Module):
    """An open_clip ``VisionTransformer`` with a class token, laid out for the graphs; a subclass says what is run."""

    def __init__(self, visual: nn.Module, method: Method, layout: Layout = "packed") -> None:
        """Lays the tower's weights out for the exported graph.

        Matrices and embeddings are copied; the patches' convolution, norms, layer scales and activations are the
        tower's own modules. The tower is not changed.

        Args:
            visual: The image tower.
            method: Values of the method.
            layout: Whether masked-out tokens are left out.

        Raises:
            InputError: The tower has no class token to read, or parts that this encoder does not compute; or the
                method's image size or number of masked blocks does not fit it.
        """
        super().__init__()
        tower = _check_tower(visual, method)
        self.method, self.layout = method, layout
        self.grid = tower.grid_size[0]
        self.patches = tower.conv1
        self.class_token = constant(tower.class_embedding + tower.positional_embedding[0])
        self.positions = constant(tower.positional_embedding[1:])
        self.norm_pre = tower.ln_pre
        blocks = tower.transformer.resblocks
        self.blocks = nn.ModuleList(Block(block, last=block is blocks[-1]) for block in blocks)
        self.norm_post = tower.ln_post
        self.projection = constant(tower.proj)

    @property
    def split(self) -> int:
        """Index of the first masked block."""
        return len(self.blocks) - self.method.masked_blocks

    def embed(self, views: Tensor) -> Tensor:
        """Returns the tokens (B, 1 + T, D) that the blocks start from, of inputs (B, 3, S, S)."""
        patches = self.patches(views).flatten(2).transpose(1, 2) + self.positions
        class_token = self.class_token.expand(patches.shape[0], 1, -1)
        tokens: Tensor = self.norm_pre(torch.cat([class_token, patches], dim=1))
        return tokens

    def read_out(self, class_tokens: Tensor) -> Tensor:
        """Returns features (B, E), raw, of class tokens (B, D)."""
        features: Tensor = self.norm_post(class_tokens) @ self.projection
        return features


class VitProposalEncoder(VitTower):
    """The ``proposal_encoder`` role of the method itself."""

    def forward(self, image: Tensor, masks: Tensor, global_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Describes every mask by what it is in its scene and by what it is alone.

        Args:
            image: (H, W, 3) uint8 RGB.
            masks: (N, H, W) bool, N >= 1; a mask may be empty.
            global_weight: () float32 in [0, 1], v of the mix.

        Returns:
            global features (N, E) and local features (N, E), both raw float32, and their mix (N, E), of unit length
            where the method compares by cosine.
        """
        tokens = self.embed(square_views(image, masks, self.method, self.layout))
        for block in self.blocks[: self.split]:
            tokens = block(tokens)
        weights = token_weights(masks, self.grid, self.method)
        global_features = self.masked_tail(tokens[0], weights)
        local_features = self._local(tokens[1:])
        return global_features, local_features, mix(global_features, local_features, global_weight, self.method)

    def _local(self, tokens: Tensor) -> Tensor:
        for block in self.blocks[self.split :]:
            tokens = block(tokens)
        return self.read_out(tokens[:, 0])

    def masked_tail(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """Runs the last k blocks once per mask.

        Args:
            tokens: (1 + T, D) float32, what the trunk made of the image: class token, then image tokens.
            weights: (N, T) float32 in [0, 1], the share of the mask in every image token.

        Returns:
            global features (N, E) float32, raw.
        """
        blocks = self.blocks[self.split :]
        if self.layout == "dense":
            weighted = torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)[..., None]
            for block in blocks:
                tokens = block(tokens * weighted)
            return self.read_out(tokens[:, 0])
        packing = _pack(weights)
        packed = rows(tokens, packing.position)
        for block in blocks:
            packed = block.masked(packed * packing.weight, packing)  # type: ignore[operator]
        return self.read_out(packed)


def _pack(weights: Tensor) -> Packing:
    """Lays out the tokens of every mask whose weight is positive, and its class token (weights (N, g * g) float32)."""
    weights = torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)
    kept = weights > 0
    mask_index, position = torch.nonzero(kept, as_tuple=True)
    counts = kept.sum(1)
    first = counts.cumsum(0) - counts
    begin = first.index_select(0, mask_index)
    longest = counts.max().item()
    torch._check(longest >= 1)
    torch._check(longest <= weights.shape[1])
    order = torch.arange(longest, device=weights.device)
    used = order < counts[:, None]
    query = torch.where(used, first[:, None] + order, 0)
    masked_out = weights.shape[1] - counts[:, None]
    sink_bias = torch.where(masked_out > 0, masked_out.clamp(min=1).float().log(), NEVER)
    return Packing(
        position=position,
        weight=weights.flatten().index_select(0, mask_index * weights.shape[1] + position)[:, None],
        slot=mask_index * longest + torch.arange(position.shape[0], device=weights.device) - begin,
        query=query,
        key=torch.cat([torch.zeros_like(first)[:, None], torch.where(used, query + 1, 0)], dim=1),
        bias=torch.cat([sink_bias, torch.where(used, 0.0, NEVER)], dim=1)[:, None, None],
        first=first,
    )


def _check_tower(visual: nn.Module, method: Method) -> VisionTransformer:
    remedy = "Use a plain CLIP ViT such as ViT-B-32, ViT-B-16 or ViT-L-14."
    if not isinstance(visual, VisionTransformer):
        raise InputError(f"image tower is a {type(visual).__name__}; expected open_clip's VisionTransformer. {remedy}")
    if visual.attn_pool is not None:
        raise InputError(
            "image tower ends in attentional pooling; expected a class token, because the masked global feature is "
            f"defined by that token's attention. {remedy}"
        )
    if visual.pool_type != "tok":
        raise InputError(
            f"image tower pools by {visual.pool_type!r}; expected 'tok': the masked global feature is read off the "
            f"class token, which a tower without one, or one that averages its patches, does not train. {remedy}"
        )
    blocks = visual.transformer.resblocks
    require_plain_blocks(blocks, "image")
    size, patch = visual.image_size, visual.patch_size
    if size != (method.image_size_px,) * 2 or patch[0] != patch[1] or size[0] % patch[0]:
        raise InputError(
            f"image tower takes {size[0]} x {size[1]} px in patches of {patch[0]} x {patch[1]}; expected a square of "
            f"{method.image_size_px} px, divisible into square patches. Derive the method from this model's facts."
        )
    if not 1 <= method.masked_blocks <= len(blocks):
        raise InputError(
            f"masked_blocks = {method.masked_blocks}; expected 1 to {len(blocks)}, the number of the tower's blocks. "
            "Choose it with --masked-blocks."
        )
    return visual
