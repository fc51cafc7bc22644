"""Half precision written into a graph: which nodes stay in single precision, and the casts between the two.

Nothing outside the graph changes: inputs and outputs keep their types, and the casts lie inside. What stays in single
precision is decided per graph, by rules about what a rounding would destroy, by the range that every tensor was
measured to have, and by a ladder of plans of which the caller takes the first that is accurate enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import DataType
from onnx_ir.passes.common import RemoveUnusedNodesPass

from risengine.errors import BackendError

__all__ = ["PLANS", "RANGE_LIMIT", "nodes_in_single", "round_every_result", "to_half"]

_LARGEST = 65504.0
_SMALLEST = 2.0**-14  # half precision's smallest normal number

RANGE_LIMIT = _LARGEST / 4
"""Largest magnitude left to half precision, a quarter of its range: other images reach further than the measured."""

PLANS = (
    "weights and activations in half precision",
    "normalisations in single precision",
    "normalisations and attention weights in single precision",
    "normalisations, attention weights and residual sums in single precision",
    "single precision throughout",
)
"""The ladder, least single precision first. All keep what the rules and the measured ranges ask for."""

_LEARNED = {"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul"}
_DECISIONS = {"Ceil", "Cos", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "NonZero"}
_DECISIONS |= {"Round", "Sin", "TopK", "ArgMax"}
_ROOTS = {"Pow", "Reciprocal", "ReduceL2", "ReduceSumSquare", "Sqrt"}
_NORMALISATIONS = {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
_LOGITS = {"Add", "Div", "Mul", "Reshape", "Sub", "Transpose", "Where"}

Node = onnx_ir.Node
Value = onnx_ir.Value


def nodes_in_single(model: onnx_ir.Model, ranges: Mapping[str, float], plan: int) -> dict[str, str]:
    """Chooses the nodes that keep single precision.

    Args:
        model: Graph in single precision.
        ranges: Largest magnitude measured in each floating-point tensor, by name.
        plan: Index in :data:`PLANS`.

    Returns:
        The reason by node name, in the order of the graph: ``preparation`` (what is done to pixels, masks and sizes
        before the first weights, and to whatever is rounded, compared or becomes an angle), ``root`` (squares, roots,
        the quotients by them), ``constant`` (a constant outside half precision), ``range`` (a measured tensor past
        :data:`RANGE_LIMIT`), or the plan's ``normalisation``, ``attention``, ``residual``, ``whole
        graph``.

    Raises:
        BackendError: The graph has branches or loops.
    """
    nodes = list(model.graph)
    for node in nodes:
        if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
            raise BackendError(
                f"{node.op_type} {node.name} holds a graph of its own; expected a graph without branches and loops. "
                "Build this model with --precision fp32."
            )
    reasons: dict[Node, str] = {}

    def keep(reason: str, chosen: Iterable[Node]) -> None:
        for node in chosen:
            if _is_float(node):
                reasons.setdefault(node, reason)

    prepared = _before_weights(model.graph)
    decided = _upstream((node for node in nodes if node.op_type in _DECISIONS), lambda node: True)
    keep("preparation", [*prepared, *decided])
    keep("root", _around_roots(nodes))
    keep("constant", (node for node in nodes if any(map(_is_extreme, node.inputs))))
    keep("range", (node for node in nodes if any(_is_wide(value, ranges) for value in (*node.inputs, *node.outputs))))
    if plan >= 1:
        keep("normalisation", (node for node in nodes if node.op_type in _NORMALISATIONS))
    if plan >= 2:
        keep("attention", _attention(nodes))
    if plan >= 3:
        keep("residual", (node for node in nodes if node.op_type == "Add" and not any(map(_is_constant, node.inputs))))
    if plan >= 4:
        keep("whole graph", nodes)
    return {str(node.name): reasons[node] for node in nodes if node in reasons}


def to_half(model: onnx_ir.Model, single: Collection[str]) -> None:
    """Rewrites a graph: weights and arithmetic in half precision, except in the nodes named.

    Args:
        model: Graph in single precision; changed in place.
        single: Names of the nodes left as they are.
    """
    graph = model.graph
    other: dict[Value, Value] = {}  # a value -> the same in the other precision

    def as_type(value: Value, dtype: DataType) -> Value:
        if value not in other:
            if _is_constant(value):
                other[value] = _half_initializer(graph, value)
            else:
                other[value] = _cast(graph, value, dtype)
        return other[value]

    for node in list(graph):
        if node.name in single:
            wrong, right = DataType.FLOAT16, DataType.FLOAT
        else:
            wrong, right = DataType.FLOAT, DataType.FLOAT16
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == wrong and not _stays_single(node, index):
                node.replace_input_with(index, as_type(value, right))
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


_GRAPHS = {onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS}


def _before_weights(graph: onnx_ir.Graph) -> list[Node]:
    """Returns the nodes between the inputs of whole numbers (pixels, masks, sizes, ids) and the first weights."""
    raw = {value for value in graph.inputs if value.dtype != DataType.FLOAT}
    learned: set[Value] = set()
    found = []
    for node in graph:
        if _reads_weights(node) or any(value in learned for value in node.inputs):
            learned.update(node.outputs)
        elif any(value in raw for value in node.inputs):
            raw.update(node.outputs)
            found.append(node)
    return found


def _reads_weights(node: Node) -> bool:
    return node.op_type in _LEARNED and any(_is_constant(value) and _is_single(value) for value in node.inputs)


def _upstream(starts: Iterable[Node], through: Callable[[Node], bool]) -> list[Node]:
    """Returns nodes and all before them, as far as ``through`` lets the search go on."""
    found, waiting = [], list(starts)
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        found.append(node)
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in seen and through(producer):
                seen.add(producer)
                waiting.append(producer)
    return found


def _around_roots(nodes: Iterable[Node]) -> list[Node]:
    """Returns squares and roots, the sums between them, and what is divided by or multiplied with a root."""
    found = _upstream(
        (node for node in nodes if node.op_type in _ROOTS),
        lambda node: node.op_type in _ROOTS | {"Add", "ReduceMean", "ReduceSum"} and not _adds_results(node),
    )
    waiting = [node for node in found if node.op_type in {"Reciprocal", "ReduceL2", "Sqrt"}]
    while waiting:
        readers = [reader for value in waiting.pop().outputs for reader, _ in value.uses()]
        found += readers
        waiting += (reader for reader in readers if reader.op_type in {"Clip", "Expand", "Max", "Reciprocal"})
    return found


def _adds_results(node: Node) -> bool:
    return node.op_type == "Add" and not any(map(_is_constant, node.inputs))


def _attention(nodes: Iterable[Node]) -> list[Node]:
    """Returns every softmax and what makes its logits, up to and with the product of queries and keys."""
    found = _upstream((node for node in nodes if node.op_type == "Softmax"), lambda node: node.op_type in _LOGITS)
    producers = (value.producer() for node in found for value in node.inputs if value is not None)
    return [*found, *(node for node in producers if node is not None and node.op_type == "MatMul")]


def _is_float(node: Node) -> bool:
    return any(value is not None and _is_single(value) for value in (*node.inputs, *node.outputs))


def _is_single(value: Value | None) -> bool:
    return value is not None and value.dtype == DataType.FLOAT


def _is_constant(value: Value | None) -> bool:
    return value is not None and value.const_value is not None


def _is_extreme(value: Value | None) -> bool:
    """Whether a constant's magnitude is past half precision, or a single number is below its normal numbers."""
    if value is None or not _is_single(value) or value.const_value is None:
        return False
    magnitudes = np.abs(value.const_value.numpy())
    return bool((magnitudes > _LARGEST).any() or (magnitudes.size == 1 and 0 < magnitudes.max() < _SMALLEST))


def _is_wide(value: Value | None, ranges: Mapping[str, float]) -> bool:
    return value is not None and not ranges.get(str(value.name), 0.0) <= RANGE_LIMIT  # NaN is wide


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
