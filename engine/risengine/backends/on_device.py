"""Where an array of any library lies on an NVIDIA GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from risengine.backends.dlpack import LEGACY_DEFAULT_STREAM, gpu_number, is_on_gpu, read_tensor
from risengine.errors import InputError

__all__ = ["OnDevice", "describe"]


@dataclass(frozen=True)
class OnDevice:
    """Where an array of another library lies on the GPU, in NumPy's terms.

    Attributes:
        shape: Its shape.
        dtype: Its NumPy dtype.
        address: Of its first element.
        stream: CUDA stream in which the work that fills it is queued; None where that is complete.
        owner: What keeps the memory alive.
        device: CUDA's number of the GPU; None where its library does not say.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    stream: int | None
    owner: Any
    device: int | None

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
    return OnDevice(shape, dtype, address, stream, owner, gpu_number(array))
