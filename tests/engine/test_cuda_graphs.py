"""CUDA graphs of native engines: replayed while shapes repeat, recorded by the rules, done without where they fail."""

from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeCudart
from fake_tensorrt import FEEDS, FakeTensorRt, open_fake

from risengine.backends import tensorrt_session
from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.tensorrt_session import TensorRtSession
from risengine.errors import BackendError

ONE_ROW = {**FEEDS, "x": FEEDS["x"][:1]}


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def opened(cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[TensorRtSession, FakeTensorRt]:
    return open_fake(cudart, monkeypatch, tmp_path)


def scaled(session: TensorRtSession, rows: int, scale: float) -> None:
    """Runs, and checks the answer."""
    x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3) + np.float32(scale)
    outputs = session.run({"x": x, "scale": np.array(scale, np.float32)})
    np.testing.assert_array_equal(outputs["y"], x * np.float32(scale))
    np.testing.assert_array_equal(outputs["sums"], (x * np.float32(scale)).sum(axis=1))


def test_shapes_that_repeat_are_recorded_once_and_replayed_on_new_inputs(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart
) -> None:
    session, _ = opened
    for run in range(5):
        scaled(session, 2, 0.5 + run)
        assert (cudart.captures, cudart.launches) == (min(run, 1), run)  # the first is plain, the second is recorded
    assert not cudart.pending


def test_a_replay_writes_over_nothing_that_was_handed_out(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart
) -> None:
    session, _ = opened
    held = [session.run_on_device({**FEEDS, "x": FEEDS["x"] + run})["y"] for run in range(4)]
    assert cudart.launches == 3
    assert len({array.address for array in held}) == 4
    for run, array in enumerate(held):
        np.testing.assert_array_equal(array.to_host(), (FEEDS["x"] + run) / 2)


def test_arrays_on_the_gpu_are_replayed_from_where_they_are(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart
) -> None:
    session, _ = opened
    x = session.run_on_device(FEEDS)["y"]
    before = cudart.copied_to_device
    for run in range(3):
        x = session.run_on_device({**FEEDS, "x": x})["y"]
        np.testing.assert_array_equal(x.to_host(), FEEDS["x"] / 2 ** (run + 2))
    assert cudart.copied_to_device - before == 3 * FEEDS["scale"].nbytes
    assert cudart.launches == 3


def test_other_shapes_throw_it_away(opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart) -> None:
    session, _ = opened
    launches, captures = [], []
    for rows in (2, 2, 2, 3, 3, 2, 2):
        scaled(session, rows, 0.25)
        launches.append(cudart.launches)
        captures.append(cudart.captures)
        assert len(cudart.graphs) <= 1
    assert launches == [0, 1, 2, 2, 3, 3, 4]
    assert captures == [0, 1, 1, 1, 2, 2, 3]


def test_what_would_copy_more_than_it_saves_is_not_recorded(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = opened
    moved = 2 * 3 * 4 + 4 + 2 * 3 * 4 + 2 * 4
    for limit, captures in ((moved - 1, 0), (moved, 1)):
        monkeypatch.setattr(tensorrt_session, "LARGEST_BYTES", limit)
        for _ in range(3):
            scaled(session, 2, 3)
        assert cudart.captures == captures


def test_all_of_it_is_freed(opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart) -> None:
    session, _ = opened
    for rows in (2, 2, 3, 3):
        scaled(session, rows, 2)
    assert cudart.graphs
    assert cudart.blocks
    session.close()
    del session, opened
    gc.collect()
    assert not cudart.graphs
    assert not cudart.blocks


@pytest.mark.parametrize(
    "refused", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload", "engine"]
)
def test_an_engine_that_cannot_be_recorded_runs_without(
    refused: str,
    opened: tuple[TensorRtSession, FakeTensorRt],
    cudart: FakeCudart,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, library = opened
    if refused == "engine":
        library.amid_capture = lambda: False
    cudart.refused = {refused}
    with caplog.at_level(logging.WARNING):
        for run in range(4):
            scaled(session, 2, run + 1)
    (record,) = caplog.records
    reason = "the engine refuses to be recorded (no capture now)" if refused == "engine" else f"{refused} failed with"
    assert f"g.plan runs without CUDA graphs: {reason}" in record.getMessage()
    assert cudart.launches == 0
    assert cudart.last_error == 0
    assert not cudart.graphs
    assert not cudart.abandoned
    assert all(stream.recorded is None for stream in cudart.streams.values())
    captures, cudart.refused = cudart.captures, set()
    scaled(session, 2, 9)
    assert cudart.captures == captures  # for good
    library.fails = True
    with pytest.raises(BackendError, match=r"g\.plan failed: a kernel failed"):
        session.run(FEEDS)


def test_an_engine_that_allocates_cannot_be_recorded(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart, caplog: pytest.LogCaptureFixture
) -> None:
    session, library = opened
    library.amid_capture = lambda: cudart.cudaMalloc(8)[0] == 0 or True
    for run in range(3):
        scaled(session, 2, run + 1)
    assert "cudaStreamEndCapture failed with 901" in caplog.text
    assert cudart.launches == 0


def test_no_room_for_its_buffers_is_no_error(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = opened
    scaled(session, 2, 2)

    real, refusals = DeviceMemory.allocate, [2]

    def full_once(self: DeviceMemory, size_bytes: int) -> int:
        if refusals:
            raise BackendError(f"cudaMalloc failed with {refusals.pop()}")
        return real(self, size_bytes)

    monkeypatch.setattr(DeviceMemory, "allocate", full_once)
    for run in range(3):
        scaled(session, 2, run + 1)
    assert not refusals
    assert cudart.captures == 0


def test_garbage_is_collected_amid_a_capture(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart, caplog: pytest.LogCaptureFixture
) -> None:
    session, library = opened
    garbage = [DeviceArray.of(DeviceMemory(cudart), FEEDS["x"])]

    def collect() -> bool:
        garbage.clear()
        return True

    library.amid_capture = collect
    for run in range(3):
        scaled(session, 2, run + 1)
    assert cudart.launches == 2
    assert not caplog.records


def test_other_threads_work_amid_a_capture(
    opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart, caplog: pytest.LogCaptureFixture
) -> None:
    """They allocate, copy, wait for CUDA's legacy stream and for arrays of other libraries, and run engines."""
    session, library = opened
    memory = DeviceMemory(cudart)
    main = threading.get_ident()

    def elsewhere() -> None:
        held = DeviceArray.of(memory, FEEDS["x"])
        memory.wait(1)
        assert cudart.cudaMalloc(8)[0] == 0  # another library's, which says nothing of captures
        np.testing.assert_array_equal(held.to_host(), FEEDS["x"])
        scaled(session, 2, 8)

    def amid() -> bool:
        if threading.get_ident() == main:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(elsewhere).result()
        return True

    library.amid_capture = amid
    for run in range(3):
        scaled(session, 2, run + 1)
    assert cudart.launches == 2
    assert not caplog.records


def test_each_thread_at_work_records_its_own(opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart) -> None:
    session, library = opened
    barrier = threading.Barrier(2, timeout=10)

    def work(scale: float) -> None:
        for _ in range(4):
            barrier.wait()
            scaled(session, 2, scale)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, scale) for scale in (2.0, 3.0)]:
            done.result()
    assert len(library.contexts) <= 2


def test_tensorrt_rtx_records_for_itself(cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session, _ = open_fake(cudart, monkeypatch, tmp_path, replays_graphs=True)
    for run in range(4):
        scaled(session, 2, run + 1)
    assert cudart.captures == 0


def test_streams_wait_for_no_other(opened: tuple[TensorRtSession, FakeTensorRt], cudart: FakeCudart) -> None:
    """A blocking stream under capture, TensorRT-RTX's among them, would make CUDA's legacy stream unusable."""
    session, _ = opened
    scaled(session, 2, 2)
    own = [stream for number, stream in cudart.streams.items() if number != 1]
    assert own
    assert not any(stream.blocking for stream in own)
    assert 1 not in cudart.awaited
