"""Running a graph with ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.config import RuntimeConfig
from risengine.device_memory import DeviceArray, DeviceMemory, OnDevice, describe
from risengine.errors import BackendError, BundleError
from risengine.manifest import GraphSpec
from risengine.nvidia import cuda_module
from risengine.session import DescribedSession, check_feeds

__all__ = ["PROVIDERS", "OnnxSession", "onnxruntime_module"]

Array = NDArray[Any]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's execution provider for each of its devices."""

_SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""ONNX Runtime's fused sum and norm takes four times as long as its norm alone: a fifth of SAM's point decoder."""


class OnnxSession(DescribedSession):
    """A graph on one of ONNX Runtime's execution providers."""

    def __init__(self, path: Path, spec: GraphSpec, config: RuntimeConfig) -> None:
        """Loads the graph.

        Args:
            path: The ONNX file, already verified.
            spec: The manifest's description of it.
            config: Threads, and the device: ``cpu`` or ``cuda``, the former when left open.

        Raises:
            BackendError: ONNX Runtime or its provider for the device is missing or cannot load the graph.
            BundleError: The graph's inputs or outputs have other names than the manifest says.
        """
        super().__init__(spec, on_gpu=config.device == "cuda")
        ort = onnxruntime_module()
        provider = PROVIDERS[config.device or "cpu"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                path, options, providers=[provider], disabled_optimizers=list(_SLOW_FUSIONS)
            )
        except Exception as error:  # ONNX Runtime's exception classes share no public base
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot load {path}: {error}. Install the version that the bundle was "
                "built with (`risengine inspect` shows it) or a newer one, or rebuild the bundle."
            ) from error
        if self._session.get_providers()[0] != provider:  # ONNX Runtime takes another where one cannot start
            raise BackendError(
                f"{path} runs on {self._session.get_providers()[0]}; expected {provider}, which does not start here. "
                "Run `risengine doctor` to see what it needs, or load with RuntimeConfig(device='cpu')."
            )
        self._device = config.device or "cpu"
        self._memory = DeviceMemory(cuda_module()) if self._device == "cuda" else None
        for kind, declared, actual in (
            ("inputs", spec.inputs, self._session.get_inputs()),
            ("outputs", spec.outputs, self._session.get_outputs()),
        ):
            names, found = [t.name for t in declared], [t.name for t in actual]
            if names != found:
                raise BundleError(f"{path}: {kind} are {found}; the manifest says {names}. Rebuild the bundle.")

    @property
    def providers(self) -> tuple[str, ...]:
        """See :class:`Session`."""
        return tuple(self._live().get_providers())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See :class:`Session`."""
        session = self._live()
        check_feeds(self._spec, feeds)
        names = [output.name for output in self._spec.outputs]
        try:
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise self._failure(error) from error

    def run_on_device(self, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
        """See :class:`risengine.session.DeviceSession`; on the CPU all outputs are NumPy arrays."""
        if self._memory is None:
            return self.run(feeds)
        session = self._live()
        described = {name: describe(name, feed) for name, feed in feeds.items()}
        sizes = check_feeds(self._spec, described)
        binding = session.io_binding()
        for name, feed in described.items():
            if isinstance(feed, OnDevice):
                self._memory.await_producer(feed)
                binding.bind_input(name, self._device, 0, feed.dtype, feed.shape, feed.address)
            else:
                binding.bind_cpu_input(name, np.asarray(feed, order="C"))
        outputs = {}
        for tensor in self._spec.outputs:
            shape = tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
            output = outputs[tensor.name] = DeviceArray(self._memory, shape, np.dtype(tensor.dtype))
            binding.bind_output(tensor.name, self._device, 0, output.dtype, shape, output.address)
        try:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:  # as above
            raise self._failure(error) from error
        return {name: array.to_host() if name in to_host else array for name, array in outputs.items()}

    def close(self) -> None:
        """See :class:`Session`."""
        self._session = None

    def _failure(self, error: Exception) -> BackendError:
        return BackendError(
            f"{self._spec.file} failed: {error}. If memory ran out, pass a smaller image or fewer masks or prompts a "
            "call; otherwise rebuild the bundle."
        )

    def _live(self) -> Any:
        if self._session is None:
            raise self._closed()
        return self._session


def onnxruntime_module() -> Any:
    """Returns ONNX Runtime.

    Raises:
        BackendError: It is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime is missing ({error}). Run: pip install onnxruntime") from error
    return onnxruntime
