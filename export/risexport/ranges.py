"""How far the tensors inside a graph reach: the graph run with a largest and a smallest value of every one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir import DataType

from risengine.errors import BackendError
from risengine.manifest import GraphSpec, TensorSpec

__all__ = ["RangeSession"]


class RangeSession:
    """A session of a graph in single precision that remembers the largest magnitude of every tensor in all runs.

    Attributes:
        ranges: Largest magnitude by tensor, over all runs so far; NaN where one was met.
    """

    def __init__(self, path: Path, spec: GraphSpec) -> None:
        """Loads the graph; a copy of it with the extra outputs lies beside it until the session is closed.

        Raises:
            BackendError: ONNX Runtime cannot load the graph.
        """
        self._spec = spec
        self.ranges: dict[str, float] = {}
        model = onnx_ir.load(path)
        self._extremes = _add_extremes(model)
        self._probe = path.with_name(f"{path.stem}.ranges.onnx")
        # Weights beside the graph are not copied: the new file refers to them.
        onnx_ir.save(model, self._probe)
        options = onnxruntime.SessionOptions()
        # In the order of the file, where each pair of extremes follows its tensor; the default order would keep all
        # tensors alive until the end.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(self._probe, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception classes share no public base
            raise BackendError(f"ONNX Runtime {onnxruntime.__version__} cannot load {self._probe}: {error}") from error

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and symbolic shape of every input."""
        return self._spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and symbolic shape of every output."""
        return self._spec.outputs

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that run the graph."""
        return tuple(self._session.get_providers())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once and updates :attr:`ranges`.

        Raises:
            BackendError: The run failed.
        """
        names = [output.name for output in self._spec.outputs]
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:  # as above
            raise BackendError(f"{self._spec.file} failed: {error}") from error
        reaches = {name: np.abs(feed).max() for name, feed in feeds.items() if feed.dtype == np.float32 and feed.size}
        for (tensor, sign), value in zip(self._extremes, values[len(names) :], strict=True):
            reaches[tensor] = np.maximum(reaches.get(tensor, 0.0), sign * value)  # of an empty tensor: 0
        for tensor, reach in reaches.items():
            self.ranges[tensor] = float(np.maximum(self.ranges.get(tensor, 0.0), reach))
        return dict(zip(names, values, strict=False))

    def close(self) -> None:
        """Frees the graph's memory and removes the copy; the session cannot run afterwards."""
        self._session = None
        self._probe.unlink(missing_ok=True)


def _add_extremes(model: onnx_ir.Model) -> list[tuple[str, int]]:
    """Adds the least and the greatest value of every floating-point tensor as outputs.

    Returns:
        For each new output the tensor's name, and the sign that makes it a reach from zero.
    """
    graph = model.graph
    added = []
    for node in list(graph):
        for value in node.outputs:
            if value.dtype != DataType.FLOAT:
                continue
            for operator, sign in (("ReduceMin", -1), ("ReduceMax", 1)):
                name = f"{value.name}.{operator}"
                extreme = onnx_ir.node(operator, [value], {"keepdims": 0}, name=name)
                result = extreme.outputs[0]
                result.name, result.dtype, result.shape = name, DataType.FLOAT, onnx_ir.Shape([])
                graph.insert_after(node, extreme)
                graph.outputs.append(result)
                added.append((str(value.name), sign))
    return added
