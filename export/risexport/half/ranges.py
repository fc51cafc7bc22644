"""How far the tensors inside a graph reach: the graph run with extremes and size of every one as further outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir import DataType

from risengine.backends.session import DescribedSession
from risengine.errors import BackendError
from risengine.manifest import GraphSpec

__all__ = ["Extent", "RangeSession"]

_PROBES: tuple[tuple[str, dict[str, int], DataType], ...] = (
    ("ReduceMin", {"keepdims": 0}, DataType.FLOAT),
    ("ReduceMax", {"keepdims": 0}, DataType.FLOAT),
    ("Size", {}, DataType.INT64),
)

_REMEDY = "Build with --precision fp32, or report this model."


@dataclass(frozen=True)
class Extent:
    """How far a floating-point tensor went in all runs.

    Attributes:
        reach: Its largest magnitude; NaN if one was met.
        elements: The largest number of its elements.
    """

    reach: float
    elements: int


class RangeSession(DescribedSession):
    """A session of a graph in single precision that remembers the extent of every tensor in all runs.

    Attributes:
        extents: By tensor, over all runs so far.
    """

    def __init__(self, path: Path, spec: GraphSpec) -> None:
        """Loads the graph; a copy of it with the extra outputs lies beside it until the session is closed.

        Raises:
            BackendError: ONNX Runtime cannot load the graph.
        """
        super().__init__(spec)
        self.extents: dict[str, Extent] = {}
        model = onnx_ir.load(path)
        self._tensors = _add_probes(model)
        self._probe = path.with_name(f"{path.stem}.ranges.onnx")
        # Weights beside the graph are not copied: the new file refers to them.
        onnx_ir.save(model, self._probe)
        options = onnxruntime.SessionOptions()
        # In the order of the file, where the probes of a tensor follow it; the default order would keep all
        # tensors alive until the end.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(self._probe, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception classes share no public base
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {self._probe}: {error}. {_REMEDY}"
            ) from error

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that run the graph."""
        return tuple(self._session.get_providers())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once and updates :attr:`extents`.

        Raises:
            BackendError: The run failed.
        """
        names = [output.name for output in self._spec.outputs]
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:  # as above
            raise BackendError(f"{self._spec.file} failed: {error}. {_REMEDY}") from error
        for name, feed in feeds.items():
            if feed.dtype == np.float32 and feed.size:
                self._note(name, np.abs(feed).max(), feed.size)
        probes = iter(values[len(names) :])
        for tensor, least, greatest, elements in zip(self._tensors, probes, probes, probes, strict=True):
            self._note(tensor, np.maximum(-least, greatest), elements)
        return dict(zip(names, values, strict=False))

    def close(self) -> None:
        """Frees the graph's memory and removes the copy; the session cannot run afterwards."""
        self._session = None
        self._probe.unlink(missing_ok=True)

    def _note(self, tensor: str, reach: float, elements: int) -> None:
        known = self.extents.get(tensor, Extent(0.0, 0))
        # The extremes of an empty tensor are infinite the other way round: its reach stays 0.
        self.extents[tensor] = Extent(float(np.maximum(known.reach, reach)), max(known.elements, int(elements)))


def _add_probes(model: onnx_ir.Model) -> list[str]:
    """Adds least value, greatest value and number of elements of every floating-point tensor as outputs.

    Returns:
        The tensors' names, each for its three outputs.
    """
    graph = model.graph
    added = []
    for node in list(graph):
        for value in node.outputs:
            if value.dtype != DataType.FLOAT:
                continue
            for operator, attributes, dtype in _PROBES:
                name = f"{value.name}.{operator}"
                probe = onnx_ir.node(operator, [value], attributes, name=name)
                result = probe.outputs[0]
                result.name, result.dtype, result.shape = name, dtype, onnx_ir.Shape([])
                graph.insert_after(node, probe)
                graph.outputs.append(result)
            added.append(str(value.name))
    return added
