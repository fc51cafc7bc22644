"""A graph as TensorRT reads it best: no bytes between its nodes, and every attention as one operator.

The result computes the same as the graph it is made from; ONNX Runtime runs it too, which the tests use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from onnx_ir import DataType

__all__ = ["ATTENTION_OPSET", "fuse_attention", "to_native"]

ATTENTION_OPSET = 23
"""First operator set with ``Attention``. What the exporter writes means the same in it as in its own."""

Node = onnx_ir.Node
Value = onnx_ir.Value


def to_native(model: onnx_ir.Model) -> int:
    """Rewrites a graph for TensorRT, in place.

    TensorRT takes bytes at a graph's inputs alone, and only to cast them: images are cast to single precision where
    they come in, and masks are reduced as whole numbers.

    Returns:
        The number of attentions that became one operator; see :func:`fuse_attention`.
    """
    for value in model.graph.inputs:
        if value.dtype == DataType.UINT8:
            _cast_at_input(model.graph, value)
    for node in model.graph:
        for output in node.outputs:
            if output.dtype == DataType.UINT8:
                _widen(node, output)
    return fuse_attention(model)


def fuse_attention(model: onnx_ir.Model) -> int:
    """Replaces product, softmax, product in half precision by ``Attention``, in place.

    TensorRT finds most such chains itself; where it cannot prove that their sizes agree it does not, and then the
    logits go through memory. In single precision it has no kernel for the operator, so that those chains stay.

    Returns:
        The number of operators made.
    """
    found = list(_attentions(model.graph))
    for chain in found:
        _replace(model.graph, chain)
    if found:
        model.graph.opset_imports[""] = max(ATTENTION_OPSET, model.graph.opset_imports[""])
    return len(found)


@dataclass(frozen=True)
class _Chain:
    """Nodes and operands of one attention: softmax(query @ keys * scale + bias) @ values."""

    query: Value
    keys: Value  # (B, heads, d, S)
    values: Value
    bias: Value | None
    scale: float
    last: Node


def _attentions(graph: onnx_ir.Graph) -> Iterator[_Chain]:
    for node in graph:
        if node.op_type != "Softmax" or not _over_last_axis(node):
            continue
        reader = _only_reader(node.outputs[0])
        if reader is None or reader.op_type != "MatMul" or reader.inputs[0] is not node.outputs[0]:
            continue
        product, bias = _without_bias(node.inputs[0])
        product, scale = _without_scale(product)
        made = product.producer()
        if made is None or made.op_type != "MatMul" or _only_reader(product) is None:
            continue
        query, keys, values = made.inputs[0], made.inputs[1], reader.inputs[1]
        if query is not None and keys is not None and values is not None and _same_heads(query, keys, values):
            yield _Chain(query, keys, values, bias, scale, reader)


def _without_bias(logits: Value | None) -> tuple[Value, Value | None]:
    """Splits a sum into the product and what is added to it."""
    assert logits is not None
    node = logits.producer()
    if node is None or node.op_type != "Add":
        return logits, None
    for product, bias in (node.inputs, node.inputs[::-1]):
        assert product is not None
        if _is_product(product):
            return product, bias
    return logits, None


def _without_scale(logits: Value) -> tuple[Value, float]:
    node = logits.producer()
    if node is None or node.op_type not in {"Mul", "Div"} or node.inputs[0] is None or node.inputs[1] is None:
        return logits, 1.0
    constant = node.inputs[1].const_value
    if constant is None or constant.size != 1 or not _is_product(node.inputs[0]):
        return logits, 1.0
    factor = float(constant.numpy().reshape(()))
    return node.inputs[0], factor if node.op_type == "Mul" else 1 / factor


def _is_product(value: Value) -> bool:
    node = value.producer()
    if node is not None and node.op_type in {"Mul", "Div"} and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "MatMul"


def _same_heads(*operands: Value) -> bool:
    """Tells whether all are (B, heads, ...) in half precision with the same B and the same heads."""
    if any(value.dtype != DataType.FLOAT16 or value.shape is None or len(value.shape) != 4 for value in operands):
        return False
    leading = {tuple(str(size) for size in value.shape[:2]) for value in operands if value.shape is not None}
    return len(leading) == 1


def _over_last_axis(node: Node) -> bool:
    axis = node.attributes.get_int("axis", -1)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _only_reader(value: Value) -> Node | None:
    readers = [node for node, _ in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _replace(graph: onnx_ir.Graph, chain: _Chain) -> None:
    name = chain.last.name
    keys = _node(f"{name}_keys", "Transpose", [chain.keys], DataType.FLOAT16, perm=[0, 1, 3, 2])
    operands = [chain.query, keys.outputs[0], chain.values]
    nodes = [keys]
    if chain.bias is not None:
        nodes += _bias_per_query(graph, str(name), chain)
        operands.append(nodes[-1].outputs[0])
    attention = _node(f"{name}_attention", "Attention", operands, DataType.FLOAT16, scale=chain.scale)
    attention.outputs[0].shape = chain.last.outputs[0].shape
    graph.insert_before(chain.last, [*nodes, attention])
    onnx_ir.convenience.replace_all_uses_with(chain.last.outputs[0], attention.outputs[0])
    for node in _chain_nodes(chain.last):
        graph.remove(node, safe=True)


def _bias_per_query(graph: onnx_ir.Graph, name: str, chain: _Chain) -> list[Node]:
    """Spells out the dimension of the queries, which the operator's implementations do not broadcast."""
    queries = _node(f"{name}_queries", "Shape", [chain.query], DataType.INT64, start=2, end=3)
    one = _constant(graph, f"{name}_one", np.ones(1, np.int64))
    shape = _node(f"{name}_shape", "Concat", [queries.outputs[0], one], DataType.INT64, axis=0)
    assert chain.bias is not None
    bias = _node(f"{name}_bias", "Expand", [chain.bias, shape.outputs[0]], DataType.FLOAT16)
    return [queries, shape, bias]


def _chain_nodes(last: Node) -> list[Node]:
    """Returns the product that was replaced and what only it used, last first."""
    found, waiting = [], [last]
    while waiting:
        node = waiting.pop(0)
        found.append(node)
        if node.op_type == "MatMul" and node is not last:
            continue
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node.op_type == "Add":
            products = [v for v in node.inputs if v is not None and _is_product(v)]
            producer = products[0].producer()
        if producer is not None:
            waiting.append(producer)
    return found


def _cast_at_input(graph: onnx_ir.Graph, value: Value) -> None:
    cast = _node(f"{value.name}_float", "Cast", [value], DataType.FLOAT, to=DataType.FLOAT.value)
    cast.outputs[0].shape = value.shape
    for node, index in list(value.uses()):
        if node is not cast and node.op_type != "Shape":
            node.replace_input_with(index, cast.outputs[0])
            for output in node.outputs:
                if output.dtype == DataType.UINT8:
                    output.dtype = DataType.FLOAT
    graph.insert_before(next(iter(graph)), [cast])


def _widen(node: Node, output: Value) -> None:
    output.dtype = DataType.INT32
    if node.op_type == "Cast":
        node.attributes["to"] = onnx_ir.AttrInt64("to", DataType.INT32.value)


def _node(name: str, operator: str, inputs: list[Value], dtype: DataType, **attributes: float | list[int]) -> Node:
    output = Value(name=f"{name}_out", type=onnx_ir.TensorType(dtype))
    converted = onnx_ir.convenience.convert_attributes(attributes)
    return Node("", operator, inputs, attributes=converted, outputs=[output], name=name)


def _constant(graph: onnx_ir.Graph, name: str, array: NDArray[np.int64]) -> Value:
    value = Value(name=name, const_value=onnx_ir.tensor(array, name=name), type=onnx_ir.TensorType(DataType.INT64))
    value.shape = onnx_ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
