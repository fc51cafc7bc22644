"""Running a graph with ONNX Runtime: on the CPU, on an NVIDIA GPU, or an engine by way of its context graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.nvidia import cuda_module, read_gpu
from risengine.backends.on_device import OnDevice
from risengine.backends.onnx_providers import find_provider, onnxruntime_module
from risengine.backends.session import DescribedSession, check_feeds
from risengine.config import RuntimeConfig
from risengine.errors import BackendError, BundleError
from risengine.manifest import GraphSpec

__all__ = ["OnnxSession"]

Array = NDArray[Any]


class OnnxSession(DescribedSession):
    """A graph on one of ONNX Runtime's execution providers."""

    def __init__(self, path: Path, spec: GraphSpec, config: RuntimeConfig) -> None:
        """Loads the graph.

        Args:
            path: The ONNX file, already verified; an engine's context graph for the devices that run engines.
            spec: The manifest's description of it.
            config: Threads, and the device: any but ``openvino``, and ``cpu`` when left open.

        Raises:
            BackendError: ONNX Runtime or its provider for the device is missing or cannot load the graph.
            BundleError: The graph's inputs or outputs have other names than the manifest says.
        """
        device = config.device or "cpu"
        super().__init__(spec, on_gpu=device != "cpu")
        provider, self._memory = find_provider(device), None
        if self.on_gpu:
            cudart = cuda_module()
            provider = provider.on_gpu(read_gpu(cudart))
            self._memory = DeviceMemory(cudart)
        try:
            self._session: Any = provider.load(path, config.threads)
        except Exception as error:  # ONNX Runtime's exception classes share no public base
            raise BackendError(
                f"ONNX Runtime {onnxruntime_module().__version__} cannot load {path}: {error}. {_remedy(spec)}"
            ) from error
        if self._session.get_providers()[0] != provider.name:  # ONNX Runtime takes another where one cannot start
            raise BackendError(
                f"{path} runs on {self._session.get_providers()[0]}; expected {provider.name}, which does not start "
                f"here. Run `risengine doctor` to see what it needs, or {_way_around(spec)}."
            )
        self._memory_device = "cuda" if self.on_gpu else "cpu"  # ONNX Runtime's word, whichever provider it is
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
            with self._selected():
                return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise self._failure(error) from error

    def run_on_device(self, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
        """See :class:`risengine.backends.session.DeviceSession`; on the CPU all outputs are NumPy arrays."""
        if self._memory is None:
            return self.run(feeds)
        session = self._live()
        described = {name: self._memory.located(name, feed) for name, feed in feeds.items()}
        sizes = check_feeds(self._spec, described)
        place = self._memory_device, self._memory.device
        with self._selected():
            binding, outputs = session.io_binding(), {}
            for name, feed in described.items():
                if isinstance(feed, OnDevice):
                    self._memory.await_producer(feed)
                    binding.bind_input(name, *place, feed.dtype, feed.shape, feed.address)
                else:
                    binding.bind_cpu_input(name, np.asarray(feed, order="C"))
            for tensor in self._spec.outputs:
                shape = tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
                output = outputs[tensor.name] = DeviceArray(self._memory, shape, np.dtype(tensor.dtype))
                binding.bind_output(tensor.name, *place, output.dtype, shape, output.address)
            try:
                session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:  # as above
                raise self._failure(error) from error
        return {name: array.to_host() if name in to_host else array for name, array in outputs.items()}

    def to_device(self, array: Array) -> Any:
        """See :class:`risengine.backends.session.DeviceSession`."""
        return array if self._memory is None else DeviceArray.of(self._memory, array)

    def close(self) -> None:
        """See :class:`Session`."""
        self._session = None

    def _selected(self) -> AbstractContextManager[None]:
        """Makes the session's GPU the calling thread's current one for a while: ONNX Runtime does so for good."""
        return nullcontext() if self._memory is None else self._memory.selected()

    def _failure(self, error: Exception) -> BackendError:
        return BackendError(
            f"{self._spec.file} failed: {error}. If memory ran out, pass a smaller image or fewer masks or prompts a "
            "call; otherwise rebuild the bundle."
        )

    def _live(self) -> Any:
        if self._session is None:
            raise self._closed()
        return self._session


def _way_around(spec: GraphSpec) -> str:
    if spec.engine is None:
        return "load with RuntimeConfig(device='cpu')"
    return f"install {spec.engine.library}, whose own module runs this engine"


def _remedy(spec: GraphSpec) -> str:
    if spec.engine is None:
        return (
            "Install the version that the bundle was built with (`risengine inspect` shows it) or a newer one, or "
            "rebuild the bundle."
        )
    engine = spec.engine
    return (
        f"{spec.file} was compiled by {engine.library} {engine.version}: use an ONNX Runtime whose provider starts "
        f"here and has that version, install {engine.library} itself, or rebuild the bundle."
    )
