"""A graph as TensorRT reads it best: no bytes between its nodes, and every attention as one operator.

The result computes the same as the graph it is made from; ONNX Runtime runs it too, which the tests use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import DataType
from onnx_ir.passes.common import RemoveUnusedNodesPass

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
        RemoveUnusedNodesPass()(model)
        model.graph.opset_imports[""] = max(ATTENTION_OPSET, model.graph.opset_imports[""])
    return len(found)


@dataclass(frozen=True)
class _Chain:
    """Nodes and operands of one attention: softmax(query @ keys * scale + bias) @ values.

    Operands are (B, heads, ...), or (heads, ...) where batch and heads are one dimension. ``biases`` are added up;
    ``reshaped`` is the node that flattens a sum over a map of keys, (heads, S, h, w), to (heads, S, h * w).
    """

    query: Value
    keys: Value
    values: Value
    biases: tuple[Value, ...]
    reshaped: Node | None
    scale: float
    last: Node


def _attentions(graph: onnx_ir.Graph) -> Iterator[_Chain]:
    for node in graph:
        if node.op_type != "Softmax" or not _over_last_axis(node):
            continue
        reader = _only_reader(node.outputs[0])
        if reader is None or reader.op_type != "MatMul" or reader.inputs[0] is not node.outputs[0]:
            continue
        logits = _input(node, 0)
        reshaped = logits.producer()
        if reshaped is not None and reshaped.op_type == "Reshape":
            product, biases = _without_biases(_input(reshaped, 0))
            unflattened = product.producer()
            if not biases or unflattened is None or unflattened.op_type != "Reshape":
                continue
            product = _input(unflattened, 0)
        else:
            reshaped = None
            product, biases = _without_biases(logits)
        product, scale = _without_scale(product)
        made = product.producer()
        if made is None or made.op_type != "MatMul" or _only_reader(product) is None:
            continue
        query, keys, values = _input(made, 0), _input(made, 1), _input(reader, 1)
        if _same_heads(query, keys, values):
            yield _Chain(query, keys, values, biases, reshaped, scale, reader)


def _without_biases(logits: Value) -> tuple[Value, tuple[Value, ...]]:
    """Splits a sum into the product and what is added to it."""
    node = logits.producer()
    if node is None or node.op_type != "Add":
        return logits, ()
    for index in (0, 1):
        product, biases = _without_biases(_input(node, index))
        if _is_product(product):
            return product, (*biases, _input(node, 1 - index))
    return logits, ()


def _without_scale(logits: Value) -> tuple[Value, float]:
    node = logits.producer()
    if node is None or node.op_type not in {"Mul", "Div"}:
        return logits, 1.0
    constant = onnx_ir.convenience.get_const_tensor(_input(node, 1))
    if constant is None or constant.size != 1 or not _is_product(_input(node, 0)):
        return logits, 1.0
    factor = float(constant.numpy().reshape(()))
    return _input(node, 0), factor if node.op_type == "Mul" else 1 / factor


def _is_product(value: Value) -> bool:
    """Tells whether a value is a matrix product, as it is, scaled or reshaped."""
    node = value.producer()
    if node is not None and node.op_type in {"Mul", "Div", "Reshape"}:
        node = _input(node, 0).producer()
    return node is not None and node.op_type == "MatMul"


def _same_heads(*operands: Value) -> bool:
    """Tells whether all are in half precision with the same batch and the same heads."""
    shapes = [value.shape for value in operands if value.shape is not None and value.dtype == DataType.FLOAT16]
    if len(shapes) < len(operands) or len({len(shape) for shape in shapes}) > 1 or len(shapes[0]) not in {3, 4}:
        return False
    return len({tuple(str(size) for size in shape[:-2]) for shape in shapes}) == 1


def _over_last_axis(node: Node) -> bool:
    axis, shape = node.attributes.get_int("axis", -1), _input(node, 0).shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _only_reader(value: Value) -> Node | None:
    readers = [node for node, _ in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _input(node: Node, index: int) -> Value:
    value = node.inputs[index]
    assert value is not None, node
    return value


def _replace(graph: onnx_ir.Graph, chain: _Chain) -> None:
    """Puts the operator in a chain's place; what only the chain used is left unused."""
    name, half = str(chain.last.name), DataType.FLOAT16
    flat = chain.query.shape is not None and len(chain.query.shape) == 3
    nodes: list[Node] = []

    def add(suffix: str, operator: str, inputs: list[Value], dtype: DataType, **attributes: float | list[int]) -> Value:
        nodes.append(_node(f"{name}_{suffix}", operator, inputs, dtype, **attributes))
        return nodes[-1].outputs[0]

    def batched(suffix: str, value: Value) -> Value:
        return add(suffix, "Unsqueeze", [value, _constant(graph, f"{name}_{suffix}_axis", 0)], half) if flat else value

    query, values = batched("query", chain.query), batched("values", chain.values)
    keys = add("keys", "Transpose", [batched("flat_keys", chain.keys)], half, perm=[0, 1, 3, 2])
    operands = [query, keys, values]
    if chain.biases:
        bias = chain.biases[0]
        for index, other in enumerate(chain.biases[1:]):
            bias = add(f"bias_{index}", "Add", [bias, other], half)
        if chain.reshaped is not None:
            bias = batched("map_bias", add("flat_bias", "Reshape", [bias, _input(chain.reshaped, 1)], half))
        else:
            # The operator's implementations do not broadcast the dimension of the queries.
            queries = add("queries", "Shape", [query], DataType.INT64, start=2, end=3)
            shape = add("shape", "Concat", [queries, _constant(graph, f"{name}_one", 1)], DataType.INT64, axis=0)
            bias = add("bias", "Expand", [bias, shape], half)
        operands.append(bias)
    result = add("attention", "Attention", operands, half, scale=chain.scale)
    if flat:
        result = add("flat", "Squeeze", [result, _constant(graph, f"{name}_flat_axis", 0)], half)
    result.shape = chain.last.outputs[0].shape
    graph.insert_before(chain.last, nodes)
    onnx_ir.convenience.replace_all_uses_with(chain.last.outputs[0], result, replace_graph_outputs=True)


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


def _constant(graph: onnx_ir.Graph, name: str, number: int) -> Value:
    array = np.array([number], np.int64)
    value = Value(name=name, const_value=onnx_ir.tensor(array, name=name), type=onnx_ir.TensorType(DataType.INT64))
    value.shape = onnx_ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
