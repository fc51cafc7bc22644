"""The two presets of the method as values: ``reference`` is the authors' arithmetic, ``clean`` repairs its oddities.

What each field means is said in :class:`risengine.manifest.Method`; where the values come from, in models/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from risengine.errors import InputError
from risengine.manifest import Method

__all__ = ["PRESETS", "ClipFacts", "Preset", "TowerFamily", "method_for"]

Preset: TypeAlias = Literal["clean", "reference"]
PRESETS: tuple[Preset, ...] = ("clean", "reference")

TowerFamily: TypeAlias = Literal["vit", "resnet"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MASKED_BLOCKS = 3
GLOBAL_WEIGHT = 0.95  # the paper's choice for RefCOCO and RefCOCO+; it takes 0.85 for RefCOCOg
SENTENCE_WEIGHT = 0.5


@dataclass(frozen=True)
class ClipFacts:
    """What the export needs to know about a CLIP model beside its weights.

    Attributes:
        model: open_clip name, or path of the JSON configuration.
        checkpoint: Path or tag of the weights; ``random`` for none.
        sha256: SHA-256 of the checkpoint's file in hex; empty for random weights.
        family: Kind of the image tower.
        image_size_px: Side of its square input.
        embed_dim: Length E of the features.
        context_length: Tokens of the text input.
        mean: The model's own mean per channel, of values in [0, 1].
        std: The model's own standard deviation per channel.
    """

    model: str
    checkpoint: str
    sha256: str
    family: TowerFamily
    image_size_px: int
    embed_dim: int
    context_length: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def method_for(preset: Preset, facts: ClipFacts, global_weight: float = GLOBAL_WEIGHT) -> Method:
    """Returns the method of a preset for one CLIP model.

    Args:
        preset: ``clean`` or ``reference``.
        facts: The model.
        global_weight: v, the share of the global feature, in [0, 1].

    Raises:
        InputError: The preset is unknown or ``global_weight`` lies outside [0, 1].
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}.")
    if not 0.0 <= global_weight <= 1.0:
        raise InputError(f"global_weight = {global_weight}; expected a share in [0, 1], for example {GLOBAL_WEIGHT}.")
    reference = preset == "reference"
    return Method(
        preset=preset,
        image_size_px=facts.image_size_px,
        mean=IMAGENET_MEAN if reference else facts.mean,
        std=IMAGENET_STD if reference else facts.std,
        # The authors write ImageNet's mean colour into an image that is already normalised.
        fill=IMAGENET_MEAN if reference else (0.0, 0.0, 0.0),
        resize="bilinear" if reference else "antialias",
        mask_pooling="point" if reference else "area",
        box_rule="centroid" if reference else "tight",
        masked_blocks=MASKED_BLOCKS if facts.family == "vit" else 0,
        global_weight=global_weight,
        sentence_weight=SENTENCE_WEIGHT,
        similarity="cosine" if facts.family == "vit" else "dot",
        tokenisation="spaced" if reference else "plain",
    )
