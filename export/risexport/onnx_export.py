"""A torch module becomes an ONNX file and the manifest's description of it.

The files are reproducible: names come from the graph, and everything that depends on the exporting machine (stack
traces, source paths, tool versions) is removed, so the same module exported twice gives the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    DeduplicateInitializersPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from risengine.bundle import file_sha256
from risengine.errors import BackendError
from risengine.manifest import FileSpec, GraphSpec, TensorSpec

__all__ = ["EXTERNAL_DATA_BYTES", "OPSET", "ExportRequest", "export_graph", "write_graph"]

OPSET = 20
"""Newest operator set that ONNX Runtime's CPU provider and TensorRT 10 both read in full; it has ``Gelu``."""

EXTERNAL_DATA_BYTES = 1_800_000_000
"""Weights beyond this leave the graph file: a protobuf message ends at 2 GiB."""

_REMEDY = "Install the versions of torch, onnx and onnxscript that `risengine[export]` asks for, or report this model."

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportRequest:
    """What to export and under which names.

    Attributes:
        path: File to write, ``*.onnx``; weights too large for it go to ``*.onnx.data`` beside it.
        inputs: Example tensors by name, in the order of the module's ``forward``. A dynamic dimension needs an example
            of at least 2, because torch treats sizes 0 and 1 as constants.
        outputs: Names of the outputs, in the order ``forward`` returns them.
        dynamic: For each input with dynamic dimensions, dimension -> symbolic name. One name is one size.
    """

    path: Path
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]


def export_graph(module: nn.Module, request: ExportRequest) -> GraphSpec:
    """Exports a module to ONNX, checks the file and describes it.

    Args:
        module: Module in evaluation mode; ``forward`` takes the inputs positionally and returns a tensor or a tuple.
        request: Path, example inputs, names and dynamic dimensions.

    Returns:
        Specification with the file's hash and size, symbolic shapes and the arithmetic of one call at the examples'
        sizes (matrix products, convolutions and attention; two operations per multiply-add).

    Raises:
        BackendError: torch cannot export the module, a dimension that should be dynamic became a constant, or the file
            is not valid ONNX.
    """
    args = tuple(request.inputs.values())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*args)
    model = _export(module, args, request)
    _strip(model)
    graph_file, external = write_graph(model, request.path)
    inputs = tuple(_tensor_spec(value) for value in model.graph.inputs)
    _require_dynamic(inputs, request)
    return GraphSpec(
        file=graph_file.file,
        sha256=graph_file.sha256,
        size_bytes=graph_file.size_bytes,
        inputs=inputs,
        outputs=tuple(_tensor_spec(value) for value in model.graph.outputs),
        flops=float(counter.get_total_flops()),
        flops_at=", ".join(f"{name} {tuple(value.shape)}" for name, value in request.inputs.items()),
        external=external,
    )


def write_graph(model: onnx_ir.Model, path: Path) -> tuple[FileSpec, tuple[FileSpec, ...]]:
    """Writes a graph, its weights beside it where they are too large for one file, and checks it.

    Returns:
        The graph's file, and the file of weights beside it, if any.

    Raises:
        BackendError: The graph is not valid ONNX.
    """
    weight_bytes = sum(_weight_bytes(value) for value in model.graph.initializers.values())
    data_name = f"{path.name}.data" if weight_bytes > EXTERNAL_DATA_BYTES else None
    onnx_ir.save(model, path, external_data=data_name)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise BackendError(f"{path.name} is not valid ONNX: {error}. {_REMEDY}") from error
    external = () if data_name is None else (_file_spec(path.with_name(data_name)),)
    graph_file = _file_spec(path)
    _logger.info("%s: %.1f MB, %d nodes", path.name, graph_file.size_bytes / 1e6, len(model.graph))
    return graph_file, external


def _export(module: nn.Module, args: tuple[Tensor, ...], request: ExportRequest) -> onnx_ir.Model:
    dynamic_shapes = tuple(dict(request.dynamic.get(name, {})) for name in request.inputs)
    try:
        with torch.no_grad(), _silenced():
            program = torch.onnx.export(
                module,
                args,
                dynamo=True,
                input_names=list(request.inputs),
                output_names=list(request.outputs),
                dynamic_shapes=dynamic_shapes,
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise BackendError(
            f"torch {torch.__version__} cannot export {request.path.stem}: {error}. {_REMEDY}"
        ) from error
    if program is None:
        raise BackendError(f"torch {torch.__version__} returned no ONNX program for {request.path.stem}. {_REMEDY}")
    model: onnx_ir.Model = program.model
    if (opset := model.opset_imports.get("")) != OPSET:
        raise BackendError(
            f"{request.path.stem}: expected opset {OPSET}, torch {torch.__version__} wrote {opset}. {_REMEDY}"
        )
    return model


def _strip(model: onnx_ir.Model) -> None:
    for strip in (
        RemoveUnusedNodesPass(),
        DeduplicateInitializersPass(),
        RemoveUnusedOpsetsPass(),
        ClearMetadataAndDocStringPass(),
    ):
        strip(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.producer_version = "risexport", None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph:
        for value in node.outputs:
            value.metadata_props.clear()


def _weight_bytes(value: onnx_ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


def _tensor_spec(value: onnx_ir.Value) -> TensorSpec:
    if value.name is None or value.dtype is None or value.shape is None:
        raise BackendError(
            f"torch {torch.__version__} exported a tensor without name, type or shape: {value}. {_REMEDY}"
        )
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(value.name, np.dtype(value.dtype.numpy()).name, shape)


def _require_dynamic(inputs: tuple[TensorSpec, ...], request: ExportRequest) -> None:
    for spec in inputs:
        for axis, symbol in request.dynamic.get(spec.name, {}).items():
            if spec.shape[axis] != symbol:
                raise BackendError(
                    f"{request.path.name}: dimension {axis} of {spec.name} should be dynamic {symbol!r}, "
                    f"the exported graph has {spec.shape[axis]!r}. The module fixes this size somewhere: "
                    "compute it from the input's shape instead."
                )


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(file=path.name, sha256=file_sha256(path), size_bytes=path.stat().st_size)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keeps the exporter's own progress and deprecation noise off the terminal; its errors are raised, not logged."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
