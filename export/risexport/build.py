"""Building a bundle: checkpoints in, a complete and measured directory out, or nothing at all."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

import onnxruntime
from torch import nn

import risengine
from risengine.backends.devices import find_device, usable_devices
from risengine.bundle import file_sha256, open_bundle
from risengine.config import RuntimeConfig
from risengine.errors import InputError
from risengine.manifest import (
    FORMAT_VERSION,
    HOST_TARGETS,
    MANIFEST_NAME,
    Compiler,
    FileSpec,
    GraphSpec,
    Manifest,
    Parity,
    Role,
    Source,
    Target,
    TextSpec,
)
from risengine.method import Method
from risengine.vectors import VECTORS_NAME, write_vectors
from risengine.verify import verify_bundle
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checkpoints.sam_checkpoints import load_sam
from risexport.checks.parity import TOLERANCES, ParityError, measure_clip, measure_sam
from risexport.checks.references import ClipReference, SamReference, clip_reference, sam_reference
from risexport.checks.vectors import make_vectors
from risexport.config import BuildConfig, EngineOptions, NativeTarget, Precision
from risexport.graphs import GraphPlan, clip_graphs, measurer_graph, sam_graphs
from risexport.half.reduction import Comparison, halve, open_sessions
from risexport.native.engines import EngineBuilder
from risexport.output_folder import check_out, publish, staging
from risexport.presets import method_for
from risexport.sam.mask_measurer import measure_masks
from risexport.tokenizer import write_tokenizer

__all__ = ["STAGES", "Progress", "build", "stages"]

_logger = logging.getLogger(__name__)

TOKENIZER_NAME = "tokenizer.json"

STAGES = (
    "load CLIP",
    "run CLIP in PyTorch",
    "export proposal_encoder",
    "export text_encoder",
    "compare CLIP with PyTorch",
    "load SAM",
    "run SAM in PyTorch",
    "export image_encoder",
    "export image_projector",
    "export point_decoder",
    "export mask_decoder",
    "compare SAM with PyTorch",
    "verify the bundle",
)
"""The stages of a build in single precision, of graphs that are not compiled further."""

_ROLES: dict[str, tuple[Role, ...]] = {
    "CLIP": ("proposal_encoder", "text_encoder"),
    "SAM": ("image_encoder", "image_projector", "point_decoder", "mask_decoder", "mask_measurer"),
}


def stages(precision: Precision, target: Target) -> tuple[str, ...]:
    """Returns the stages of a build in order, as ``progress`` is told of them."""
    found = list(STAGES)
    for model, roles in _ROLES.items():
        end = found.index(f"compare {model} with PyTorch") + 1
        compiled = [f"compile {role}" for role in roles] if target in get_args(NativeTarget) else []
        measured = [_EXPORT_MEASURER] if model == "SAM" and target not in HOST_TARGETS else []
        found[end:end] = [*measured, *compiled]
    if precision == "fp16":
        halving = {f"compare {model} with PyTorch": f"halve and compare {model}" for model in _ROLES}
        found = [halving.get(stage, stage) for stage in found]
    return tuple(found)


_EXPORT_MEASURER = "export mask_measurer"

Progress = Callable[[str], None]
"""Called with a stage, or with ``stage: detail`` while one goes on."""

_PACKAGES = ("torch", "open_clip_torch", "segment-anything", "onnx", "onnx-ir", "onnxscript", "timm")
_SPARE_BYTES = 64 << 20
_BYTES_PER_WEIGHT: dict[Precision, int] = {"fp32": 4, "fp16": 4 + 4 + 4}
"""Most on disk while a model's graphs are made; for fp16 as exported, as rounded, and the result."""


@dataclass(frozen=True)
class _Model:
    """The plans of a model's graphs, and how they are compared with it."""

    name: Literal["CLIP", "SAM"]
    plans: list[GraphPlan]
    measure: Comparison


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
        progress: Called with the name of each of :func:`stages` when it begins.

    Returns:
        ``config.out``.

    Raises:
        InputError: A model, checkpoint or setting cannot be used, ``out`` exists without ``force`` or is no bundle
            alone, it cannot be written, or the disk is too small.
        BackendError: A graph could not be exported, run or compiled, or the compiler is missing.
        ParityError: A graph differs from the PyTorch reference by more than its tolerance, or the finished bundle does
            not pass its own verification.
    """
    out = Path(os.path.realpath(config.out))
    versions = _versions()
    check_out(out, config.force)
    compiler = _engine_builder(config)
    if compiler is not None:
        versions[compiler.name] = compiler.version
    with staging(out) as folder:
        clip, clip_values, method, text = _build_clip(config, folder, progress)
        gc.collect()
        clip = _compile(clip, compiler, folder, progress)
        sam, sam_values, side_px = _build_sam(config, folder, progress)
        gc.collect()
        sam = _compile(sam, compiler, folder, progress)
        progress("verify the bundle")
        vectors_path = folder / VECTORS_NAME
        write_vectors(vectors_path, make_vectors(sam_values, clip_values))
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
            vectors=_file_spec(vectors_path),
            compiler=Compiler(versions=versions),
            parity=(*sam.parity, *clip.parity),
        )
        (folder / MANIFEST_NAME).write_bytes(manifest.encode())
        _verify(folder)
        publish(folder, out, config.force)
        if compiler is not None:
            compiler.save_timing_cache()
    return config.out


def _engine_builder(config: BuildConfig) -> EngineBuilder | None:
    if config.target == "tensorrt" or config.target == "tensorrt-rtx":
        return EngineBuilder(config.target, config.engine)
    if config.engine != EngineOptions():
        raise InputError(
            f"target {config.target} has no engines, but options for them were given; expected a target of "
            f"{', '.join(get_args(NativeTarget))}. Leave them out, or choose such a target."
        )
    return None


def _compile(part: _Part, compiler: EngineBuilder | None, folder: Path, progress: Progress) -> _Part:
    """Puts engines in the place of a model's graphs."""
    if compiler is None:
        return part
    engines: dict[Role, GraphSpec] = {}
    for role, spec in part.graphs.items():
        progress(f"compile {role}")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            for file in (spec, *spec.external):
                (folder / file.file).rename(Path(name) / file.file)
            engines[role] = compiler.compile(role, spec, Path(name), folder, progress)
    return replace(part, graphs=engines)


def _build_clip(config: BuildConfig, folder: Path, progress: Progress) -> tuple[_Part, ClipReference, Method, TextSpec]:
    progress("load CLIP")
    clip, facts = load_clip(config.clip, config.clip_checkpoint)
    _check_disk(clip, config.precision, folder)
    method = method_for(config.preset, facts, config.method)
    plans = clip_graphs(clip, method, "dense" if config.target in get_args(NativeTarget) else "packed")
    tokenizer_path = folder / TOKENIZER_NAME
    write_tokenizer(clip, tokenizer_path)
    progress("run CLIP in PyTorch")
    reference = clip_reference(clip, method)
    model = _Model("CLIP", plans, partial(measure_clip, reference=reference, method=method))
    del clip, plans  # its weights are let go with the last graph that is written
    graphs, parity = _make_graphs(model, config.precision, folder, progress)
    license_ = config.clip_license or config.license
    source = Source("clip", facts.model, facts.checkpoint, facts.sha256, license_, facts.url)
    return _Part(source, graphs, parity), reference, method, TextSpec(_file_spec(tokenizer_path), facts.context_length)


def _build_sam(config: BuildConfig, folder: Path, progress: Progress) -> tuple[_Part, SamReference, int]:
    progress("load SAM")
    sam, facts = load_sam(config.sam, config.sam_checkpoint)
    _check_disk(sam, config.precision, folder)
    plans = sam_graphs(sam)
    rows, columns = sam.prompt_encoder.image_embedding_size
    progress("run SAM in PyTorch")
    reference = sam_reference(sam)
    model = _Model("SAM", plans, partial(measure_sam, reference=reference))
    del sam, plans  # as above
    graphs, parity = _make_graphs(model, config.precision, folder, progress)
    if config.target not in HOST_TARGETS:
        progress(_EXPORT_MEASURER)
        graphs["mask_measurer"] = measurer_graph((4 * rows, 4 * columns)).export(folder)
        with open_sessions({"mask_measurer": graphs["mask_measurer"]}, folder) as sessions:
            tolerances = TOLERANCES[config.precision]
            parity += measure_masks(sessions["mask_measurer"], reference, facts.image_size_px, tolerances)
    source = Source("sam", facts.model, facts.checkpoint, facts.sha256, config.sam_license or config.license)
    return _Part(source, graphs, parity), reference, facts.image_size_px


def _check_disk(model: nn.Module, precision: Precision, folder: Path) -> None:
    weights = sum(value.numel() for value in model.state_dict().values())
    free = shutil.disk_usage(folder).free
    needed = weights * _BYTES_PER_WEIGHT[precision] + _SPARE_BYTES
    if free < needed:
        raise InputError(
            f"disk of {folder.parent} has {free / 1e6:.0f} MB free; expected at least {needed / 1e6:.0f} MB for the "
            "graphs. Free some space or choose another OUT."
        )


def _make_graphs(
    model: _Model, precision: Precision, folder: Path, progress: Progress
) -> tuple[dict[Role, GraphSpec], list[Parity]]:
    """Writes a model's graphs and compares them with it."""
    if precision == "fp16":
        with tempfile.TemporaryDirectory(dir=folder) as name:
            exported = _export(model.plans, Path(name), progress)
            progress(f"halve and compare {model.name}")
            return halve(exported, Path(name), folder, model.measure)
    graphs = _export(model.plans, folder, progress)
    progress(f"compare {model.name} with PyTorch")
    with open_sessions(graphs, folder) as sessions:
        return graphs, model.measure(sessions, tolerances=TOLERANCES["fp32"])


def _export(plans: list[GraphPlan], folder: Path, progress: Progress) -> dict[Role, GraphSpec]:
    """Writes the graphs, and lets go of each module as soon as its graph is written."""
    graphs: dict[Role, GraphSpec] = {}
    while plans:
        plan = plans.pop(0)
        progress(f"export {plan.role}")
        graphs[plan.role] = plan.export(folder)
    return graphs


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(path.name, file_sha256(path), path.stat().st_size)


def _verify(folder: Path) -> None:
    """Does what ``risengine verify`` will do, so that no bundle is published that would fail it where it can run."""
    bundle = open_bundle(folder)
    target, devices = bundle.manifest.target, usable_devices(bundle)
    if not devices or devices[0].target != target:
        _logger.warning(
            "not run on %s (%s). Run `risengine verify` on the device before you rely on the bundle.",
            target,
            find_device(target).missing or "its engines are for another GPU",
        )
    if devices:
        failures = verify_bundle(bundle, RuntimeConfig(devices[0].target)).failures
        if failures:
            raise ParityError(failures[0])


def _versions() -> dict[str, str]:
    """Returns what built the bundle. ``onnxruntime`` is the module, which packages of several names provide."""
    versions = {"risengine": risengine.__version__, "onnxruntime": onnxruntime.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # the module is there, from a checkout or under another package's name
            versions[package] = "unknown"
    return versions
