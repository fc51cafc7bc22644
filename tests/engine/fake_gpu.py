"""GPUs made of host memory, under CUDA's runtime API: what is queued in a stream happens when that is waited for."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from risengine.backends.device_memory import DeviceMemory
from risengine.backends.onnx_session import OnnxSession

OUT_OF_MEMORY, NOT_PERMITTED, INVALIDATED, IMPLICIT = 2, 900, 901, 906  # of cudaError_t
GLOBAL, THREAD_LOCAL, RELAXED = range(3)  # cudaStreamCaptureMode


@dataclass(eq=False)
class Stream:
    """A stream; while it is under capture, work is recorded by the thread that captures."""

    device: int
    blocking: bool
    queue: list[Callable[[], None]] = field(default_factory=list)
    recorded: list[Callable[[], None]] | None = None
    thread: int = 0
    mode: int = GLOBAL
    valid: bool = True


class FakeCudart:
    """CUDA's runtime API over host memory, with what its documentation says of threads, streams and captures.

    ``awaited`` lists the streams waited for, ``freed`` what was freed, ``graphs`` the executable graphs that are left;
    ``captures`` and ``launches`` count, and ``abandoned`` captures that were not ended. ``refused`` are functions that
    fail.
    """

    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(  # noqa: N815
        cudaStreamCaptureModeThreadLocal=THREAD_LOCAL, cudaStreamCaptureModeRelaxed=RELAXED
    )
    cudaMemoryType = SimpleNamespace(cudaMemoryTypeDevice=2)  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(
        self, driver: int = 13000, runtime: int = 13000, capability: tuple[int, int] = (8, 6), gpus: int = 1
    ) -> None:
        self.driver, self.runtime, self.capability, self.gpus = driver, runtime, capability, gpus
        self.blocks: dict[int, Any] = {}
        self.homes: dict[int, int] = {}
        self.managed = set[int]()
        self.room, self.peak = 1 << 30, 0
        self.device_status = 0
        self.copied_to_device = self.copied_to_host = 0
        self.freed, self.awaited = list[int](), list[int]()
        self.stream = 6
        self.streams = {1: Stream(0, True)}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.captures = self.launches = self.abandoned = 0
        self.refused = set[str]()
        self._thread, self._lock = threading.local(), threading.RLock()

    def cudaDriverGetVersion(self) -> tuple[int, int]:
        return 0, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[int, int]:
        return 0, self.runtime

    def cudaGetDevice(self) -> tuple[int, int]:
        return self.device_status, self.current

    def cudaSetDevice(self, device: int) -> tuple[int]:
        self._thread.device = device
        return (0 if device < self.gpus else 101,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:
        place = {"pciDomainID": 0, "pciBusID": 10 + device, "pciDeviceID": 0}
        major, minor = self.capability
        return 0, SimpleNamespace(name=b"Fake GPU\0\0", major=major, minor=minor, **place)

    def cudaPointerGetAttributes(self, address: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(type=3 if address in self.managed else 2, device=self.homes.get(address, 0))

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        if size > self.room:
            return self._failed(OUT_OF_MEMORY), 0
        if self._forbidden():
            return self._failed(NOT_PERMITTED), 0
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.blocks[address], self.homes[address] = block, self.current
        self.peak = max(self.peak, sum(map(len, list(self.blocks.values()))))
        return 0, address

    def cudaFree(self, address: int) -> tuple[int]:
        if self._forbidden():
            return (self._failed(NOT_PERMITTED),)
        for stream in list(self.streams.values()):  # it waits for the GPU
            self._flush(stream)
        self.freed.append(address)
        del self.blocks[address], self.homes[address]
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        if stream == 1 and self._legacy_is_unusable():
            return (self._failed(IMPLICIT),)
        self.copied_to_device += size if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else 0
        self.copied_to_host += size if kind == self.cudaMemcpyKind.cudaMemcpyDeviceToHost else 0
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        with self._lock:
            self.stream += 1
            self.streams[self.stream] = Stream(self.current, blocking=not flags & self.cudaStreamNonBlocking)
            return 0, self.stream

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        self.abandoned += self.is_captured(stream)
        del self.streams[stream]
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        if stream == 1 and self._legacy_is_unusable():
            return (self._failed(IMPLICIT),)
        if self.is_captured(stream):
            self.streams[stream].valid = False
            return (self._failed(NOT_PERMITTED),)
        self.awaited.append(stream)
        if stream in self.streams:  # and is not another library's
            self._flush(self.streams[stream])
        return (0,)

    def cudaThreadExchangeStreamCaptureMode(self, mode: int) -> tuple[int, int]:
        before = getattr(self._thread, "mode", GLOBAL)
        self._thread.mode = mode
        return 0, before

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        if self._refuses("cudaStreamBeginCapture") or stream == 1:
            return (self._failed(NOT_PERMITTED),)
        found = self.streams[stream]
        assert found.recorded is None
        found.recorded, found.thread, found.mode, found.valid = [], threading.get_ident(), mode, True
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        found = self.streams[stream]
        assert found.thread == threading.get_ident()
        recorded, found.recorded = found.recorded, None
        if not found.valid or self._refuses("cudaStreamEndCapture"):
            return self._failed(INVALIDATED), None
        with self._lock:
            self.captures += 1
        return 0, recorded

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:
        if self._refuses("cudaGraphInstantiate"):
            return self._failed(OUT_OF_MEMORY), None
        with self._lock:
            number = max(self.graphs, default=0) + 1
            self.graphs[number] = list(graph)
        return 0, number

    def cudaGraphUpload(self, graph: int, stream: int) -> tuple[int]:
        return (self._failed(OUT_OF_MEMORY) if self._refuses("cudaGraphUpload") else 0,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:
        with self._lock:
            self.launches += 1
        for work in self.graphs[graph]:
            self.enqueue(stream, work)
        return (0,)

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        graph.clear()
        return (0,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:
        del self.graphs[graph]
        return (0,)

    def cudaGetLastError(self) -> tuple[int]:
        last, self._thread.error = self.last_error, 0
        return (last,)

    @property
    def current(self) -> int:
        """The calling thread's current GPU."""
        return int(getattr(self._thread, "device", 0))

    @property
    def last_error(self) -> int:
        """The calling thread's last error."""
        return int(getattr(self._thread, "error", 0))

    @property
    def pending(self) -> int:
        """How much is queued that nobody has waited for."""
        return sum(len(stream.queue) for stream in self.streams.values())

    def is_captured(self, stream: int) -> bool:
        return stream in self.streams and self.streams[stream].recorded is not None

    def enqueue(self, stream: int, work: Callable[[], Any]) -> None:
        """Queues work in a stream, or records it."""
        found = self.streams[stream]
        (found.queue if found.recorded is None else found.recorded).append(work)

    def _flush(self, stream: Stream) -> None:
        with self._lock:
            while stream.queue:
                stream.queue.pop(0)()

    def _forbidden(self) -> bool:
        """Tells whether the thread may not do now what no stream orders; if it captures, that is the capture's end."""
        if getattr(self._thread, "mode", GLOBAL) == RELAXED:
            return False
        captured = [stream for stream in list(self.streams.values()) if stream.recorded is not None]
        own = [stream for stream in captured if stream.thread == threading.get_ident()]
        for stream in own:
            stream.valid = False
        return bool(own) or any(stream.mode == GLOBAL for stream in captured)

    def _legacy_is_unusable(self) -> bool:
        return any(stream.blocking and stream.recorded is not None for stream in list(self.streams.values()))

    def _refuses(self, function: str) -> bool:
        return function in self.refused

    def _failed(self, status: int) -> int:
        self._thread.error = status
        return status


def at(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array that lies at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def on_fake_gpu(session: OnnxSession, cudart: FakeCudart) -> OnnxSession:
    """A session on the CPU that leaves its outputs in the fake GPU's memory."""
    session._memory, session._on_gpu = DeviceMemory(cudart), True
    return session
