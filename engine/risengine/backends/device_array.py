"""An array in the memory of an NVIDIA GPU, shared with other libraries without a copy."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.device_memory import DeviceMemory
from risengine.backends.dlpack import CUDA, make_capsule
from risengine.backends.on_device import OnDevice
from risengine.errors import InputError

__all__ = ["DeviceArray"]


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
    def of(memory: DeviceMemory, host: NDArray[Any]) -> DeviceArray:
        """Returns a copy of an array in the host's memory."""
        copy = DeviceArray(memory, host.shape, host.dtype)
        held = memory.fill(copy.address, host, memory.stream)
        memory.wait(memory.stream)
        del held
        return copy

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
            first.memory.copy(place, part.address, part.nbytes, first.memory.stream)
            place += part.nbytes
        first.memory.wait(first.memory.stream)  # a copy within the GPU returns before it is done
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
            source = self.address + int(rows[start]) * size
            self.memory.copy(taken.address + start * size, source, (end - start) * size, self.memory.stream)
        self.memory.wait(self.memory.stream)  # as above
        return taken

    def part(self, start: int, stop: int) -> OnDevice:
        """Returns where some rows lie, without a copy."""
        size = self._row_bytes
        shape = (stop - start, *self.shape[1:])
        return OnDevice(shape, self.dtype, self.address + start * size, None, self, self.device)

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
