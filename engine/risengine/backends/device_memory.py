"""The memory of an NVIDIA GPU, through CUDA's runtime API."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.on_device import OnDevice, describe
from risengine.errors import BackendError, InputError

__all__ = ["DeviceMemory"]


class DeviceMemory:
    """Allocates and copies on one GPU through CUDA's runtime API, in the primary context that other libraries use too.

    It is the calling thread's current GPU when this object is made, and from then on that one in every thread. What is
    done here is done in streams of its own that CUDA's legacy default stream and graphs under capture do not touch, and
    is waited for.

    Attributes:
        device: CUDA's number of the GPU.
        stream: For copies that whoever asks for them waits for.
    """

    def __init__(self, cudart: Any) -> None:
        """Takes the current GPU.

        Args:
            cudart: The module ``cuda.bindings.runtime``.

        Raises:
            BackendError: There is no GPU, or it does not work.
        """
        self._cudart = cudart
        self.device = int(self.call("cudaGetDevice"))
        self.stream = self.new_stream(self)

    @contextmanager
    def selected(self) -> Iterator[None]:
        """Makes this GPU the calling thread's current one, and afterwards the one that was.

        From CUDA 12 on that puts a context on the other GPU too, if nothing has: some hundred megabytes of its memory,
        which CUDA_VISIBLE_DEVICES saves.
        """
        before = int(self.call("cudaGetDevice"))
        if before == self.device:
            yield
            return
        self.call("cudaSetDevice", self.device)
        try:
            yield
        finally:
            self.call("cudaSetDevice", before)

    def located(self, name: str, array: Any) -> Any:
        """Returns where an array lies on this GPU; an array in the host's memory is returned as it is.

        Args:
            name: What an error calls it.
            array: As for :func:`risengine.backends.on_device.describe`.

        Raises:
            InputError: It lies on another GPU, or as from ``describe``.
        """
        found = describe(name, array)
        lies_on = self._gpu_of(found) if isinstance(found, OnDevice) else None
        if lies_on not in (None, self.device):
            raise InputError(
                f"{name} lies on GPU {lies_on}; expected GPU {self.device}, which was CUDA's current one when the "
                f"engine was loaded. Copy it there, or load the engine while GPU {lies_on} is the current one."
            )
        return found

    def allocate(self, size_bytes: int) -> int:
        """Returns the address of new memory.

        Raises:
            BackendError: There is not enough.
        """
        return int(self._call("cudaMalloc", max(1, size_bytes)))

    def free(self, address: int) -> None:
        """Frees memory from :meth:`allocate`."""
        with suppress(BackendError):  # when the process ends, CUDA may be gone before the last array
            self._call("cudaFree", address)

    def fill(self, address: int, array: NDArray[Any] | OnDevice, stream: Any) -> Any:
        """Queues a copy of an array, from either memory, once what fills the array is done.

        Args:
            address: On this GPU.
            array: From :meth:`located`.
            stream: CUDA stream.

        Returns:
            What has to live until the stream is done.
        """
        if isinstance(array, OnDevice):
            self.await_producer(array)
            self.copy(address, array.address, array.nbytes, stream)
            return array
        host = np.asarray(array, order="C")
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, host.ctypes.data, host.nbytes, kind, stream)
        return host

    def copy(self, target: int, source: int, size_bytes: int, stream: Any) -> None:
        """Queues a copy within the GPU's memory."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """Copies from the GPU into a contiguous array, and waits for it."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host.ctypes.data, address, host.nbytes, kind, self.stream)
        self.wait(self.stream)

    def new_stream(self, owner: object) -> Any:
        """Returns a new stream, destroyed with its owner.

        It waits for nothing that is queued elsewhere. A blocking one would order itself with CUDA's legacy default
        stream, which cannot be used in any thread while a graph is captured in a blocking stream.
        """
        stream = self._call("cudaStreamCreateWithFlags", self._cudart.cudaStreamNonBlocking)
        weakref.finalize(owner, self._cudart.cudaStreamDestroy, stream)
        return stream

    def wait(self, stream: Any) -> None:
        """Waits until everything in a stream is done.

        Raises:
            BackendError: Something in it failed.
        """
        self._call("cudaStreamSynchronize", stream)

    def await_producer(self, array: OnDevice) -> None:
        """Waits until what another library has queued to fill its array is done."""
        if array.stream is not None:
            self.wait(array.stream)

    @property
    def thread_local_capture(self) -> Any:
        """How a thread captures a graph without getting in the way of others' calls."""
        return self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of the runtime API as the calling thread is, and returns its value.

        Raises:
            BackendError: It failed.
        """
        status, *values = getattr(self._cudart, function)(*arguments)
        if int(status) != 0:
            name = getattr(status, "name", str(status))
            raise BackendError(
                f"{function} failed with {name}. If the GPU's memory ran out, pass a smaller image or fewer masks or "
                "prompts a call, or free memory that other programs hold."
            )
        return values[0] if values else None

    def _call(self, function: str, *arguments: Any) -> Any:
        """Calls a function on this GPU, which is no part of any graph that this thread or another captures.

        CUDA asks for that to be said: memory may be freed by the garbage collector amid a capture.
        """
        with self.selected():
            relaxed = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
            mode = self.call("cudaThreadExchangeStreamCaptureMode", relaxed)
            try:
                return self.call(function, *arguments)
            finally:
                self.call("cudaThreadExchangeStreamCaptureMode", mode)

    def _gpu_of(self, array: OnDevice) -> int | None:
        if array.device is not None or not array.nbytes:
            return array.device
        found = self._call("cudaPointerGetAttributes", array.address)
        on_one = found.type == self._cudart.cudaMemoryType.cudaMemoryTypeDevice  # any GPU reads the other kinds
        return int(found.device) if on_one else None
