"""The proposal encoder for CLIP's ResNets: image and masks in, global, local and mixed features out, in one graph.

The image is one more item of the crops' batch, so that the convolutions run once. A mask then weighs the image's
feature map, and CLIP's attention pool reads the result. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from risengine.errors import InputError
from risengine.method import Method
from risexport.clip.blocks import Layout, constant
from risexport.clip.crops import square_views, token_weights
from risexport.clip.features import mix, unit

__all__ = ["ResnetProposalEncoder"]

_STRIDE = 32
"""Pixels of the square input along one side of a location of the feature map."""


class ResnetProposalEncoder(nn.Module):
    """The ``proposal_encoder`` role for an open_clip ``ModifiedResNet``."""

    def __init__(self, visual: nn.Module, method: Method, layout: Layout = "packed") -> None:
        """Copies the tower's weights into the layout of the exported graph; the tower is not changed.

        Args:
            visual: The image tower.
            method: Values of the method.
            layout: How the crops are cut.

        Raises:
            InputError: The tower is no CLIP ResNet, or the method's image size does not fit it.
        """
        super().__init__()
        tower = _check_tower(visual, method)
        self.method, self.layout = method, layout
        self.grid = tower.image_size // _STRIDE
        self.trunk = _folded_trunk(tower)
        self.pool = _Pool(tower.attnpool)

    def forward(self, image: Tensor, masks: Tensor, global_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Describes every mask by what it is in its scene and by what it is alone.

        Args:
            image: (H, W, 3) uint8 RGB.
            masks: (N, H, W) bool, N >= 1; a mask may be empty.
            global_weight: () float32 in [0, 1], v of the mix.

        Returns:
            raw global features (N, E), local features (N, E) of unit length, and their mix (N, E), raw where the method
            compares by product; all float32.
        """
        maps = self.trunk(square_views(image, masks, self.method, self.layout)).flatten(2)
        weights = token_weights(masks, self.grid, self.method)
        global_features = self.pool(functional.normalize(maps[0], dim=0), weights)
        local_features = unit(self.pool(maps[1:], torch.ones_like(weights)))
        return global_features, local_features, mix(global_features, local_features, global_weight, self.method)


class _Pool(nn.Module):
    """CLIP's attention pool over weighted locations, without projecting any location to a key or a value.

    Its tokens are ``t_p = w_p x_p + e_p``, for P locations x_p with weights w_p and positional embeddings e_p, and
    ``t_0 = sum(w_p x_p) / P + e_0``, whose query alone is read. Keys and values are linear in x. For a head's query q

    * the logit of t_p is ``w_p (W_k' q).x_p + q.(W_k e_p)``, and that of t_0 has the mean of the first terms in place
      of the first term; the key's bias adds the same to all of them, which the softmax does not see;
    * with attention a, which sums to 1, the context is ``W_v sum((a_p + a_0 / P) w_p x_p) + sum(a_p (W_v e_p + b_v))``.

    So W_k and W_v meet one vector a head instead of P + 1 tokens, and what belongs to positions is constant.
    """

    def __init__(self, pool: AttentionPool2d) -> None:
        super().__init__()
        heads, width = pool.num_heads, pool.q_proj.in_features
        positions = pool.positional_embedding
        scale = (width // heads) ** -0.5
        self.query_weight = constant(scale * pool.q_proj.weight.t())
        self.query_bias = constant(scale * pool.q_proj(positions[0]))
        self.key_weight = constant(pool.k_proj.weight.reshape(heads, -1, width))
        key_positions = positions @ pool.k_proj.weight.t()
        self.key_positions = constant(key_positions.reshape(len(positions), heads, -1).permute(1, 2, 0))
        self.value_weight = constant(pool.v_proj.weight.reshape(heads, -1, width).transpose(1, 2))
        value_positions = pool.v_proj(positions)
        self.value_positions = constant(value_positions.reshape(len(positions), heads, -1).transpose(0, 1))
        self.out_weight, self.out_bias = constant(pool.c_proj.weight.t()), constant(pool.c_proj.bias)

    def forward(self, maps: Tensor, weights: Tensor) -> Tensor:
        """Pools N weightings of one map, or of a map each.

        Args:
            maps: (C, P) or (N, C, P) float32.
            weights: (N, P) float32.

        Returns:
            (N, E) float32, not normalised.
        """
        heads, places = self.key_weight.shape[0], weights.shape[1]
        weights = weights[:, None]
        locations = maps.transpose(-1, -2)
        mean = (weights @ locations)[:, 0] / places
        # heads first, so that a product reads each head's matrix once for all masks
        query = (mean @ self.query_weight + self.query_bias).reshape(mean.shape[0], heads, -1).transpose(0, 1)
        scores = ((query @ self.key_weight).transpose(0, 1) @ maps) * weights
        logits = torch.cat([scores.mean(-1, keepdim=True), scores], dim=-1)
        attention = (logits + (query @ self.key_positions).transpose(0, 1)).softmax(-1)
        shares = (attention[..., 1:] + attention[..., :1] / places) * weights
        context = (shares @ locations).transpose(0, 1) @ self.value_weight
        context = context + attention.transpose(0, 1) @ self.value_positions
        features: Tensor = context.transpose(0, 1).flatten(1) @ self.out_weight + self.out_bias
        return features


def _folded_trunk(tower: ModifiedResNet) -> nn.Module:
    """Copies the tower up to its feature map, with every batch norm folded into the convolution before it."""
    trunk: nn.Module = deepcopy(tower).eval()
    trunk.attnpool = nn.Identity()
    for parent in list(trunk.modules()):
        for (name, layer), (next_name, following) in pairwise(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, following))
                setattr(parent, next_name, nn.Identity())
    return trunk


def _check_tower(visual: nn.Module, method: Method) -> ModifiedResNet:
    if not isinstance(visual, ModifiedResNet):
        raise InputError(
            f"image tower is a {type(visual).__name__}; expected open_clip's ModifiedResNet. Use one of CLIP's ResNets "
            "such as RN50, RN101 or RN50x4."
        )
    size = visual.image_size
    if size != method.image_size_px or size % _STRIDE:
        raise InputError(
            f"image tower takes squares of {size} px; expected {method.image_size_px} px, a multiple of {_STRIDE}. "
            "Derive the method from this model's facts."
        )
    return visual
