"""HybridGL's proposal encoder (Liu, Li, CVPR 2025): a mask alone and in its scene, whose tokens are added up.

Every mask has two inputs, both of the whole frame: *local*, with the outside filled, and *global*, with the outside
blurred. Both run through the trunk. In each masked block b, with z the multiplication of patch tokens by the mask's
weights, and A an attention in which the class token sees only itself and patches of positive weight:

* ``g2l``: x <- b(x + 2 z(g)), from x = l; read from x.
* ``l2g``: y <- b(l + 2 y; A), from y = g; read from y.
* and the inputs' own tokens l <- b(l), g <- b(g; A), where the next block needs them.

All that is on the right is of before the block. No token can be left out: every patch of l and g takes part, and A is
of the class token alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from risengine.method import Fusion
from risexport.clip.blocks import NEVER
from risexport.clip.crops import token_weights
from risexport.clip.features import mix
from risexport.clip.frames import frame_views
from risexport.clip.vit import VitTower

__all__ = ["FusedProposalEncoder"]

_ANSWERS: dict[Fusion, tuple[str, ...]] = {"g2l": ("g2l",), "l2g": ("l2g",), "both": ("g2l", "l2g")}
_NEEDED = {"g2l": "global", "l2g": "local"}
"""The input whose own tokens each answer adds in every block."""
_MASKED = ("l2g", "global")
"""What is attended to under A."""


class FusedProposalEncoder(VitTower):
    """The ``proposal_encoder`` role of a method with ``fusion``."""

    def forward(self, image: Tensor, masks: Tensor, global_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Describes every mask.

        Args:
            image: (H, W, 3) uint8 RGB.
            masks: (N, H, W) bool, N >= 1; a mask may be empty.
            global_weight: () float32 in [0, 1], the share of ``l2g`` in the mix.

        Returns:
            What ``l2g`` and ``g2l`` read, (N, E) each, raw float32, the one that is built twice where the other is not;
            and their mix (N, E), of unit length where the method compares by cosine.
        """
        tokens = self.embed(frame_views(image, masks, self.method, self.layout))
        for block in self.blocks[: self.split]:
            tokens = block(tokens)
        answers = self._fuse(tokens, token_weights(masks, self.grid, self.method))
        built = next(iter(answers.values()))
        outward, inward = answers.get("l2g", built), answers.get("g2l", built)
        return outward, inward, mix(outward, inward, global_weight, self.method)

    def _fuse(self, tokens: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Runs the masked blocks on what the trunk made of both inputs, and returns what every answer reads, (N, E)."""
        local, scene = tokens[: len(weights)], tokens[len(weights) :]
        kept = torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)
        bias = self._attention_bias(kept)
        answers = _ANSWERS[self.method.fusion]
        state = {"g2l": local, "l2g": scene, "local": local, "global": scene}
        for block in self.blocks[self.split :]:
            names = answers if block.last else (*answers, *(_NEEDED[answer] for answer in answers))
            biases = [bias if name in _MASKED else torch.zeros_like(bias) for name in names]
            if block.last:
                biases = [one[:, :, :1] for one in biases]
            result = block(torch.cat([_fused(name, state, kept) for name in names]), torch.cat(biases))
            state.update(zip(names, result.unflatten(0, (len(names), -1)).unbind(0), strict=True))
        return {name: self.read_out(state[name][:, 0]) for name in answers}

    def _attention_bias(self, kept: Tensor) -> Tensor:
        """Returns A as what is added to the logits, (N, 1, P, P), of the weights (N, P) of all tokens."""
        length = kept.shape[1]
        is_class = (torch.arange(length, device=kept.device) == 0)[:, None]
        return torch.where(is_class & (kept <= 0)[:, None], NEVER, 0.0)[:, None]


def _fused(name: str, state: dict[str, Tensor], kept: Tensor) -> Tensor:
    """Returns what a block takes: the input's own tokens, or those of an answer with the other input's added."""
    if name == "g2l":
        return state["g2l"] + 2 * kept[..., None] * state["global"]
    if name == "l2g":
        return state["local"] + 2 * state["l2g"]
    return state[name]
