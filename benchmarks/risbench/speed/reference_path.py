"""The PyTorch reference's whole path, stage by stage, from the models that a bundle was made from."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from risbench.machine.watch import timed_calls
from risbench.reference import ReferencePipeline
from risbench.reference.proposals import generate_records, pack_records
from risbench.speed.whole_path import ModelFiles, PathRun, Task
from risengine.errors import InputError
from risengine.images import load_image
from risengine.manifest import Manifest, Source
from risengine.method import Method, ProposalSettings
from risengine.types import EncodedImage
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checkpoints.sam_checkpoints import SamFacts, load_sam

__all__ = ["Models", "ReferencePath", "has_random_weights", "load_models", "open_reference"]

_RANDOM = "random"
_TABLETOP = Path(__file__).resolve().parents[3] / "models" / "tabletop"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """A bundle's models in PyTorch, in evaluation mode."""

    clip: CLIP
    context_length: int
    sam: Sam
    sam_facts: SamFacts


def has_random_weights(manifest: Manifest, role: Literal["clip", "sam"]) -> bool:
    """Tells whether one of a bundle's models was never trained."""
    return _source(manifest, role).checkpoint == _RANDOM


def load_models(manifest: Manifest, files: ModelFiles, weights_needed: bool = True) -> Models:
    """Loads the models that a bundle was made from.

    The repository's own checkpoints are found by their names. Random weights are made again: they are always the same.

    Args:
        manifest: The bundle's.
        files: Where the models are, as far as the manifest does not say.
        weights_needed: Whether a checkpoint that is not found is an error; random weights will do to count arithmetic.

    Raises:
        InputError: A model or checkpoint is not found, or is not the bundle's.
    """
    clip_source, sam_source = _source(manifest, "clip"), _source(manifest, "sam")
    clip, clip_facts = load_clip(
        files.clip or _in_repository(clip_source.model, _TABLETOP),
        _checkpoint(clip_source, files.clip_checkpoint, weights_needed),
    )
    sam, sam_facts = load_sam(sam_source.model, _checkpoint(sam_source, files.sam_checkpoint, weights_needed))
    for source, sha256 in ((clip_source, clip_facts.sha256), (sam_source, sam_facts.sha256)):
        if sha256 != source.sha256 and (sha256 or weights_needed):
            raise InputError(
                f"the {source.role} checkpoint has SHA-256 {sha256[:16]}...; bundle {manifest.name} was made from "
                f"{source.checkpoint}, {source.sha256[:16]}.... Pass that one as --{source.role}-checkpoint."
            )
    if not isinstance(clip, CLIP):
        raise InputError(f"{clip_source.model} is a {type(clip).__name__}; the reference runs open_clip's CLIP only.")
    return Models(clip, clip_facts.context_length, sam, sam_facts)


def open_reference(models: Models, method: Method, settings: ProposalSettings, task: Task) -> ReferencePath:
    """Puts the reference together with the method and the settings of an engine."""
    tokenizer = SimpleTokenizer(context_length=models.context_length)
    return ReferencePath(ReferencePipeline(models.clip, tokenizer, models.sam, method, settings), task)


class ReferencePath:
    """Asks the reference, and looks on.

    What only packs its masks for the engine's types belongs to no stage, and the whole is the sum of the stages.

    Attributes:
        pipeline: The reference.
        task: What it is asked.
    """

    def __init__(self, pipeline: ReferencePipeline, task: Task) -> None:
        """Takes a pipeline whose models are loaded."""
        self.pipeline, self.task = pipeline, task

    def ask(self, text: str) -> PathRun:
        """See :class:`~risbench.speed.whole_path.PathSide`."""
        pipeline, task = self.pipeline, self.task
        sam = pipeline.sam
        with (
            torch.inference_mode(),
            timed_calls(SamAutomaticMaskGenerator, "generate") as generations_ms,
            timed_calls(SamPredictor, "set_image") as encodings_ms,
            timed_calls(type(sam.prompt_encoder), "forward") as prompts_ms,
            timed_calls(type(sam.mask_decoder), "forward") as decodings_ms,
        ):
            start = time.perf_counter()
            pixels = load_image(task.image)
            decode_ms = 1e3 * (time.perf_counter() - start)
            if task.masks is None:
                encoded = pipeline.encode_image(pixels)
                proposed = encoded.proposals
            else:
                records = generate_records(sam, pixels, pipeline.proposals)
                proposed = pack_records(records, (pixels.shape[0], pixels.shape[1]))
                encoded = pipeline.encode_image(pixels, masks=task.masks)
            answer = pipeline.segment(encoded, text)
        own = answer.timings_ms
        asked_ms = sum(prompts_ms) + sum(decodings_ms)
        stages_ms = {
            "decode": decode_ms,
            "image_encode": sum(encodings_ms),
            "prompts": asked_ms,
            "filter": sum(generations_ms) - sum(encodings_ms) - asked_ms,
            "proposal_features": own["proposal_features"],
            "phrase": own["phrase"],
            "text": own["text_features"],
            "score": own["score"],
        }
        return PathRun(stages_ms, sum(stages_ms.values()), proposed, encoded, answer)

    def ask_again(self, encoded: EncodedImage, text: str) -> float:
        """See :class:`~risbench.speed.whole_path.PathSide`."""
        with torch.inference_mode():
            timings = self.pipeline.segment(encoded, text).timings_ms
        return sum(timings[stage] for stage in ("phrase", "text_features", "score"))


def _source(manifest: Manifest, role: Literal["clip", "sam"]) -> Source:
    (source,) = (source for source in manifest.sources if source.role == role)
    return source


def _in_repository(name: str, folder: Path) -> str:
    path = folder / name
    return str(path) if path.is_file() else name


def _checkpoint(source: Source, given: Path | None, needed: bool) -> Path | None:
    if given is not None:
        return given
    if source.checkpoint == _RANDOM:
        return None
    path = Path(_in_repository(source.checkpoint, _TABLETOP / "weights"))
    if path.is_file():
        return path
    if needed:
        raise InputError(
            f"{source.role} was built from {source.checkpoint}, which is not in this folder. Pass its path as "
            f"--{source.role}-checkpoint."
        )
    _logger.warning("%s is not needed to count the arithmetic of %s: random weights do", source.checkpoint, source.role)
    return None
