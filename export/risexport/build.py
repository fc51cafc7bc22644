"""Building a bundle: checkpoints in, a complete and measured directory out, or nothing at all."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime
from torch import nn

import risengine
from risengine.bundle import file_sha256
from risengine.config import RuntimeConfig
from risengine.errors import InputError
from risengine.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Compiler,
    FileSpec,
    GraphSpec,
    Manifest,
    Method,
    Parity,
    Role,
    Source,
    TextSpec,
)
from risengine.session import OnnxSession
from risexport.clip_checkpoints import load_clip
from risexport.config import BuildConfig
from risexport.graphs import GraphPlan, clip_graphs, sam_graphs
from risexport.output_folder import check_out, publish, staging
from risexport.parity import TOLERANCES, measure_clip, measure_sam
from risexport.presets import method_for
from risexport.sam_checkpoints import load_sam
from risexport.tokenizer import write_tokenizer

__all__ = ["STAGES", "Progress", "build"]

TOKENIZER_NAME = "tokenizer.json"

STAGES = (
    "load CLIP",
    "export proposal_encoder",
    "export text_encoder",
    "compare CLIP with PyTorch",
    "load SAM",
    "export image_encoder",
    "export point_decoder",
    "export mask_decoder",
    "compare SAM with PyTorch",
    "finish",
)
"""The stages of a build in order, as ``progress`` is told of them."""

Progress = Callable[[str], None]

_PACKAGES = ("torch", "open_clip_torch", "segment-anything", "onnx", "onnx-ir", "onnxscript")
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class _Part:
    """One model's share of the bundle."""

    source: Source
    graphs: dict[Role, GraphSpec]
    parity: list[Parity]


def build(config: BuildConfig, progress: Progress = lambda stage: None) -> Path:
    """Builds a bundle.

    Everything is written into a hidden directory beside ``config.out`` and renamed when complete; a build that fails or
    is interrupted removes it. A symbolic link at ``config.out`` stays one: what it points to is written. The two models
    are loaded one after the other, so that only one is in memory.

    Args:
        config: What to build.
        progress: Called with the name of each of :data:`STAGES` when it begins.

    Returns:
        ``config.out``.

    Raises:
        InputError: A model, checkpoint or setting cannot be used, ``out`` exists without ``force`` or is no bundle
            alone, it cannot be written, or the disk is too small.
        BackendError: A graph could not be exported or run.
        ParityError: A graph differs from the PyTorch reference by more than its tolerance.
    """
    out = Path(os.path.realpath(config.out))
    versions = _versions()
    check_out(out, config.force)
    with staging(out) as folder:
        clip, method, text = _build_clip(config, folder, progress)
        gc.collect()
        sam, side_px = _build_sam(config, folder, progress)
        progress("finish")
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=config.name or out.name,
            license=config.license,
            precision=config.precision,
            target=config.target,
            sources=(clip.source, sam.source),
            graphs={**sam.graphs, **clip.graphs},
            text=text,
            method=method,
            proposals=config.proposals,
            sam_image_size_px=side_px,
            compiler=Compiler(versions=versions),
            parity=(*sam.parity, *clip.parity),
        )
        (folder / MANIFEST_NAME).write_bytes(manifest.encode())
        publish(folder, out, config.force)
    return config.out


def _build_clip(config: BuildConfig, folder: Path, progress: Progress) -> tuple[_Part, Method, TextSpec]:
    progress("load CLIP")
    clip, facts = load_clip(config.clip, config.clip_checkpoint)
    method = method_for(config.preset, facts, config.global_weight)
    graphs = _export(clip, clip_graphs(clip, method), folder, progress)
    tokenizer_path = folder / TOKENIZER_NAME
    write_tokenizer(clip, tokenizer_path)
    tokenizer = FileSpec(TOKENIZER_NAME, file_sha256(tokenizer_path), tokenizer_path.stat().st_size)
    progress("compare CLIP with PyTorch")
    with _sessions(graphs, folder) as sessions:
        parity = measure_clip(sessions, clip, method, TOLERANCES[config.precision])
    source = Source("clip", facts.model, facts.checkpoint, facts.sha256, config.clip_license or config.license)
    return _Part(source, graphs, parity), method, TextSpec(tokenizer, facts.context_length)


def _build_sam(config: BuildConfig, folder: Path, progress: Progress) -> tuple[_Part, int]:
    progress("load SAM")
    sam, facts = load_sam(config.sam, config.sam_checkpoint)
    graphs = _export(sam, sam_graphs(sam), folder, progress)
    progress("compare SAM with PyTorch")
    with _sessions(graphs, folder) as sessions:
        parity = measure_sam(sessions, sam, TOLERANCES[config.precision])
    source = Source("sam", facts.model, facts.checkpoint, facts.sha256, config.sam_license or config.license)
    return _Part(source, graphs, parity), facts.image_size_px


def _export(model: nn.Module, plans: list[GraphPlan], folder: Path, progress: Progress) -> dict[Role, GraphSpec]:
    weights = sum(value.numel() * 4 for value in model.state_dict().values())
    free = shutil.disk_usage(folder).free
    needed = weights + _SPARE_BYTES
    if free < needed:
        raise InputError(
            f"disk of {folder.parent} has {free / 1e6:.0f} MB free; expected at least {needed / 1e6:.0f} MB for the "
            "graphs. Free some space or choose another OUT."
        )
    graphs: dict[Role, GraphSpec] = {}
    for plan in plans:
        progress(f"export {plan.role}")
        graphs[plan.role] = plan.export(folder)
    return graphs


@contextmanager
def _sessions(graphs: dict[Role, GraphSpec], folder: Path) -> Iterator[dict[Role, OnnxSession]]:
    sessions = {role: OnnxSession(folder / spec.file, spec, RuntimeConfig()) for role, spec in graphs.items()}
    try:
        yield sessions
    finally:
        for session in sessions.values():
            session.close()


def _versions() -> dict[str, str]:
    """Returns what built the bundle. ``onnxruntime`` is the module, which packages of several names provide."""
    versions = {"risengine": risengine.__version__, "onnxruntime": onnxruntime.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # the module is there, from a checkout or under another package's name
            versions[package] = "unknown"
    return versions
