"""Running a graph with OpenVINO's own runtime, on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import DescribedSession, check_feeds
from risengine.config import RuntimeConfig
from risengine.errors import BackendError, BundleError
from risengine.manifest import GraphSpec

__all__ = ["OpenVinoSession", "openvino_module"]

Array = NDArray[Any]

_DEVICE = "CPU"


class OpenVinoSession(DescribedSession):
    """An ONNX graph compiled by OpenVINO when it is loaded."""

    def __init__(self, path: Path, spec: GraphSpec, config: RuntimeConfig) -> None:
        """Loads the graph.

        Args:
            path: The ONNX file, already verified.
            spec: The manifest's description of it.
            config: Threads.

        Raises:
            BackendError: OpenVINO is missing or cannot compile the graph.
            BundleError: The graph's inputs or outputs have other names than the manifest says.
        """
        super().__init__(spec)
        ov = openvino_module()
        options: dict[str, Any] = {
            # The default is the CPU's fastest type, bfloat16 on many: another precision than the bundle's.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if config.threads:
            options["INFERENCE_NUM_THREADS"] = config.threads
        try:
            self._model: Any = ov.Core().compile_model(path, _DEVICE, options)
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO {ov.__version__} cannot compile {path}: {error}. Update openvino, or load the bundle with "
                "RuntimeConfig(device='cpu')."
            ) from error
        for kind, declared, ports in (
            ("inputs", spec.inputs, self._model.inputs),
            ("outputs", spec.outputs, self._model.outputs),
        ):
            names, found = {t.name for t in declared}, {name for port in ports for name in port.names}
            if not names <= found:
                raise BundleError(
                    f"{path}: {kind} are {sorted(found)}; the manifest says {sorted(names)}. Rebuild the bundle."
                )
        self._requests = threading.local()  # a request holds the tensors of one run

    @property
    def providers(self) -> tuple[str, ...]:
        """See :class:`risengine.backends.session.Session`."""
        return (f"OpenVINO {_DEVICE}",)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See :class:`risengine.backends.session.Session`."""
        if self._model is None:
            raise self._closed()
        check_feeds(self._spec, feeds)
        if not hasattr(self._requests, "request"):
            self._requests.request = self._model.create_infer_request()
        request = self._requests.request
        try:
            request.infer({name: np.asarray(feed, order="C") for name, feed in feeds.items()}, share_inputs=True)
        except RuntimeError as error:
            raise BackendError(
                f"{self._spec.file} failed in OpenVINO: {error}. If memory ran out, pass a smaller image or fewer "
                "masks or prompts a call; otherwise load the bundle with RuntimeConfig(device='cpu')."
            ) from error
        return {output.name: request.get_tensor(output.name).data.copy() for output in self._spec.outputs}

    def close(self) -> None:
        """See :class:`risengine.backends.session.Session`."""
        self._model, self._requests = None, threading.local()


def openvino_module() -> Any:
    """Returns OpenVINO.

    Raises:
        BackendError: It is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f'OpenVINO is missing ({error}). Run: pip install "risengine[openvino]"') from error
    return openvino
