"""Arrays in the memory of an NVIDIA GPU, shared with other libraries without a copy."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.dlpack import CUDA, LEGACY_DEFAULT_STREAM, is_on_gpu, make_capsule, read_tensor
from risengine.errors import BackendError, InputError

__all__ = ["DeviceArray", "DeviceMemory", "OnDevice", "describe"]


class DeviceArray:
    """A C-contiguous array on the GPU, freed with the object.

    CuPy, PyTorch, Numba, JAX and whatever else reads ``__cuda_array_interface__`` or DLPack take it without a copy;
    the work that fills it is complete when it is handed out.

    Attributes:
        shape: Its shape.
        dtype: Its NumPy dtype.
        memory: Where it was allocated.
        device: CUDA's number of the GPU.
    """

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Allocates an array.

        Raises:
            BackendError: The GPU has not enough memory.
        """
        self.shape, self.dtype = shape, dtype
        self.memory, self.device = memory, memory.device
        self.nbytes = math.prod(shape) * dtype.itemsize
        self.address = memory.allocate(self.nbytes)
        weakref.finalize(self, memory.free, self.address)

    @staticmethod
    def joined(parts: Sequence[DeviceArray]) -> DeviceArray:
        """Returns a copy of arrays one after the other, on the GPU.

        Args:
            parts: At least one; of one dtype, and of one shape but for the first dimension.
        """
        first = parts[0]
        whole = DeviceArray(first.memory, (sum(map(len, parts)), *first.shape[1:]), first.dtype)
        place = whole.address
        for part in parts:
            first.memory.copy(place, part.address, part.nbytes)
            place += part.nbytes
        first.memory.wait(LEGACY_DEFAULT_STREAM)  # a copy within the GPU returns before it is done
        return whole

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """See https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, version 3."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """See https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html."""
        return CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Returns a DLPack capsule, by the array API standard; the memory lives until its consumer lets go of it.

        Args:
            stream: The consumer's CUDA stream: None, -1, 1, 2 or a stream's address. None of them has to wait.
            max_version: Of no effect: the capsule is of the form that all versions read.
            dl_device: None, or this array's device.
            copy: Whether to copy.

        Raises:
            InputError: The stream is none, 0 included, which the standard rules out as ambiguous.
            BufferError: Another device is asked for.
        """
        if stream is not None and (stream < -1 or stream == 0):
            raise InputError(
                f"stream = {stream}; expected None, -1, 1, 2 or a CUDA stream's address, by the array API standard. "
                "Pass 1 for CUDA's legacy default stream."
            )
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"the array lies on device {self.__dlpack_device__()}; copy it to {dl_device} yourself.")
        return make_capsule(DeviceArray.joined([self]) if copy else self)

    def __getitem__(self, rows: NDArray[np.int64]) -> DeviceArray:
        """Returns a copy of rows, on the GPU.

        Args:
            rows: (R,) int64 indices along the first dimension.
        """
        size = self._row_bytes
        taken = DeviceArray(self.memory, (len(rows), *self.shape[1:]), self.dtype)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of rows that follow each other
        for start, end in zip(starts.tolist(), np.append(starts[1:], len(rows)).tolist(), strict=False):
            self.memory.copy(taken.address + start * size, self.address + int(rows[start]) * size, (end - start) * size)
        self.memory.wait(LEGACY_DEFAULT_STREAM)  # as above
        return taken

    def part(self, start: int, stop: int) -> OnDevice:
        """Returns where some rows lie, without a copy."""
        size = self._row_bytes
        shape = (stop - start, *self.shape[1:])
        return OnDevice(shape, self.dtype, self.address + start * size, None, self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Lets NumPy read it, by a copy."""
        if copy is False:
            raise ValueError("an array on the GPU cannot be read without a copy")
        return self.to_host().astype(dtype or self.dtype, copy=False)

    def to_host(self) -> NDArray[Any]:
        """Returns a copy in the host's memory."""
        host = np.empty(self.shape, self.dtype)
        self.memory.to_host(host, self.address)
        return host


class DeviceMemory:
    """Allocates and copies through CUDA's runtime API, in the primary context that other libraries use too."""

    def __init__(self, cudart: Any) -> None:
        """Keeps the module ``cuda.bindings.runtime``."""
        self._cudart = cudart

    @property
    def device(self) -> int:
        """CUDA's number of the current GPU."""
        return int(self._call("cudaGetDevice")[0])

    def upload(self, host: NDArray[Any]) -> DeviceArray:
        """Returns a copy of an array on the GPU."""
        copy = DeviceArray(self, host.shape, host.dtype)
        self.to_device(copy.address, np.asarray(host, order="C"), LEGACY_DEFAULT_STREAM)
        self.wait(LEGACY_DEFAULT_STREAM)
        return copy

    def allocate(self, size_bytes: int) -> int:
        """Returns the address of new memory.

        Raises:
            BackendError: There is not enough.
        """
        return int(self._call("cudaMalloc", max(1, size_bytes))[0])

    def free(self, address: int) -> None:
        """Frees memory from :meth:`allocate`."""
        self._cudart.cudaFree(address)

    def to_device(self, address: int, host: NDArray[Any], stream: Any) -> None:
        """Copies a contiguous array to the GPU, in the order of a stream."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, host.ctypes.data, host.nbytes, kind, stream)

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """Copies from the GPU into a contiguous array, and waits for it."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", host.ctypes.data, address, host.nbytes, kind)

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """Copies within the GPU's memory."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpy", target, source, size_bytes, kind)

    def new_stream(self) -> Any:
        """Returns a new stream."""
        return self._call("cudaStreamCreate")[0]

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

    def _call(self, function: str, *arguments: Any) -> tuple[Any, ...]:
        status, *values = getattr(self._cudart, function)(*arguments)
        if int(status) != 0:
            name = getattr(status, "name", str(status))
            raise BackendError(
                f"{function} failed with {name}. If the GPU's memory ran out, pass a smaller image or fewer masks or "
                "prompts a call, or free memory that other programs hold."
            )
        return tuple(values)


@dataclass(frozen=True)
class OnDevice:
    """Where an array of another library lies on the GPU, in NumPy's terms.

    Attributes:
        shape: Its shape.
        dtype: Its NumPy dtype.
        address: Of its first element.
        stream: CUDA stream in which the work that fills it is queued; None where that is complete.
        owner: What keeps the memory alive.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    stream: int | None
    owner: Any

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of its elements together."""
        return math.prod(self.shape) * self.dtype.itemsize


def describe(name: str, array: Any) -> Any:
    """Returns where an array lies on the GPU; an array in the host's memory is returned as it is.

    Args:
        name: What an error calls it.
        array: A NumPy array, or anything on the GPU with ``__cuda_array_interface__`` or ``__dlpack__``: of CuPy,
            PyTorch, PyCUDA, JAX, or :class:`DeviceArray`, or a part of one.

    Raises:
        InputError: It is on the GPU and not C-contiguous, of a dtype that NumPy lacks, or its owner refuses.
    """
    if isinstance(array, OnDevice):
        return array
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
    except (RuntimeError, TypeError) as error:  # PyTorch's, of a tensor that requires its gradient
        raise InputError(f"{name} is not handed over: {error}. Detach or copy it first.") from error
    strides: tuple[int, ...] | None
    if interface is not None:
        shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        strides, address, owner = interface.get("strides"), int(interface["data"][0]), array
        # Version 2 is silent on streams; PyTorch still writes it, and works in the default stream unless told.
        stream = interface.get("stream", None if interface["version"] > 2 else LEGACY_DEFAULT_STREAM)
    elif is_on_gpu(array):
        shape, dtype, strides, address, owner = read_tensor(name, array)
        stream = LEGACY_DEFAULT_STREAM
    else:
        return array
    # A side of 1 or 0 is never stepped along, and libraries write anything there.
    if strides is not None and math.prod(shape) > 0:
        contiguous = tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        if any(size > 1 and step != wanted for size, step, wanted in zip(shape, strides, contiguous, strict=True)):
            raise InputError(f"{name} has strides {tuple(strides)}; expected {contiguous}. Make it contiguous first.")
    return OnDevice(shape, dtype, address, stream, owner)
