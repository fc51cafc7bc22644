"""SAM models by name or factory, with weights from a checkpoint."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything.build_sam import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam

from risengine.bundle import file_sha256
from risengine.errors import InputError
from risexport.checkpoint_files import load_weights, nearest_names, read_state_dict

__all__ = ["SAM_MODELS", "SamFacts", "load_sam"]

SAM_MODELS: dict[str, Callable[[], Sam]] = {
    "vit_b": build_sam_vit_b,
    "vit_l": build_sam_vit_l,
    "vit_h": build_sam_vit_h,
}
"""Architectures by the names segment-anything gives them; each call makes a model with fresh weights."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamFacts:
    """What the export needs to know about a SAM model beside its weights.

    Attributes:
        model: Name in :data:`SAM_MODELS`, or ``module:function``.
        checkpoint: File name of the weights; ``random`` for none.
        sha256: SHA-256 of the checkpoint's file in hex; empty for random weights.
        image_size_px: Side of the square input.
    """

    model: str
    checkpoint: str
    sha256: str
    image_size_px: int


def load_sam(model: str, checkpoint: Path | None = None) -> tuple[Sam, SamFacts]:
    """Builds a SAM and loads its weights.

    Args:
        model: A name in :data:`SAM_MODELS`, or ``module:function`` of a function without arguments that returns a
            segment-anything ``Sam`` with any image encoder; the module is imported.
        checkpoint: File of the weights. Without one they are random (always the same), for measurements of speed and
            parity: the masks mean nothing.

    Returns:
        The model in evaluation mode, and its facts.

    Raises:
        InputError: The model is unknown or no ``Sam``, or the checkpoint cannot be read, is unsafe, or does not fit.
    """
    build = _factory(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sam = build()
    if not isinstance(sam, Sam):
        raise InputError(f"{model} returned a {type(sam).__name__}; expected segment_anything.modeling.Sam.")
    if checkpoint is None:
        _logger.warning("%s has random weights: no checkpoint was given, its masks mean nothing", model)
        name, sha256 = "random", ""
    else:
        load_weights(sam, read_state_dict(checkpoint), f"SAM checkpoint {checkpoint} for {model}")
        name, sha256 = checkpoint.name, file_sha256(checkpoint)
    sam.eval().requires_grad_(False)
    return sam, SamFacts(model, name, sha256, sam.image_encoder.img_size)


def _factory(model: str) -> Callable[[], Sam]:
    if model in SAM_MODELS:
        return SAM_MODELS[model]
    module_name, separator, function = model.partition(":")
    if not separator:
        raise InputError(f"SAM model {model!r} is unknown; {nearest_names(model, SAM_MODELS)} Or give module:function.")
    try:
        found: Callable[[], Sam] = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"SAM model {model!r}: expected module:function of an importable function ({error}). "
            "Check the spelling and PYTHONPATH."
        ) from error
    return found
