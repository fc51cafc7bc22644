"""What a compiler made of a graph: the layers of an engine, read from its builder's log.

TensorRT's inspector wants a loaded engine, and so a GPU; the log holds the same description on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Fusion", "Layer", "read_layers", "summarise"]

_LAYER = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), ")
_TACTIC = re.compile(r"TacticName: ([^,]*), ")
_NODES = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_INPUTS = re.compile(r"Inputs: \[(.*?)\](?=, (?:Constants|Outputs): \[)", re.DOTALL)
_CONSTANTS = re.compile(r"Constants: \[(.*?)\](?=, Outputs: \[)", re.DOTALL)
_DTYPE = re.compile(r"Dimensions: (\[[^\]]*\]).*?Datatype: (\w+)")

_FUSED = "mha"  # in the names of the kernels of fused attention
_SOFTMAX = re.compile(r"SubExp")  # of a softmax's kernel, after the largest value was taken
_PRODUCT = re.compile(r"^_?gemm|_Fc|__myl_Fc")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: The compiler's name, which says what was fused.
        kind: The compiler's kind, such as ``gemm`` or ``kgen``.
        tactic: The kernel, where it has a name.
        operands: dtype of every input and matrix of weights.
        nodes: Names of the graph's nodes that it computes.
    """

    name: str
    kind: str
    tactic: str
    operands: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """What matters of an engine's layers.

    Attributes:
        attentions: Number of attentions in one kernel.
        softmaxes: Layers with a softmax of their own, whose logits go through memory.
        single_products: For each layer with a matrix product in single precision, the graph's nodes that it computes.
    """

    attentions: int
    softmaxes: tuple[str, ...]
    single_products: tuple[tuple[str, ...], ...]


def read_layers(messages: Sequence[str]) -> tuple[Layer, ...]:
    """Reads the layers from the messages of a build that was told to be detailed; none where they are not there."""
    described = [message for message in messages if "LayerType: " in message]
    lines = [line for message in described for line in message.splitlines() if "LayerType: " in line]
    return tuple(layer for layer in map(_read_layer, lines) if layer is not None)


def summarise(layers: Sequence[Layer]) -> Fusion:
    """Returns what matters of an engine's layers."""
    products = [layer for layer in layers if _is_product(layer) and "Float" in layer.operands]
    return Fusion(
        attentions=sum(_FUSED in layer.name for layer in layers),
        softmaxes=tuple(layer.name for layer in layers if _SOFTMAX.search(layer.name) and _FUSED not in layer.name),
        single_products=tuple(layer.nodes for layer in products),
    )


def _read_layer(line: str) -> Layer | None:
    found = _LAYER.search(line)
    if found is None:
        return None
    matrices = [
        dtype
        for part in (*_INPUTS.findall(line), *_CONSTANTS.findall(line))
        for dimensions, dtype in _DTYPE.findall(part)
        if "," in dimensions  # scalars and biases are no operands of a product
    ]
    tactic = _TACTIC.search(line)
    nodes = tuple(_NODES.findall(line))
    return Layer(found["name"], found["kind"], tactic[1] if tactic else "", tuple(matrices), nodes)


def _is_product(layer: Layer) -> bool:
    return layer.kind == "gemm" or _PRODUCT.search(layer.name) is not None
