"""SAM models by name or factory, with weights from a checkpoint."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything.build_sam import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam
from torch import Tensor

from risengine.bundle import file_sha256
from risengine.errors import InputError
from risexport.checkpoints.checkpoint_files import load_weights, nearest_names, read_state_dict
from risexport.checkpoints.mobile_sam import build_sam_vit_t, load_mobile_sam

__all__ = ["SAM_MODELS", "SamFacts", "load_sam"]

SAM_MODELS: dict[str, Callable[[], Sam]] = {
    "vit_b": build_sam_vit_b,
    "vit_l": build_sam_vit_l,
    "vit_h": build_sam_vit_h,
    "vit_t": build_sam_vit_t,
}
"""Architectures by the names segment-anything and MobileSAM give them; each call makes a model with fresh weights."""

_LOADERS: dict[str, Callable[[Sam, Mapping[str, Tensor], str], None]] = {"vit_t": load_mobile_sam}
"""How weights are loaded where the checkpoint's names are not the model's."""

_MULTIMASK_OUTPUTS = 3

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
        InputError: The model is unknown, cannot be built, is no ``Sam`` or none of three masks a prompt, or the
            checkpoint cannot be read, is unsafe, or does not fit.
    """
    sam = _build(model)
    if checkpoint is None:
        _logger.warning("%s has random weights: no checkpoint was given, its masks mean nothing", model)
        name, sha256 = "random", ""
    else:
        load = _LOADERS.get(model, load_weights)
        load(sam, read_state_dict(checkpoint), f"SAM checkpoint {checkpoint} for {model}")
        name, sha256 = checkpoint.name, file_sha256(checkpoint)
    sam.eval().requires_grad_(False)
    return sam, SamFacts(model, name, sha256, sam.image_encoder.img_size)


def _build(model: str) -> Sam:
    build = _factory(model)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sam = build()
    except Exception as error:  # whatever the caller's own code raises
        raise InputError(
            f"SAM model {model} cannot be built: {type(error).__name__}: {error}. Expected a function that takes no "
            "arguments and returns a segment_anything.modeling.Sam; call it on its own to correct it."
        ) from error
    if not isinstance(sam, Sam):
        raise InputError(
            f"SAM model {model} is a {type(sam).__name__}; expected a segment_anything.modeling.Sam. Return one from "
            f"the function, or use one of {', '.join(SAM_MODELS)}."
        )
    masks = getattr(sam.mask_decoder, "num_multimask_outputs", None)
    if masks != _MULTIMASK_OUTPUTS:
        raise InputError(
            f"SAM model {model} decodes {masks} masks a prompt; expected {_MULTIMASK_OUTPUTS}. Build its MaskDecoder "
            f"with num_multimask_outputs={_MULTIMASK_OUTPUTS}, or use one of {', '.join(SAM_MODELS)}."
        )
    return sam


def _factory(model: str) -> Callable[[], Sam]:
    if model in SAM_MODELS:
        return SAM_MODELS[model]
    module_name, separator, function = model.partition(":")
    if not separator:
        raise InputError(f"SAM model {model!r} is unknown; {nearest_names(model, SAM_MODELS)} Or give module:function.")
    try:
        found: Callable[[], Sam] = getattr(importlib.import_module(module_name), function)
    except Exception as error:  # an import runs the module's code, which may raise anything
        raise InputError(
            f"SAM model {model!r}: expected module:function of an importable function ({type(error).__name__}: "
            f"{error}). Check the spelling and PYTHONPATH, and that the module imports on its own."
        ) from error
    return found
