"""Running a native engine: a plan compiled by TensorRT or TensorRT-RTX, on the GPU it was compiled for.

Device memory comes from ``cuda-bindings``, NVIDIA's own package: it has wheels for every platform that TensorRT has,
needs no compiler, and its runtime API works in the primary context, which ONNX Runtime, CuPy and PyTorch share.
"""

from __future__ import annotations

import logging
import math
import queue
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.cuda_graphs import LARGEST_BYTES, RecordedRun, RecordingError
from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.nvidia import check_engine, cuda_module, native_logger, native_module, read_gpu
from risengine.backends.on_device import OnDevice
from risengine.backends.session import DescribedSession, check_feeds
from risengine.errors import BackendError, BundleError
from risengine.manifest import GraphSpec, TensorSpec

__all__ = ["TensorRtSession"]

_LOG = logging.getLogger(__name__)

Array = NDArray[Any]


class TensorRtSession(DescribedSession):
    """One deserialised engine, on the GPU that was the loading thread's current one.

    Every thread at work has an execution context and a stream of its own. Where the shapes of its inputs repeat, it
    replays a CUDA graph; TensorRT-RTX records them itself.
    """

    def __init__(self, path: Path, spec: GraphSpec) -> None:
        """Loads the engine.

        Args:
            path: The plan, already verified.
            spec: The manifest's description of it.

        Raises:
            BundleError: The plan was compiled for another version or GPU, is damaged, or has other inputs or outputs
                than the manifest says.
            BackendError: The library or a GPU is missing, or the driver is too old.
        """
        super().__init__(spec, on_gpu=True)
        if spec.engine is None:
            raise BundleError(f"{path} is an ONNX graph; expected a native engine. Rebuild the bundle.")
        self._library = native_module(spec.engine.library)
        self._provider = f"{spec.engine.library} {self._library.__version__}"
        cudart = cuda_module()
        check_engine(spec, str(self._library.__version__), read_gpu(cudart))
        self._memory, self._logger = DeviceMemory(cudart), native_logger(self._library)
        self._runtime = self._library.Runtime(self._logger)
        # An engine for later versions carries the runtime of its own, which is code; its file's hash was checked.
        self._runtime.engine_host_code_allowed = spec.engine.any_newer_version
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BundleError(
                f"{spec.engine.library} {self._library.__version__} cannot read {path}: {self._logger.take_error()}. "
                "Rebuild the bundle, or install the version that it was built with."
            )
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        declared = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
        if names != declared:
            raise BundleError(
                f"{path} has the tensors {sorted(names)}; the manifest says {sorted(declared)}. Rebuild the bundle."
            )
        self._idle: queue.LifoQueue[_Context] = queue.LifoQueue()  # the last one's graph is likest to serve again
        self._records = not hasattr(self._library, "CudaGraphStrategy")

    @property
    def providers(self) -> tuple[str, ...]:
        """See :class:`risengine.backends.session.Session`."""
        return (self._provider,)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """See :class:`risengine.backends.session.Session`; a feed may lie on the GPU."""
        return {name: array.to_host() for name, array in self._run(feeds).items()}

    def run_on_device(self, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
        """See :class:`risengine.backends.session.DeviceSession`."""
        outputs = self._run(feeds)
        return {name: array.to_host() if name in to_host else array for name, array in outputs.items()}

    def to_device(self, array: Array) -> DeviceArray:
        """See :class:`risengine.backends.session.DeviceSession`."""
        return DeviceArray.of(self._memory, array)

    def close(self) -> None:
        """See :class:`risengine.backends.session.Session`."""
        with self._memory.selected():
            self._idle = queue.LifoQueue()
            self._engine = None

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, DeviceArray]:
        if self._engine is None:
            raise self._closed()
        described = {name: self._memory.located(name, feed) for name, feed in feeds.items()}
        check_feeds(self._spec, described)
        if self._records:
            try:
                return self._run_in_context(described, records=True)
            except RecordingError as failure:
                self._records = False
                reason = f"{failure} ({self._logger.take_error()})"
                _LOG.warning("%s runs without CUDA graphs: %s", self._spec.file, reason)
        return self._run_in_context(described, records=False)

    def _run_in_context(self, feeds: Mapping[str, Array | OnDevice], records: bool) -> dict[str, DeviceArray]:
        with self._memory.selected(), self._context() as context:
            outputs = context.run(feeds, self._spec.outputs, records)
            if outputs is None:
                raise BackendError(
                    f"{self._spec.file} failed: {self._logger.take_error()}. If the GPU's memory ran out, pass a "
                    "smaller image or fewer masks or prompts a call."
                )
        return outputs

    @contextmanager
    def _context(self) -> Iterator[_Context]:
        try:
            context = self._idle.get_nowait()
        except queue.Empty:
            context = _Context(_execution_context(self._library, self._engine), self._memory)
        yield context
        self._idle.put(context)  # not after a failure, of which its stream may still know


class _Context:
    """An execution context, its stream, and the CUDA graph of its last run if the shapes have repeated."""

    def __init__(self, context: Any, memory: DeviceMemory) -> None:
        self._context = context
        self._memory, self._stream = memory, memory.new_stream(self)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._recorded: RecordedRun | None = None

    def run(
        self, feeds: Mapping[str, Array | OnDevice], outputs: tuple[TensorSpec, ...], records: bool
    ) -> dict[str, DeviceArray] | None:
        """Runs and waits; returns the outputs, or None after a failure.

        Raises:
            BackendError: Memory ran out, or the engine gives an output no shape.
            RecordingError: The context is not to be used again.
        """
        shapes = {name: feed.shape for name, feed in feeds.items()}
        repeats = shapes == self._shapes
        if not (repeats and records):
            self._recorded = None  # before the context that it was made of is changed
        if not repeats:
            for name, shape in shapes.items():
                self._context.set_input_shape(name, shape)
            self._shapes = shapes
        elif records and self._recorded is None and self._is_small(feeds, outputs):
            self._recorded = self._record(feeds, outputs)
        if self._recorded is not None:
            return self._recorded.replay(feeds)
        held = [self._feed(name, feed) for name, feed in feeds.items()]
        results = {tensor.name: self._buffer(tensor) for tensor in outputs}
        done = self._enqueue()
        self._memory.wait(self._stream)
        del held  # what the stream has read
        return results if done else None

    def _is_small(self, feeds: Mapping[str, Array | OnDevice], outputs: tuple[TensorSpec, ...]) -> bool:
        written = sum(math.prod(self._shape(tensor)) * np.dtype(tensor.dtype).itemsize for tensor in outputs)
        return written + sum(feed.nbytes for feed in feeds.values()) <= LARGEST_BYTES

    def _record(self, feeds: Mapping[str, Array | OnDevice], outputs: tuple[TensorSpec, ...]) -> RecordedRun:
        try:
            inputs = {name: DeviceArray(self._memory, feed.shape, feed.dtype) for name, feed in feeds.items()}
            results = {tensor.name: self._buffer(tensor) for tensor in outputs}
        except BackendError as error:
            raise RecordingError(str(error)) from error
        for name, array in inputs.items():
            self._context.set_tensor_address(name, array.address)
        return RecordedRun(self._memory, self._stream, inputs, results, self._enqueue)

    def _feed(self, name: str, array: Array | OnDevice) -> Any:
        """Sets an input, one in the host's memory by a copy; returns what has to live until it is read."""
        if isinstance(array, OnDevice):
            self._memory.await_producer(array)
            self._context.set_tensor_address(name, array.address)
            return array
        copy = DeviceArray(self._memory, array.shape, array.dtype)
        self._context.set_tensor_address(name, copy.address)
        return copy, self._memory.fill(copy.address, array, self._stream)

    def _buffer(self, tensor: TensorSpec) -> DeviceArray:
        """Allocates an output."""
        output = DeviceArray(self._memory, self._shape(tensor), np.dtype(tensor.dtype))
        self._context.set_tensor_address(tensor.name, output.address)
        return output

    def _shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """Returns the shape that the inputs give an output."""
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        if min(shape, default=0) < 0:
            raise BackendError(
                f"the shape of {tensor.name} is {shape} before the run; expected one that follows from the inputs. "
                "Rebuild the bundle."
            )
        return shape

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(int(self._stream)))


def _execution_context(library: Any, engine: Any) -> Any:
    """Returns a new execution context; TensorRT-RTX replays CUDA graphs in it where shapes repeat."""
    if hasattr(library, "CudaGraphStrategy"):
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise BackendError(
            "the GPU has no room for the engine's activations; expected what its largest shapes take. Free memory, or "
            "rebuild the bundle with a smaller --profile."
        )
    return context
