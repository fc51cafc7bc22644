"""One question asked from the image's file to the mask, stage by stage: what both sides of a latency report tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from risengine.types import EncodedImage, Proposals, Segmentation

__all__ = ["STAGES", "ModelFiles", "PathRun", "PathSide", "Task", "expressions"]

STAGES = {
    "decode": "image file to pixels",
    "image_encode": "SAM's image encoder",
    "prompts": "SAM's decoder at every point",
    "filter": "stability, NMS and the drawing of masks",
    "proposal_features": "CLIP's features of every mask",
    "phrase": "spaCy's parse and the noun phrase",
    "text": "CLIP's text encoder",
    "score": "comparison with every mask",
    "mask_out": "decoding of the chosen mask",
}
"""The stages in order."""

_SIZES = ("small", "large", "tiny", "huge", "wide", "narrow", "tall", "short")
# fmt: off
_COLOURS = (
    "red", "green", "blue", "yellow", "white", "black", "brown", "gray", "orange", "purple", "pink", "golden",
    "silver", "dark", "pale", "bright",
)
_THINGS = (
    "mug", "bowl", "box", "plate", "bottle", "cup", "book", "lamp", "chair", "table", "phone", "spoon", "fork",
    "knife", "apple", "banana", "carrot", "lemon", "basket", "tray", "bag", "hat", "shoe", "coat", "clock", "vase",
    "plant", "kettle", "jar", "can", "tin", "brush", "pen", "ruler", "towel", "pillow", "candle", "mirror", "pan",
    "stool",
)
# fmt: on
_PLACES = ("on the left", "on the right", "at the front", "at the back")


def expressions() -> Iterator[str]:
    """Yields expressions without end.

    5,120 of them have another noun phrase each, more than the engine remembers features of, so that no answer is quick
    because it was given before.
    """
    for place in itertools.cycle(_PLACES):
        for size, colour, thing in itertools.product(_SIZES, _COLOURS, _THINGS):
            yield f"the {size} {colour} {thing} {place}"


@dataclass(frozen=True)
class Task:
    """What is asked of either side.

    Attributes:
        image: File of the image.
        masks: Described in place of what SAM proposes, after SAM has run all the same; None for SAM's own masks.
    """

    image: Path
    masks: Proposals | None = None


@dataclass(frozen=True)
class ModelFiles:
    """Where the models that a bundle was made from are found, as far as its manifest does not say.

    Attributes:
        clip: open_clip name or path of a JSON configuration; the manifest's where None.
        clip_checkpoint: CLIP's weights; not needed for random ones.
        sam_checkpoint: SAM's.
    """

    clip: str | None = None
    clip_checkpoint: Path | None = None
    sam_checkpoint: Path | None = None


@dataclass(frozen=True)
class PathRun:
    """One answer.

    Attributes:
        stages_ms: Milliseconds of each of :data:`STAGES` that the side has.
        whole_ms: From the image's file to the mask.
        proposed: What SAM proposed.
        encoded: The image, encoded.
        answer: The answer.
    """

    stages_ms: dict[str, float]
    whole_ms: float
    proposed: Proposals = field(repr=False)
    encoded: EncodedImage = field(repr=False)
    answer: Segmentation = field(repr=False)


class PathSide(Protocol):
    """The engine, or the PyTorch reference."""

    def ask(self, text: str) -> PathRun:
        """Answers a question about the task's image, which is read and encoded anew."""
        ...

    def ask_again(self, encoded: EncodedImage, text: str) -> float:
        """Answers a further question about an encoded image; returns the milliseconds it took."""
        ...
