"""Which nodes of a graph stay in single precision when the graph is reduced to half.

It is decided per graph, by rules about what a rounding would destroy, by the range that every tensor was measured to
have, and by a ladder of plans of which the caller takes the first that is accurate enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import DataType

from risengine.errors import BackendError
from risexport.half.ranges import Extent

__all__ = ["PLANS", "RANGE_LIMIT", "SMALL", "nodes_in_single"]

_LARGEST = 65504.0
_SMALLEST = 2.0**-14  # half precision's smallest normal number

RANGE_LIMIT = _LARGEST / 4
"""Largest magnitude left to half precision, a quarter of its range: other images reach further than the measured."""

PLANS = (
    "weights and activations in half precision",
    "small tensors in single precision",
    "small tensors and normalisations in single precision",
    "small tensors, normalisations and attention weights in single precision",
    "small tensors, normalisations, attention weights and residual sums in single precision",
    "single precision throughout",
)
"""The ladder, least single precision first. All keep what the rules and the measured ranges ask for.

Small tensors come first because they cost least. In SAM's point decoder they are the prompts' tokens: 7 beside 4096
cells, a twentieth of the arithmetic, and nearly all of what half precision does to the results.
"""

SMALL = "small"
"""The reason of nodes that are kept for their size, and whose large weights are stored in half all the same."""

_SMALL_SHARE = 1 / 16  # of the elements of the graph's largest tensor

_LEARNED = {"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul"}
_DECISIONS = {"Ceil", "Cos", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "NonZero"}
_DECISIONS |= {"Round", "Sin", "TopK", "ArgMax"}
_ROOTS = {"Pow", "Reciprocal", "ReduceL2", "ReduceSumSquare", "Sqrt"}
_NORMALISATIONS = {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
_LOGITS = {"Add", "Div", "Mul", "Reshape", "Sub", "Transpose", "Where"}

Node = onnx_ir.Node
Value = onnx_ir.Value


def nodes_in_single(model: onnx_ir.Model, extents: Mapping[str, Extent], plan: int) -> dict[str, str]:
    """Chooses the nodes that keep single precision.

    Args:
        model: Graph in single precision.
        extents: What was measured of each floating-point tensor, by name.
        plan: Index in :data:`PLANS`.

    Returns:
        The reason by node name, in the order of the graph: ``preparation`` (what is done to pixels, masks and sizes
        before the first weights, and to whatever is rounded, compared or becomes an angle), ``root`` (squares, roots,
        the quotients by them), ``constant`` (a constant outside half precision), ``range`` (a measured tensor past
        :data:`RANGE_LIMIT`), or the plan's :data:`SMALL` (no tensor has more than a sixteenth of the elements of the
        graph's largest), ``normalisation``, ``attention``, ``residual``, ``whole graph``.

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
    keep("range", (node for node in nodes if any(_is_wide(value, extents) for value in (*node.inputs, *node.outputs))))
    if plan == len(PLANS) - 1:
        keep("whole graph", nodes)
    if plan >= 1:
        keep(SMALL, _small(nodes, extents))
    if plan >= 2:
        keep("normalisation", (node for node in nodes if node.op_type in _NORMALISATIONS))
    if plan >= 3:
        keep("attention", _attention(nodes))
    if plan >= 4:
        keep("residual", (node for node in nodes if node.op_type == "Add" and not any(map(_is_constant, node.inputs))))
    return {str(node.name): reasons[node] for node in nodes if node in reasons}


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


def _small(nodes: Iterable[Node], extents: Mapping[str, Extent]) -> list[Node]:
    """Returns the nodes whose floating-point tensors, constants aside, are all small beside the graph's largest."""
    bound = _SMALL_SHARE * max((extent.elements for extent in extents.values()), default=0)
    small = {name for name, extent in extents.items() if extent.elements <= bound}

    def fits(value: Value | None) -> bool:
        return value is None or not _is_single(value) or _is_constant(value) or str(value.name) in small

    return [node for node in nodes if all(map(fits, (*node.inputs, *node.outputs)))]


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


def _is_wide(value: Value | None, extents: Mapping[str, Extent]) -> bool:
    if value is None or str(value.name) not in extents:
        return False
    return not extents[str(value.name)].reach <= RANGE_LIMIT  # NaN is wide
