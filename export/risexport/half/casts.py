"""A graph rewritten into half precision: weights, types, and the casts to what stays in single precision.

Nothing outside the graph changes: inputs and outputs keep their types, and the casts lie inside.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir
from onnx_ir import DataType
from onnx_ir.passes.common import RemoveUnusedNodesPass

from risengine.errors import BackendError
from risexport.half.precision import SMALL

__all__ = ["round_every_result", "to_half"]

_WORTH_HALVING = 1 << 15
"""Elements from which a constant of a small node is stored in half: 64 KiB less. Embeddings, biases and the matrices of
a narrow model are worth more exact."""

Node = onnx_ir.Node
Value = onnx_ir.Value


def to_half(model: onnx_ir.Model, single: Mapping[str, str]) -> None:
    """Rewrites a graph: weights and arithmetic in half precision, except in the nodes named.

    Args:
        model: Graph in single precision; changed in place.
        single: The reason by name of each node that computes in single precision, from
            :func:`risexport.half.precision.nodes_in_single`. Large weights are stored in half and cast back where the
            reason is :data:`~risexport.half.precision.SMALL`; a runtime does that once, when it loads the graph.
    """
    graph = model.graph
    other: dict[Value, Value] = {}  # a value -> the same in the other precision
    restored: dict[Value, Value] = {}  # a weight -> what single precision gets of it as stored in half

    def as_type(value: Value, dtype: DataType) -> Value:
        if value not in other:
            if value.const_value is not None:
                other[value] = _half_initializer(graph, value)
            else:
                other[value] = _cast(graph, value, dtype)
        return other[value]

    def as_stored(value: Value) -> Value:
        if value not in restored:
            restored[value] = _cast(graph, as_type(value, DataType.FLOAT16), DataType.FLOAT)
        return restored[value]

    for node in list(graph):
        if node.name in single:
            wrong, right = DataType.FLOAT16, DataType.FLOAT
        else:
            wrong, right = DataType.FLOAT, DataType.FLOAT16
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == wrong and not _stays_single(node, index):
                node.replace_input_with(index, as_type(value, right))
            elif value is not None and single.get(str(node.name)) == SMALL and _is_large_weight(value):
                node.replace_input_with(index, as_stored(value))
        if right == DataType.FLOAT16:
            _produce_half(node)
    for index, output in enumerate(graph.outputs):
        if output.dtype == DataType.FLOAT16:
            name, output.name = output.name, f"{output.name}_half"
            graph.outputs[index] = _cast(graph, output, DataType.FLOAT)
            graph.outputs[index].name = name
    RemoveUnusedNodesPass()(model)


def round_every_result(model: onnx_ir.Model) -> None:
    """Makes a half-precision graph compute each node in single precision and round its result to half.

    ONNX Runtime's CPU provider has hardly any half-precision kernels: it runs such nodes in single precision and drops
    the casts in between, so that neither a rounding nor an overflow of an activation is seen. Casts that are nodes of
    the graph are not dropped. With them it computes what a device computes that rounds every result to half precision
    and accumulates in single.

    Args:
        model: Result of :func:`to_half`; changed in place.
    """
    graph = model.graph
    wide: dict[Value, Value] = {}
    for node in list(graph):
        if node.op_type == "Cast":
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == DataType.FLOAT16:
                if value not in wide:
                    wide[value] = _cast(graph, value, DataType.FLOAT)
                node.replace_input_with(index, wide[value])
        for output in node.outputs:
            if output.dtype == DataType.FLOAT16:
                readers = list(output.uses())
                output.dtype = DataType.FLOAT
                rounded = _cast(graph, output, DataType.FLOAT16)
                for reader, position in readers:
                    reader.replace_input_with(position, rounded)


def _is_large_weight(value: Value) -> bool:
    constant = value.const_value
    return constant is not None and value.dtype == DataType.FLOAT and constant.size >= _WORTH_HALVING


def _stays_single(node: Node, index: int) -> bool:
    """Whether the operator takes this input in single precision whatever the type of the others."""
    return node.op_type == "Cast" or (node.op_type == "Resize" and index == 2)


def _half_initializer(graph: onnx_ir.Graph, value: Value) -> Value:
    tensor = value.const_value
    if tensor is None:
        raise BackendError(f"{value.name} has no value; expected a weight. Report this model.")
    name = f"{value.name}_half"
    with np.errstate(over="ignore"):  # what is past the range is read in single precision
        half = onnx_ir.tensor(tensor.numpy().astype(np.float16), name=name)
    result = Value(name=name, shape=value.shape, type=onnx_ir.TensorType(DataType.FLOAT16), const_value=half)
    graph.register_initializer(result)
    return result


def _cast(graph: onnx_ir.Graph, value: Value, dtype: DataType) -> Value:
    """Inserts a cast right after a value."""
    node = onnx_ir.node("Cast", [value], {"to": int(dtype)})
    result = node.outputs[0]
    result.name = f"{value.name}_{'half' if dtype == DataType.FLOAT16 else 'single'}"
    result.shape, result.dtype = value.shape, dtype
    node.name = f"cast_{result.name}"
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    return result


def _produce_half(node: Node) -> None:
    """Makes a node's floating-point results half precision, in the types and in the attributes that fix them."""
    for output in node.outputs:
        if output.dtype != DataType.FLOAT:
            continue
        output.dtype = DataType.FLOAT16
        if node.op_type == "Cast":
            node.attributes["to"] = onnx_ir.AttrInt64("to", int(DataType.FLOAT16))
        elif "value" in node.attributes:
            tensor = node.attributes["value"].as_tensor()
            half = onnx_ir.tensor(tensor.numpy().astype(np.float16), name=tensor.name)
            node.attributes["value"] = onnx_ir.AttrTensor("value", half)
