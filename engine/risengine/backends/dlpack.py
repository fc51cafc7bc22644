"""DLPack: where an array of another library lies on the GPU, and one's own offered to others, without a copy."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np

from risengine.errors import InputError

__all__ = ["CUDA", "LEGACY_DEFAULT_STREAM", "Exportable", "gpu_number", "is_on_gpu", "make_capsule", "read_tensor"]

CUDA = 2
"""``kDLCUDA``, DLPack's number of memory on an NVIDIA GPU."""

_CUDA_MANAGED = 13  # further of DLDeviceType
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode, in NumPy's letters

LEGACY_DEFAULT_STREAM = 1
"""CUDA's legacy default stream, as its runtime API, the Python array API and ``__cuda_array_interface__`` number it."""


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """``DLTensor``, the head of ``DLManagedTensor``; see https://dmlc.github.io/dlpack/latest/c_api.html."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def is_on_gpu(array: Any) -> bool:
    """Tells whether an array offers itself through DLPack and lies on an NVIDIA GPU."""
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) in (CUDA, _CUDA_MANAGED)


def gpu_number(array: Any) -> int | None:
    """Returns CUDA's number of the GPU that an array says it lies on; None where it says none, or any may read it."""
    kind, number = array.__dlpack_device__() if hasattr(array, "__dlpack_device__") else (0, 0)
    return int(number) if int(kind) == CUDA else None


def read_tensor(name: str, array: Any) -> tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...] | None, int, Any]:
    """Returns where an array lies that :func:`is_on_gpu`.

    Args:
        name: What an error calls it.
        array: Its producer, which makes :data:`LEGACY_DEFAULT_STREAM` wait for the work that fills the array.

    Returns:
        Shape, dtype, strides in bytes (None: C-contiguous), address, and what has to live as long as the address.

    Raises:
        InputError: NumPy has no such dtype, or the producer refuses.
    """
    try:
        capsule = array.__dlpack__(stream=LEGACY_DEFAULT_STREAM)
    except (BufferError, RuntimeError, TypeError) as error:
        raise InputError(f"{name} is not handed over: {error}. Detach or copy it first.") from error
    # The capsule is left unconsumed: it frees the producer's tensor when it is itself let go of.
    tensor = _tensor_in(capsule)
    kind = _KINDS.get(tensor.dtype.code)
    size = {"f": (16, 32, 64), "b": (8,)}.get(kind or "", (8, 16, 32, 64))
    if kind is None or tensor.dtype.lanes != 1 or tensor.dtype.bits not in size:
        raise InputError(
            f"{name} has DLPack's data type {tensor.dtype.code} of {tensor.dtype.bits} bits x {tensor.dtype.lanes}; "
            "expected an integer, a floating-point number or a bool. Convert it first."
        )
    dtype = np.dtype(f"{kind}{tensor.dtype.bits // 8}")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] * dtype.itemsize for axis in range(tensor.ndim)) if tensor.strides else None
    return shape, dtype, strides, int(tensor.data or 0) + int(tensor.byte_offset), capsule


class Exportable(Protocol):
    """A C-contiguous array on the GPU."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int

    def __dlpack_device__(self) -> tuple[int, int]:
        """Returns DLPack's kind of device, and its number."""
        ...


def make_capsule(array: Exportable) -> Any:
    """Returns a capsule named ``dltensor`` that keeps an array alive until it is let go of, consumed or not.

    NumPy makes the capsule, of an array that lies where this one does and that nobody reads, and the device is then
    written over the host's. So what frees it is NumPy's compiled code, which may run at any time and in any thread:
    while an exception is on its way, or when the interpreter ends.
    """
    capsule = np.asarray(_Seen(array)).__dlpack__()
    tensor = _tensor_in(capsule)
    tensor.device_type, tensor.device_id = array.__dlpack_device__()
    return capsule


class _Seen:
    """What NumPy is told of an array on the GPU; the array that it makes of it holds this object."""

    def __init__(self, array: Exportable) -> None:
        self._array = array
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.address, False),
            "version": 3,
        }


def _tensor_in(capsule: Any) -> _Tensor:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return _Tensor.from_address(pointer(capsule, b"dltensor"))
