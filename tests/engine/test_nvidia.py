"""An engine is refused, with what to do, wherever it was not compiled for: no GPU is needed to tell."""

from __future__ import annotations

import ctypes
import gc
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCudart, at
from fake_tensorrt import ENGINE, FEEDS, SPEC, open_fake

from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.dlpack import LEGACY_DEFAULT_STREAM
from risengine.backends.nvidia import Gpu, check_engine, cuda_module, native_module, read_gpu
from risengine.backends.on_device import describe
from risengine.backends.tensorrt_session import TensorRtSession
from risengine.errors import BackendError, BundleError, InputError

GPU = Gpu("Fake GPU", "8.6", "13.0", "13.0", 0, "0000:0a:00.0")


class OnFakeGpu:
    """A DLPack producer whose GPU is host memory; ``alive`` counts the capsules that are out."""

    alive = 0

    def __init__(self, array: np.ndarray, first_row: int = 0, code: int = 2, bits: int = 32) -> None:
        self.array, self.first_row, self.code, self.bits = array, first_row, code, bits

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int) -> Any:
        rows = self.array[self.first_row :]
        shape = (ctypes.c_int64 * rows.ndim)(*rows.shape)
        strides = (ctypes.c_int64 * rows.ndim)(*(step // rows.itemsize for step in rows.strides))
        offset = self.first_row * self.array.strides[0]
        head = struct.pack("Piii", self.array.ctypes.data, 2, 0, rows.ndim) + struct.pack(
            "BBH", self.code, self.bits, 1
        )
        pointers = struct.pack("PPQ", ctypes.addressof(shape), ctypes.addressof(strides), offset)
        tensor = ctypes.create_string_buffer(head + pointers)

        def forget(capsule: Any, held: Any = (tensor, shape, strides)) -> None:
            OnFakeGpu.alive -= 1

        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        OnFakeGpu.alive += 1
        destructor = _DESTRUCTOR(forget)
        _DESTRUCTORS.append(destructor)  # ctypes does not keep what it hands out
        return new(ctypes.addressof(tensor), b"dltensor", ctypes.cast(destructor, ctypes.c_void_p))


_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_DESTRUCTORS: list[Any] = []


@pytest.mark.parametrize(
    ("change", "version", "capability", "message"),
    [
        ({}, "1.7.1.116", "8.6", None),
        ({}, "1.7.1.116", "8.9", None),
        ({}, "1.8.0.1", "8.6", r"compiled by tensorrt_rtx 1\.7\.1\.116; 1\.8\.0\.1 is installed.*rebuild"),
        ({"any_newer_version": True}, "1.8.0.1", "8.6", None),
        ({"any_newer_version": True}, "1.7.0.9", "8.6", "or a newer one of the same major version"),
        ({"any_newer_version": True}, "2.0.0.0", "8.6", "2.0.0.0 is installed"),
        ({}, "1.7.1.116", "8.7", r"compute capability 8\.6, 8\.9; this GPU, Fake GPU, has 8\.7.*--compute-capability"),
        ({}, "1.7.1.116", "12.0", "has 12.0"),
        ({"any_newer_gpu": True}, "1.7.1.116", "12.0", None),
        ({"any_newer_gpu": True}, "1.7.1.116", "7.5", "has 7.5"),
    ],
)
def test_engines_run_only_where_they_were_compiled_for(
    change: dict[str, Any], version: str, capability: str, message: str | None
) -> None:
    spec = replace(SPEC, engine=replace(ENGINE, **change))
    gpu = replace(GPU, compute_capability=capability)
    if message is None:
        check_engine(spec, version, gpu)
    else:
        with pytest.raises(BundleError, match=message):
            check_engine(spec, version, gpu)


def test_an_onnx_graph_is_no_engine() -> None:
    with pytest.raises(BundleError, match="is an ONNX graph; expected a native engine"):
        check_engine(replace(SPEC, engine=None), "1.7.1.116", GPU)


def test_the_gpu_and_its_driver_are_read() -> None:
    assert read_gpu(FakeCudart()) == GPU
    with pytest.raises(BackendError, match=r"no NVIDIA driver is loaded.*Install it"):
        read_gpu(FakeCudart(driver=0))
    with pytest.raises(BackendError, match=r"serves CUDA 12\.4; the installed libraries need CUDA 13\.0.*Update"):
        read_gpu(FakeCudart(driver=12040))
    none = FakeCudart()
    none.device_status = 100
    with pytest.raises(BackendError, match="cudaGetDevice failed with 100; expected an NVIDIA GPU"):
        read_gpu(none)


def test_what_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"no_such_library is missing|tensorrt is missing"):
        native_module("tensorrt")
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendError, match=r"cuda-bindings is missing .*pip install cuda-bindings"):
        cuda_module()


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


def test_a_session_computes_and_frees_what_it_allocated(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path)
    first = session.run(FEEDS)
    np.testing.assert_array_equal(first["y"], FEEDS["x"] / 2)
    np.testing.assert_array_equal(first["sums"], [1.5, 6])
    again = session.run({**FEEDS, "x": FEEDS["x"][:1]})
    np.testing.assert_array_equal(again["y"], FEEDS["x"][:1] / 2)
    np.testing.assert_array_equal(first["y"], FEEDS["x"] / 2)  # nothing wrote over it
    assert session.providers == ("tensorrt_rtx 1.7.1.116",)
    gc.collect()
    assert not cudart.blocks


def test_outputs_stay_on_the_device_and_feed_the_next_run_without_a_copy(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path)
    outputs = session.run_on_device(FEEDS, to_host=("sums",))
    assert isinstance(outputs["sums"], np.ndarray)
    y = outputs["y"]
    assert isinstance(y, DeviceArray)
    before = cudart.copied_to_device
    twice = session.run_on_device({**FEEDS, "x": y})["y"]
    assert cudart.copied_to_device == before + 4  # the scale alone
    np.testing.assert_array_equal(twice.to_host(), FEEDS["x"] / 4)
    np.testing.assert_array_equal(np.asarray(y), FEEDS["x"] / 2)
    np.testing.assert_array_equal(y[np.array([1, 1, 0])].to_host(), FEEDS["x"][[1, 1, 0]] / 2)
    interface = y.__cuda_array_interface__
    np.testing.assert_array_equal(at(interface["data"][0], interface["shape"], interface["typestr"]), y.to_host())


def test_arrays_of_other_libraries_are_read_where_they_are(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path)
    memory = DeviceMemory(cudart)
    held = DeviceArray(memory, (2, 3), np.dtype(np.float32))
    at(held.address, (2, 3), "float32")[...] = FEEDS["x"]

    class Foreign:
        def __init__(self, strides: tuple[int, ...] | None) -> None:
            self.__cuda_array_interface__ = {**held.__cuda_array_interface__, "strides": strides}

    for strides in (None, (12, 4)):
        np.testing.assert_array_equal(session.run({**FEEDS, "x": Foreign(strides)})["y"], FEEDS["x"] / 2)
    with pytest.raises(InputError, match=r"x has strides \(4, 8\); expected \(12, 4\). Make it contiguous"):
        session.run({**FEEDS, "x": Foreign((4, 8))})


def test_dlpack_tensors_are_read_where_they_are(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path)
    session.run(FEEDS)
    before = cudart.copied_to_device
    session.run({**FEEDS, "x": OnFakeGpu(FEEDS["x"])})
    copied_without_x = FEEDS["scale"].nbytes
    assert cudart.copied_to_device - before == copied_without_x
    skipped = OnFakeGpu(np.vstack([np.ones((1, 3), np.float32), FEEDS["x"]]), first_row=1)
    np.testing.assert_array_equal(session.run({**FEEDS, "x": skipped})["y"], FEEDS["x"] / 2)
    assert cudart.awaited.count(LEGACY_DEFAULT_STREAM) == 2
    with pytest.raises(InputError, match=r"x has strides \(4, 8\); expected \(12, 4\)"):
        session.run({**FEEDS, "x": OnFakeGpu(FEEDS["x"].T.copy().T)})
    with pytest.raises(InputError, match="data type 4 of 16 bits x 1; expected an integer"):
        session.run({**FEEDS, "x": OnFakeGpu(FEEDS["x"], code=4, bits=16)})
    with pytest.raises(InputError, match="data type 0 of 4 bits x 1; expected an integer"):
        session.run({**FEEDS, "x": OnFakeGpu(FEEDS["x"], code=0, bits=4)})


class Unwilling:
    """What hands itself to nobody, in one way or the other: a tensor of PyTorch that requires its gradient."""

    def __init__(self, by_interface: bool) -> None:
        self.by_interface = by_interface

    def __getattr__(self, name: str) -> Any:
        if name == "__cuda_array_interface__" and self.by_interface:
            raise RuntimeError("it requires grad")
        raise AttributeError(name)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int) -> Any:
        raise BufferError("it requires grad")


@pytest.mark.parametrize("by_interface", [True, False])
def test_an_array_that_refuses_is_an_error_of_ours(by_interface: bool) -> None:
    with pytest.raises(InputError, match=r"x is not handed over: it requires grad. Detach or copy it"):
        describe("x", Unwilling(by_interface))
    alive = OnFakeGpu.alive
    gc.collect()
    assert alive == OnFakeGpu.alive == 0  # every capsule was let go of


def test_streams_of_other_libraries_are_waited_for(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path)
    held = DeviceArray(DeviceMemory(cudart), (2, 3), np.dtype(np.float32))

    for version, stream, awaited in [(3, {"stream": 42}, 42), (3, {"stream": None}, None), (2, {}, 1), (3, {}, None)]:
        interface = {**held.__cuda_array_interface__, "version": version, **stream}
        cudart.awaited.clear()
        session.run({**FEEDS, "x": SimpleNamespace(__cuda_array_interface__=interface)})
        foreign = [stream for stream in cudart.awaited if stream == 1 or stream not in cudart.streams]
        assert foreign == ([awaited] if awaited else [])


def test_tensorrt_rtx_is_told_to_replay_graphs(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, library = open_fake(cudart, monkeypatch, tmp_path)
    session.run(FEEDS)
    session.run(FEEDS)
    assert library.contexts == [None]  # one context serves a thread; TensorRT knows no such setting
    session, library = open_fake(cudart, monkeypatch, tmp_path, replays_graphs=True)
    session.run(FEEDS)
    assert library.contexts[0].cuda_graph_strategy == "whole"


def test_an_engine_without_room_says_so(cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session, library = open_fake(cudart, monkeypatch, tmp_path)
    library.has_room = False
    with pytest.raises(BackendError, match=r"no room for the engine's activations.*smaller --profile"):
        session.run(FEEDS)


def test_a_profile_is_exceeded_before_the_device_is_touched(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path)
    with pytest.raises(BackendError, match=r"x is \(5, 3\); .* compiled for \(1, 3\) to \(4, 3\).*--profile"):
        session.run({**FEEDS, "x": np.zeros((5, 3), np.float32)})
    assert cudart.copied_to_device == 0
    assert SPEC.largest("N") == 4
    assert replace(SPEC, engine=None).largest("N") is None


def test_a_truncated_plan_is_refused(cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*: the plan is damaged. Rebuild the bundle"):
        open_fake(cudart, monkeypatch, tmp_path, plan=b"pla")


def test_an_engine_for_later_versions_brings_its_runtime(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        open_fake(cudart, monkeypatch, tmp_path, plan=b"plan with a runtime")
    spec = replace(SPEC, engine=replace(ENGINE, any_newer_version=True))
    assert TensorRtSession(tmp_path / "g.plan", spec).run(FEEDS)["y"].shape == (2, 3)


def test_other_tensors_than_the_manifests_are_refused(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"has the tensors \['x', 'z'\]; the manifest says"):
        open_fake(cudart, monkeypatch, tmp_path, names=["x", "z"])


def test_failures_say_why(cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session, library = open_fake(cudart, monkeypatch, tmp_path)
    library.fails = True
    with pytest.raises(BackendError, match=r"g.plan failed: a kernel failed. If the GPU's memory ran out"):
        session.run(FEEDS)
    library.fails = False
    cudart.room = 3
    with pytest.raises(BackendError, match=r"cudaMalloc failed with 2. If the GPU's memory ran out"):
        session.run(FEEDS)
    cudart.room = 1 << 20
    np.testing.assert_array_equal(session.run(FEEDS)["y"], FEEDS["x"] / 2)
    session.close()
    with pytest.raises(BackendError, match="is closed"):
        session.run(FEEDS)


def test_an_engine_for_another_gpu_is_not_even_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has 12.0"):
        open_fake(FakeCudart(capability=(12, 0)), monkeypatch, tmp_path, plan=b"nonsense")
