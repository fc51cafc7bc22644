"""Runs of a native engine recorded as CUDA graphs: replayed, a run is one launch and not one for every kernel.

TensorRT's rules: an execution context is recorded once it has run with the same shapes, because a run with others
first brings its own state up to date, which is no work of the stream's; a graph holds for those shapes, and keeps
reading and writing the addresses that it was recorded with. CUDA's: what is recorded is one thread's, in a stream that
waits for no other, and recording is ended whatever happens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.on_device import OnDevice
from risengine.errors import BackendError

__all__ = ["LARGEST_BYTES", "RecordedRun", "RecordingError"]

LARGEST_BYTES = 1 << 24
"""Inputs and outputs together of a run that is worth recording. They are kept, and all but inputs from the host are
copied once more. 16 MB are read and written in 0.2 ms by the slowest GPUs meant (Orin, 200 GB/s) and 0.05 ms by others;
a graph saves some microseconds a kernel of a few hundred, where the host is what a run waits for. A run that moves more
computes for longer than its launches take, and gains nothing. Estimated: no GPU was at hand to measure."""


class RecordingError(Exception):
    """The engine, its library or the driver does not let the run be recorded; it can still run."""


class RecordedRun:
    """One run of an execution context as a CUDA graph, and the buffers that it reads and writes."""

    def __init__(
        self,
        memory: DeviceMemory,
        stream: Any,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
        enqueue: Callable[[], bool],
    ) -> None:
        """Records a run.

        Args:
            memory: Of the buffers; its GPU is the calling thread's current one.
            stream: From ``memory.new_stream``.
            inputs: By name, whose addresses the context has been given.
            outputs: Likewise.
            enqueue: Queues the run in the stream, and tells whether that went well.

        Raises:
            RecordingError: Nothing is left of it, in the stream neither.
        """
        self._memory, self._stream = memory, stream
        self._inputs, self._outputs = inputs, outputs
        try:
            self._executable = _instantiated(memory, _recorded(memory, stream, enqueue))
            weakref.finalize(self, _destroy, memory, "cudaGraphExecDestroy", self._executable)
            memory.call("cudaGraphUpload", self._executable, stream)  # takes now what the first launch would
        except BackendError as error:
            with suppress(BackendError):
                memory.call("cudaGetLastError")  # or other libraries would take it for theirs
            raise RecordingError(str(error)) from error

    def replay(self, feeds: Mapping[str, NDArray[Any] | OnDevice]) -> dict[str, DeviceArray]:
        """Runs again, and waits.

        Args:
            feeds: From :meth:`DeviceMemory.located`, of the shapes that were recorded.

        Returns:
            The outputs, in memory that no later run writes to.

        Raises:
            BackendError: The run failed.
        """
        held = [self._memory.fill(self._inputs[name].address, feed, self._stream) for name, feed in feeds.items()]
        outputs = {name: DeviceArray(self._memory, kept.shape, kept.dtype) for name, kept in self._outputs.items()}
        self._memory.call("cudaGraphLaunch", self._executable, self._stream)
        for name, kept in self._outputs.items():
            self._memory.copy(outputs[name].address, kept.address, kept.nbytes, self._stream)
        self._memory.wait(self._stream)
        del held
        return outputs


def _recorded(memory: DeviceMemory, stream: Any, enqueue: Callable[[], bool]) -> Any:
    """Returns the graph, ``cudaGraph_t``, of what a function queues."""
    memory.call("cudaStreamBeginCapture", stream, memory.thread_local_capture)
    queued = False
    try:
        queued = enqueue()
    finally:
        graph = memory.call("cudaStreamEndCapture", stream)
    if not queued:
        _destroy(memory, "cudaGraphDestroy", graph)
        raise BackendError("the engine refuses to be recorded")
    return graph


def _instantiated(memory: DeviceMemory, graph: Any) -> Any:
    """Returns what can be launched of a graph, ``cudaGraphExec_t``, and lets go of the graph."""
    try:
        return memory.call("cudaGraphInstantiate", graph, 0)
    finally:
        _destroy(memory, "cudaGraphDestroy", graph)


def _destroy(memory: DeviceMemory, function: str, handle: Any) -> None:
    with suppress(BackendError):  # when the process ends, CUDA may be gone before the last graph
        memory.call(function, handle)
