"""The ONNX model beside an engine, by which ONNX Runtime's TensorRT providers load it.

One node, ``EPContext`` of domain ``com.microsoft``, names the engine's file; the providers deserialise that file and
take the node's inputs and outputs by their names. There is no layer in the model that a provider could build anything
from: what it cannot deserialise, it refuses. The providers (``onnx_ctx_model_helper.cc`` of each) read ``embed_mode``
(0: a path follows), ``ep_cache_context`` (that path, relative to the model, without ``..``), ``source`` (the provider
that the node is meant for) and ``hardware_architecture``; the others are for people. ``onnx_model_filename`` is read
where an engine lacks its weights, which ours have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from risengine.backends.onnx_providers import PROVIDERS
from risengine.manifest import EngineSpec, GraphSpec, Role, TensorSpec
from risexport.config import NativeTarget

__all__ = ["write_context"]

_IR_VERSION = 9  # old enough for ONNX Runtime 1.17, the first that loads such models
_OPSETS = {"": 17, "com.microsoft": 1}


def write_context(path: Path, role: Role, spec: GraphSpec, engine: EngineSpec, target: NativeTarget) -> None:
    """Writes the model.

    Args:
        path: Where; the engine's file lies beside it.
        role: What the graph does.
        spec: The engine's file, inputs and outputs.
        engine: What it was compiled by and for.
        target: Whose provider is to run it.
    """
    inputs, outputs = [_value(tensor) for tensor in spec.inputs], [_value(tensor) for tensor in spec.outputs]
    attributes = {
        "main_context": 1,
        "embed_mode": 0,
        "ep_cache_context": spec.file,
        "ep_sdk_version": engine.version,
        "partition_name": role,
        "source": PROVIDERS[target],
        **_architecture(engine),
    }
    node = ir.node("EPContext", inputs, attributes, domain="com.microsoft", outputs=outputs, name=role)
    graph = ir.Graph(inputs, outputs, nodes=[node], opset_imports=_OPSETS, name=role)
    ir.save(ir.Model(graph, ir_version=_IR_VERSION), path)


def _architecture(engine: EngineSpec) -> dict[str, str]:
    """Returns the attribute by which a provider warns of another GPU: one value, or ``80+``.

    An engine for several GPUs has none: the manifest names them, and the runtime compares before it loads.
    """
    if engine.any_newer_gpu:
        return {"hardware_architecture": "80+"}
    if len(engine.compute_capabilities) == 1:
        return {"hardware_architecture": engine.compute_capabilities[0].replace(".", "")}
    return {}


def _value(tensor: TensorSpec) -> ir.Value:
    dtype = ir.DataType.from_numpy(np.dtype(tensor.dtype))
    return ir.Value(name=tensor.name, type=ir.TensorType(dtype), shape=ir.Shape(tensor.shape))
