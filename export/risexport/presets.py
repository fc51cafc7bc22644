"""The two presets of the method as values: ``reference`` is the authors' arithmetic, ``clean`` repairs its oddities.

What each field means is said in :class:`risengine.method.Method`; where the values come from, in models/README.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from risengine.errors import InputError
from risengine.method import Fusion, Method

__all__ = ["PRESETS", "ClipFacts", "MaskPooling", "MethodOptions", "Preset", "TowerFamily", "method_for"]

Preset: TypeAlias = Literal["clean", "reference"]
PRESETS: tuple[Preset, ...] = ("clean", "reference")

TowerFamily: TypeAlias = Literal["vit", "resnet"]
MaskPooling: TypeAlias = Literal["area", "point"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MASKED_BLOCKS = 3
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's models
GLOBAL_WEIGHTS: dict[Fusion, float] = {
    "none": 0.95,  # the paper's choice for RefCOCO and RefCOCO+; it takes 0.85 for RefCOCOg
    "g2l": 0.0,
    "l2g": 1.0,
    "both": 0.5,  # HybridGL adds the two, which has the same direction
}
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
        url: Where the weights were downloaded from; empty for a file or random weights.
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
    url: str = ""


@dataclass(frozen=True)
class MethodOptions:
    """Values of the method that a build may choose beside its preset; None keeps the preset's.

    Their meaning is that of the fields of the same names in :class:`risengine.method.Method`.
    """

    global_weight: float | None = None
    sentence_weight: float | None = None
    masked_blocks: int | None = None
    mask_pooling: MaskPooling | None = None
    fusion: Fusion | None = None


def method_for(preset: Preset, facts: ClipFacts, options: MethodOptions | None = None) -> Method:
    """Returns the method of a preset for one CLIP model.

    Args:
        preset: ``clean`` or ``reference``.
        facts: The model.
        options: What differs from the preset.

    Raises:
        InputError: The preset is unknown, or an option is outside its range or does not suit the tower.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}.")
    chosen = {} if options is None else {k: v for k, v in asdict(options).items() if v is not None}
    _check_options(chosen, facts.family)
    reference = preset == "reference"
    fusion: Fusion = chosen.get("fusion", "none")
    # Global-Local's authors write ImageNet's mean colour into an image that is already normalised, HybridGL's CLIP's.
    written = IMAGENET_MEAN if fusion == "none" else CLIP_MEAN
    method = Method(
        preset=preset,
        image_size_px=facts.image_size_px,
        mean=IMAGENET_MEAN if reference else facts.mean,
        std=IMAGENET_STD if reference else facts.std,
        fill=written if reference else (0.0, 0.0, 0.0),
        resize="bilinear" if reference else "antialias",
        mask_pooling="point" if reference else "area",
        box_rule="centroid" if reference else "tight",
        masked_blocks=MASKED_BLOCKS if facts.family == "vit" else 0,
        global_weight=GLOBAL_WEIGHTS[fusion],
        sentence_weight=SENTENCE_WEIGHT,
        similarity="cosine" if facts.family == "vit" else "dot",
        tokenisation="spaced" if reference else "plain",
    )
    return replace(method, **chosen)


def _check_options(chosen: dict[str, Any], family: TowerFamily) -> None:
    masked_blocks = chosen.get("masked_blocks", 0)
    if family == "resnet" and masked_blocks != 0:
        raise InputError(
            f"masked_blocks = {masked_blocks}; expected 0 for a ResNet tower, which masks its last feature map and has "
            "no transformer blocks. Leave --masked-blocks out."
        )
    pooling = chosen.get("mask_pooling", "area")
    if pooling not in get_args(MaskPooling):
        raise InputError(f"mask_pooling = {pooling!r}; expected one of {', '.join(get_args(MaskPooling))}.")
    fusion = chosen.get("fusion", "none")
    if fusion not in get_args(Fusion):
        raise InputError(f"fusion = {fusion!r}; expected one of {', '.join(get_args(Fusion))}.")
    if family == "resnet" and fusion != "none":
        raise InputError(
            f"fusion = {fusion!r}; expected none for a ResNet tower, which has no tokens to add. Leave --fusion out, "
            "or use a ViT such as ViT-B-16."
        )
