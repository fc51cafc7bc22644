"""Arrays on the GPU offered through DLPack: what a consumer finds in the capsule, and that memory is freed once."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import FakeCudart, at

from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.dlpack import _Tensor
from risengine.backends.on_device import describe
from risengine.errors import InputError


class Managed(ctypes.Structure):
    """``DLManagedTensor``."""

    _fields_ = (
        ("tensor", _Tensor),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


def python_api(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


get_pointer = python_api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
set_name = python_api("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)


class Consumer:
    """What a library does with a capsule: takes the tensor, renames the capsule, and calls the deleter at its end."""

    def __init__(self, producer: DeviceArray, **options: Any) -> None:
        capsule = producer.__dlpack__(**options)
        self.managed = Managed.from_address(get_pointer(capsule, b"dltensor"))
        set_name(capsule, b"used_dltensor")

    def release(self) -> None:
        self.managed.deleter(ctypes.addressof(self.managed))


class OnTheHost:
    """Presents an array of the fake GPU, which is host memory, as the host's: to consumers that know no GPU."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.array.__dlpack__()
        Managed.from_address(get_pointer(capsule, b"dltensor")).tensor.device_type = 1
        return capsule


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


def filled(cudart: FakeCudart, shape: tuple[int, ...] = (2, 3), dtype: str = "float32") -> DeviceArray:
    array = DeviceArray(DeviceMemory(cudart), shape, np.dtype(dtype))
    at(array.address, shape, dtype)[...] = np.arange(array.nbytes // array.dtype.itemsize).reshape(shape)
    return array


@pytest.mark.parametrize(
    ("dtype", "code", "bits"),
    [("float32", 2, 32), ("float16", 2, 16), ("int32", 0, 32), ("int64", 0, 64), ("uint8", 1, 8), ("bool", 6, 8)],
)
@pytest.mark.parametrize("shape", [(2, 3), (4,), (), (0, 5)])
def test_a_consumer_finds_the_array(
    cudart: FakeCudart, dtype: str, code: int, bits: int, shape: tuple[int, ...]
) -> None:
    array = filled(cudart, shape, dtype)
    consumer = Consumer(array)
    tensor = consumer.managed.tensor
    assert (tensor.device_type, tensor.device_id) == array.__dlpack_device__() == (2, 0)
    assert tuple(tensor.shape[axis] for axis in range(tensor.ndim)) == shape
    assert (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == (code, bits, 1)
    if array.nbytes:
        assert tensor.data + tensor.byte_offset == array.address
    assert cudart.copied_to_host == 0
    consumer.release()


def test_memory_lives_as_long_as_the_consumers_tensor(cudart: FakeCudart) -> None:
    array = filled(cudart)
    address = array.address
    consumer = Consumer(array)
    del array
    gc.collect()
    assert cudart.freed == []
    np.testing.assert_array_equal(at(address, (2, 3), "float32"), [[0, 1, 2], [3, 4, 5]])
    consumer.release()
    assert cudart.freed == [address]


def test_a_consumers_end_leaves_the_array(cudart: FakeCudart) -> None:
    array = filled(cudart)
    address = array.address
    first, second = Consumer(array), Consumer(array)
    first.release()
    second.release()
    gc.collect()
    assert cudart.freed == []
    np.testing.assert_array_equal(array.to_host(), [[0, 1, 2], [3, 4, 5]])
    del array
    assert cudart.freed == [address]


def test_a_capsule_that_nobody_takes_frees_once(cudart: FakeCudart) -> None:
    array = filled(cudart)
    address = array.address
    capsule = array.__dlpack__()
    del array
    gc.collect()
    assert cudart.freed == []
    try:
        try:
            raise ValueError
        finally:
            del capsule  # while an exception is on its way
    except ValueError:
        pass
    assert cudart.freed == [address]


def test_libraries_take_it_and_let_go_of_it(cudart: FakeCudart) -> None:
    array = filled(cudart)
    address = array.address
    seen, tensor = np.from_dlpack(OnTheHost(array)), torch.from_dlpack(OnTheHost(array))
    assert tensor.data_ptr() == seen.ctypes.data == address
    tensor[0, 0] = 7
    del array, tensor
    gc.collect()
    assert cudart.freed == []
    assert seen[0, 0] == 7
    del seen
    gc.collect()
    assert cudart.freed == [address]


def test_this_engine_reads_what_it_offers(cudart: FakeCudart) -> None:
    array = filled(cudart)

    class Foreign:
        __dlpack__, __dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    found = describe("x", Foreign())
    assert (found.shape, found.dtype, found.address) == ((2, 3), np.float32, array.address)


@pytest.mark.parametrize("stream", [None, -1, 1, 2, 0x7F00])
def test_streams_of_the_standard_are_taken_without_waiting(cudart: FakeCudart, stream: int | None) -> None:
    array = filled(cudart)
    cudart.awaited.clear()
    Consumer(array, stream=stream, max_version=(1, 0), dl_device=(2, 0), copy=False).release()
    assert cudart.awaited == []  # an array is complete when it is handed out


@pytest.mark.parametrize("stream", [0, -2])
def test_streams_that_are_none_are_refused(cudart: FakeCudart, stream: int) -> None:
    with pytest.raises(InputError, match=rf"stream = {stream}; expected None, -1, 1, 2 or .*Pass 1"):
        filled(cudart).__dlpack__(stream=stream)


def test_another_device_is_refused_and_a_copy_is_one(cudart: FakeCudart) -> None:
    array = filled(cudart)
    with pytest.raises(BufferError, match=r"lies on device \(2, 0\); copy it to \(1, 0\) yourself"):
        array.__dlpack__(dl_device=(1, 0))
    copied = Consumer(array, copy=True)
    assert copied.managed.tensor.data != array.address
    np.testing.assert_array_equal(at(copied.managed.tensor.data, (2, 3), "float32"), array.to_host())
    copied.release()
    assert len(cudart.freed) == 1
