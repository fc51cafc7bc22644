"""Building a bundle: checkpoints in, a complete and measured directory out, or nothing at all."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import nn

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

_PACKAGES = ("risengine", "torch", "open_clip_torch", "segment-anything", "onnx", "onnxscript", "onnxruntime")
_SPARE_BYTES = 64 << 20
_DISK_ERRORS = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class _Part:
    """One model's share of the bundle."""

    source: Source
    graphs: dict[Role, GraphSpec]
    parity: list[Parity]


def build(config: BuildConfig, progress: Progress = lambda stage: None) -> Path:
    """Builds a bundle.

    Everything is written into a hidden directory beside ``config.out`` and renamed when complete; a build that fails or
    is interrupted removes it. The two models are loaded one after the other, so that only one is in memory.

    Args:
        config: What to build.
        progress: Called with the name of each of :data:`STAGES` when it begins.

    Returns:
        ``config.out``.

    Raises:
        InputError: A model, checkpoint or setting cannot be used, ``out`` exists without ``force`` or is no bundle, it
            cannot be written, or the disk is too small.
        BackendError: A graph could not be exported or run.
        ParityError: A graph differs from the PyTorch reference by more than its tolerance.
    """
    _check_out(config)
    with _staging(config.out) as folder:
        clip, method, text = _build_clip(config, folder, progress)
        gc.collect()
        sam, side_px = _build_sam(config, folder, progress)
        progress("finish")
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=config.name or config.out.resolve().name,
            license=config.license,
            precision=config.precision,
            target=config.target,
            sources=(clip.source, sam.source),
            graphs={**sam.graphs, **clip.graphs},
            text=text,
            method=method,
            proposals=config.proposals,
            sam_image_size_px=side_px,
            compiler=Compiler(versions={package: version(package) for package in _PACKAGES}),
            parity=(*sam.parity, *clip.parity),
        )
        (folder / MANIFEST_NAME).write_bytes(manifest.encode())
        _publish(folder, config.out)
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


def _check_out(config: BuildConfig) -> None:
    out = config.out
    if not out.exists():
        return
    if not config.force:
        raise InputError(f"{out} exists; expected a new directory. Choose another OUT, or pass --force to replace it.")
    if not (out / MANIFEST_NAME).is_file():
        raise InputError(f"{out} exists and is no bundle (no {MANIFEST_NAME}); it is not replaced. Choose another OUT.")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yields a new directory beside ``out`` and removes what is left of it; failures to write become InputError."""
    folder = out.resolve().parent / f".{out.resolve().name}.building-{os.getpid()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _not_writable(out, error) from error
    try:
        yield folder
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise _not_writable(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _not_writable(out: Path, error: OSError) -> InputError:
    return InputError(f"bundle {out} cannot be written: {error.strerror}. Choose an OUT on a writable disk with space.")


def _publish(folder: Path, out: Path) -> None:
    """Renames the finished directory; a replaced bundle is only removed after that."""
    if not out.exists():
        folder.rename(out)
        return
    replaced = folder.with_name(f"{folder.name}-replaced")
    out.rename(replaced)
    try:
        folder.rename(out)
    except OSError:
        replaced.rename(out)
        raise
    shutil.rmtree(replaced)
