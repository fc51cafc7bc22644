"""An engine stays on the GPU that was current when it was loaded; arrays of another GPU are refused."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCudart, at
from fake_ort import CPU, FakeOnnxRuntime, ep_device
from fake_tensorrt import FEEDS, SPEC, compute, open_fake

from risengine.backends import onnx_session
from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.nvidia import read_gpu
from risengine.backends.onnx_providers import Provider
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import DeviceSession
from risengine.config import RuntimeConfig
from risengine.errors import BackendError, InputError

RTX = "NvTensorRTRTXExecutionProvider"


@pytest.fixture
def cudart() -> FakeCudart:
    """Two GPUs, of which the second is the calling thread's current one."""
    found = FakeCudart(gpus=2)
    found.cudaSetDevice(1)
    return found


@pytest.fixture(params=["native", "CUDAExecutionProvider", RTX])
def session(
    request: pytest.FixtureRequest, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> DeviceSession:
    """A session on the second GPU; by now the first is current."""
    if request.param == "native":
        opened: DeviceSession = open_fake(cudart, monkeypatch, tmp_path)[0]
    else:
        ort = FakeOnnxRuntime(SPEC, compute, built_in=(request.param, CPU))
        monkeypatch.setitem(sys.modules, "onnxruntime", ort)  # type: ignore[arg-type]
        monkeypatch.setattr(onnx_session, "cuda_module", lambda: cudart)
        device: Any = "tensorrt-rtx" if request.param == RTX else "cuda"
        opened = OnnxSession(tmp_path, SPEC, RuntimeConfig(device))
        assert ort.opened[0].provider_options[0]["device_id"] == "1"
    cudart.cudaSetDevice(0)
    return opened


def test_an_engine_stays_on_its_gpu_in_every_thread(session: DeviceSession, cudart: FakeCudart) -> None:
    def ask() -> tuple[Any, int]:
        before = cudart.current
        x = session.run_on_device(FEEDS)["y"]
        again = session.run_on_device({**FEEDS, "x": x}, to_host=("sums",))
        np.testing.assert_array_equal(again["y"].to_host(), FEEDS["x"] / 4)
        np.testing.assert_array_equal(x[np.array([1])].to_host(), FEEDS["x"][1:] / 2)
        assert cudart.current == before  # what others do in this thread goes on where it was
        return again["y"], before

    with ThreadPoolExecutor(1) as pool:
        for answer, current in [ask(), pool.submit(ask).result()]:
            assert current == 0
            assert (answer.device, cudart.homes[answer.address]) == (1, 1)
            assert answer.__dlpack_device__() == (2, 1)
    assert set(cudart.homes.values()) == {1}
    assert {stream.device for number, stream in cudart.streams.items() if number != 1} == {1}


def test_tensorrt_works_on_the_sessions_gpu(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, library = open_fake(cudart, monkeypatch, tmp_path)
    cudart.cudaSetDevice(0)
    for run in range(3):
        np.testing.assert_array_equal(session.run({**FEEDS, "x": FEEDS["x"] + run})["y"], (FEEDS["x"] + run) / 2)
    assert cudart.launches == 2
    assert library.gpus == {1}
    session.close()
    assert cudart.current == 0


class Foreign:
    """Another library's array: by ``__cuda_array_interface__``, and by DLPack's device where it knows that protocol."""

    def __init__(self, array: DeviceArray, says: tuple[int, int] | None) -> None:
        self.array, self.__cuda_array_interface__ = array, array.__cuda_array_interface__
        if says is not None:
            self.__dlpack_device__ = lambda: says


@pytest.mark.parametrize("says", [None, (2, 0)])
def test_arrays_of_another_gpu_are_refused(
    says: tuple[int, int] | None, session: DeviceSession, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = DeviceArray.of(DeviceMemory(cudart), FEEDS["x"])
    assert cudart.homes[held.address] == 0
    if says is not None:  # then CUDA need not be asked
        monkeypatch.setattr(cudart, "cudaPointerGetAttributes", lambda address: (1, None))
    message = r"x lies on GPU 0; expected GPU 1, which was CUDA's current one when.*Copy it there, or load"
    for array in (held, held.part(0, 2), Foreign(held, says)):
        with pytest.raises(InputError, match=message):
            session.run_on_device({**FEEDS, "x": array})


@pytest.mark.parametrize("says", [None, (2, 1), (13, 0)])
def test_arrays_of_its_gpu_and_of_all_are_taken(
    says: tuple[int, int] | None, session: DeviceSession, cudart: FakeCudart
) -> None:
    cudart.cudaSetDevice(0 if says == (13, 0) else 1)
    held = DeviceArray.of(DeviceMemory(cudart), FEEDS["x"])
    if says == (13, 0):
        cudart.managed.add(held.address)  # any GPU reads managed memory
    outputs = session.run_on_device({**FEEDS, "x": Foreign(held, says)}, to_host=("y",))
    np.testing.assert_array_equal(outputs["y"], FEEDS["x"] / 2)


def test_an_array_without_elements_lies_nowhere(cudart: FakeCudart) -> None:
    interface = {"shape": (0, 3), "typestr": "<f4", "data": (0, False), "version": 3}
    found = DeviceMemory(cudart).located("x", SimpleNamespace(__cuda_array_interface__=interface))
    assert (found.shape, found.device) == ((0, 3), None)


def test_memory_of_two_gpus_is_kept_apart(cudart: FakeCudart) -> None:
    memories = {1: DeviceMemory(cudart)}
    cudart.cudaSetDevice(0)
    memories[0] = DeviceMemory(cudart)
    for number, memory in memories.items():
        held = DeviceArray.of(memory, FEEDS["x"])
        assert cudart.homes[held.address] == held.device == number
        np.testing.assert_array_equal(at(held.address, (2, 3), "float32"), FEEDS["x"])
        assert cudart.current == 0


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [
        ([ep_device(0), ep_device(1)], 1),
        ([ep_device(1), ep_device(0)], 1),
        ([ep_device(0, place=False), ep_device(1, place=False)], 1),
        ([ep_device(1, number=False)], 1),
        ([ep_device(0)], None),
        ([ep_device(1, place=False, number=False)], None),
        ([ep_device(0, place=False, number=False), ep_device(1, place=False, number=False)], None),
    ],
)
def test_a_plug_in_is_given_the_current_gpu(
    devices: list[SimpleNamespace], chosen: int | None, cudart: FakeCudart
) -> None:
    provider, gpu = Provider(RTX, tuple(devices)), read_gpu(cudart)
    if chosen is not None:
        assert [device.gpu for device in provider.on_gpu(gpu).devices] == [chosen]
        return
    with pytest.raises(
        BackendError, match=rf"{RTX} offers {len(devices)} GPUs?, .*GPU 1, Fake GPU at 0000:0b:00.0.*CUDA_VISIBLE"
    ):
        provider.on_gpu(gpu)


def test_a_plug_in_that_does_not_say_is_given_the_only_gpu() -> None:
    provider = Provider(RTX, (ep_device(0, place=False, number=False),))
    assert len(provider.on_gpu(read_gpu(FakeCudart())).devices) == 1
    metadata = ep_device(1, place=False, number=False)
    metadata.ep_metadata["cuda_device_id"] = "1"
    with pytest.raises(BackendError, match="none of which"):
        Provider(RTX, (metadata,)).on_gpu(read_gpu(FakeCudart()))
