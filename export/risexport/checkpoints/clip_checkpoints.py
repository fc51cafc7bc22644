"""CLIP models from open_clip names or JSON configurations, with weights from files or open_clip's tags."""

from __future__ import annotations

import json
import logging
import math
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf, get_pretrained_cfg
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from risengine.bundle import file_sha256
from risengine.errors import InputError
from risexport.checkpoints.checkpoint_files import load_weights, nearest_names, read_state_dict
from risexport.presets import ClipFacts, TowerFamily
from risexport.tokenizer import VOCABULARY_SIZE

__all__ = ["load_clip"]

_HUB = "hf-hub:"
_HUB_ADDRESS = "https://huggingface.co/"
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recipe:
    """Name, architecture (open_clip's model configuration) and preprocessing (``mean``, ``std``) of a model."""

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]


@dataclass(frozen=True)
class _Weights:
    """A checkpoint's file, its name in the manifest (a tag, or the file's), and its address if it was downloaded."""

    path: Path
    name: str
    url: str = ""


def load_clip(model: str, checkpoint: str | Path | None = None) -> tuple[nn.Module, ClipFacts]:
    """Builds a CLIP and loads its weights.

    Args:
        model: An open_clip name (``ViT-B-32``; OpenAI's spelling ``ViT-B/32`` too), the path of a JSON file with
            open_clip's model configuration, or ``hf-hub:owner/repository``.
        checkpoint: File of the weights (``.safetensors``, a file of ``torch.save``, OpenAI's TorchScript archive), or a
            tag that open_clip lists for the model, which is downloaded. Without one, a hub model brings its own, and
            any other gets random weights (always the same), for measurements of speed and parity.

    Returns:
        open_clip's ``CLIP`` or ``CustomTextCLIP`` in float32 and evaluation mode, and its facts.

    Raises:
        InputError: The model is unknown or of a kind that the method cannot use; the checkpoint is missing, unsafe,
            damaged or of another architecture; a download fails.
    """
    recipe = _read_recipe(model)
    weights, recipe = _find_weights(recipe, model, checkpoint)
    state = {} if weights is None else _read_state(weights.path)
    if any(name in state for name in _OPENAI_EXTRAS):
        _logger.info("the checkpoint of %s is one of OpenAI's, which were trained with QuickGELU", model)
        recipe = _with_quick_gelu(recipe)
    clip = _build(recipe)
    facts = _facts(clip, recipe, weights)
    if weights is None:
        _logger.warning("%s has random weights: no checkpoint was given, its features mean nothing", model)
    else:
        adapted, source = _adapt(state, clip), f"CLIP checkpoint {weights.path} for {model}"
        _check_context(adapted, facts.context_length, source)
        load_weights(clip, adapted, source)
    return clip.eval().requires_grad_(False), facts


def _read_recipe(model: str) -> _Recipe:
    if model.startswith(_HUB):
        repository = model.removeprefix(_HUB)
        path = _download(model, lambda: download_pretrained_from_hf(repository, filename="open_clip_config.json"))
        return _read_json(model, path)
    if model.endswith(".json"):
        return _read_json(Path(model).name, Path(model))
    name = model.replace("/", "-")
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise InputError(
            f"CLIP model {model!r} is unknown to open_clip {open_clip.__version__}; "
            f"{nearest_names(name, open_clip.list_models())} A path of a JSON configuration is taken too."
        )
    return _Recipe(name, config, {})


def _read_json(name: str, path: Path) -> _Recipe:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"CLIP configuration {path} cannot be read ({error.strerror}). Check the path.") from error
    except ValueError as error:
        raise InputError(f"CLIP configuration {path} is not JSON: {error}.") from error
    config = content.get("model_cfg", content) if isinstance(content, dict) else {}
    required = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    missing = [key for key, kind in required.items() if not isinstance(config.get(key), kind)]
    if missing:
        raise InputError(f"CLIP configuration {path} lacks {', '.join(missing)}; expected open_clip's model keys.")
    preprocess = content.get("preprocess_cfg", {})
    for key in ("mean", "std"):
        values: Any = preprocess.get(key, OPENAI_DATASET_STD) if isinstance(preprocess, dict) else None
        if not _is_triple(values) or (key == "std" and min(values) <= 0):
            raise InputError(
                f"CLIP configuration {path}: preprocess_cfg.{key} is {values!r}; expected three numbers"
                f"{' above 0' if key == 'std' else ''}, or no preprocess_cfg for OpenAI's."
            )
    return _Recipe(name, config, preprocess)


def _is_triple(values: Any) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == 3
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )


def _find_weights(recipe: _Recipe, model: str, checkpoint: str | Path | None) -> tuple[_Weights | None, _Recipe]:
    """Finds the weights to load, none for random ones; a tag may change the recipe."""
    if checkpoint is not None:
        path = Path(checkpoint)
        if path.is_dir():
            raise InputError(f"CLIP checkpoint {path} is a folder; expected a file or a tag. Name the file inside it.")
        return (_Weights(path, path.name), recipe) if path.is_file() else _find_tag(recipe, str(checkpoint))
    if not model.startswith(_HUB):
        return None, recipe
    repository = model.removeprefix(_HUB)
    path = _download(model, lambda: download_pretrained_from_hf(repository))
    return _Weights(path, path.name, f"{_HUB_ADDRESS}{repository}"), recipe


def _find_tag(recipe: _Recipe, tag: str) -> tuple[_Weights, _Recipe]:
    tags = open_clip.list_pretrained_tags_by_model(recipe.name)
    entry = get_pretrained_cfg(recipe.name, tag)
    if not entry:
        advice = nearest_names(tag, tags) if tags else f"open_clip lists no tags for {recipe.name}."
        raise InputError(f"checkpoint {tag!r} is neither a file nor an open_clip tag of {recipe.name}; {advice}")
    if entry.get("quick_gelu", False):
        recipe = _with_quick_gelu(recipe)
    path = _download(f"{recipe.name}, tag {tag}", lambda: download_pretrained(entry))
    repository = entry.get("hf_hub", "").rpartition("/")[0]  # "owner/repository/file"; open_clip prefers it to the url
    address = f"{_HUB_ADDRESS}{repository}" if repository else entry.get("url", "")
    return _Weights(path, tag, address), _Recipe(recipe.name, recipe.config, dict(entry))


def _download(what: str, fetch: Callable[[], str]) -> Path:
    try:
        return Path(fetch())
    except Exception as error:  # every hub client raises types of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{what} could not be downloaded: {reason}. Download it on a machine with a network and pass the file."
        ) from error


def _with_quick_gelu(recipe: _Recipe) -> _Recipe:
    return _Recipe(recipe.name, {**recipe.config, "quick_gelu": True}, recipe.preprocess)


def _read_state(path: Path) -> dict[str, Tensor]:
    if _is_torchscript(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # it is how OpenAI published its models
                script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InputError(f"checkpoint {path} is a damaged TorchScript archive. Get it again.") from error
        # Attributes such as input_resolution are no parameters of the rebuilt model but mark the archive as OpenAI's.
        return dict(script.state_dict())
    return read_state_dict(path)


def _is_torchscript(path: Path) -> bool:
    """Tells whether a file is an archive of TorchScript, one that is safe to open.

    Raises:
        InputError: Opening it would run code of the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/constants.pkl") for name in names):
                return False
            # `torch.jit.load` runs nothing else of an archive.
            if any("/code/" in name and b"__setstate__" in archive.read(name) for name in names):
                raise InputError(
                    f"checkpoint {path} is a TorchScript archive with code that runs when it is opened (__setstate__); "
                    "expected tensors alone. Save its state dict with torch.save on a machine that trusts it."
                )
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error):  # not a zip, or a damaged one: the reader says which
        return False
    return True


def _build(recipe: _Recipe) -> nn.Module:
    config = deepcopy(recipe.config)
    text, vision = config["text_cfg"], config["vision_cfg"]
    remedy = "Use a plain CLIP such as ViT-B-32, ViT-B-16 or ViT-L-14."
    if vision.get("timm_model_name"):
        raise InputError(
            f"{recipe.name} has the image tower {vision['timm_model_name']} of timm; expected open_clip's "
            "VisionTransformer with a class token, whose attention defines the masked global feature. SigLIP's towers "
            f"have none: they pool their patches. {remedy}"
        )
    if "multimodal_cfg" in config:
        raise InputError(
            f"{recipe.name} is a CoCa: a captioner, whose image tower ends in attentional pooling instead of a class "
            f"token that the masked global feature could be read from. {remedy}"
        )
    if text.get("hf_model_name"):
        raise InputError(f"{recipe.name} has a text tower other than CLIP's, with a tokenizer of its own. {remedy}")
    if text.get("hf_tokenizer_name") or text.get("vocab_size", VOCABULARY_SIZE) != VOCABULARY_SIZE:
        raise InputError(
            f"{recipe.name} has its own tokenizer or a vocabulary of {text.get('vocab_size')} tokens; expected CLIP's "
            f"{VOCABULARY_SIZE}. {remedy}"
        )
    custom_text = config.pop("custom_text", False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            clip: nn.Module = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(f"CLIP configuration {recipe.name} is not one that open_clip builds: {error}.") from error
    return clip


def _facts(clip: nn.Module, recipe: _Recipe, weights: _Weights | None) -> ClipFacts:
    visual: Any = clip.visual
    families: dict[type, TowerFamily] = {VisionTransformer: "vit", ModifiedResNet: "resnet"}
    if type(visual) not in families:
        raise InputError(f"{recipe.name} has an image tower {type(visual).__name__}; expected CLIP's ViT or ResNet.")
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(f"{recipe.name} takes images of {height} x {width} px; expected a square.")
    return ClipFacts(
        model=recipe.name,
        checkpoint="random" if weights is None else weights.name,
        sha256="" if weights is None else file_sha256(weights.path),
        family=families[type(visual)],
        image_size_px=height,
        embed_dim=recipe.config["embed_dim"],
        context_length=_context_length(clip),
        mean=_triple(recipe.preprocess.get("mean", OPENAI_DATASET_MEAN)),
        std=_triple(recipe.preprocess.get("std", OPENAI_DATASET_STD)),
        url="" if weights is None else weights.url,
    )


def _context_length(clip: Any) -> int:
    length: int = clip.context_length
    return length


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _check_context(state: Mapping[str, Tensor], context_length: int, source: str) -> None:
    """Says what is wrong where only the length of the texts differs, which the shapes alone hardly tell."""
    positions = state.get("positional_embedding", state.get("text.positional_embedding"))
    if positions is not None and positions.ndim == 2 and len(positions) != context_length:
        raise InputError(
            f"{source}: positional_embedding is for a text context of {len(positions)} tokens, the model's "
            f"configuration says {context_length}. Pass a JSON configuration of the model with "
            f"text_cfg.context_length = {len(positions)} as --clip."
        )


def _adapt(state: Mapping[str, Tensor], clip: nn.Module) -> dict[str, Tensor]:
    """Renames what open_clip renamed between its versions; everything else must fit as it is."""
    adapted = {name: value for name, value in state.items() if name not in _OPENAI_EXTRAS}
    if not hasattr(clip, "positional_embedding"):
        adapted = convert_to_custom_text_state_dict(adapted)
    for name in ("logit_scale", "logit_bias"):  # written as a scalar by some versions, as one element by others
        parameter = getattr(clip, name, None)
        if name in adapted and parameter is not None and adapted[name].numel() == 1:
            adapted[name] = adapted[name].reshape(parameter.shape)
    return adapted
