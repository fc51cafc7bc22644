"""A GPU made of host memory, and a TensorRT on it: enough of their interfaces to run a session without either."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from risengine.device_memory import DeviceMemory
from risengine.manifest import GraphSpec
from risengine.onnx_session import OnnxSession


class FakeCudart:
    """CUDA's runtime API over host memory; ``awaited`` lists the streams waited for, ``freed`` what was freed."""

    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )

    def __init__(self, driver: int = 13000, runtime: int = 13000, capability: tuple[int, int] = (8, 6)) -> None:
        self.driver, self.runtime, self.capability = driver, runtime, capability
        self.blocks: dict[int, Any] = {}
        self.room, self.peak = 1 << 30, 0
        self.device_status = 0
        self.copied_to_device = self.copied_to_host = 0
        self.freed = list[int]()
        self.stream, self.awaited = 7, list[int]()

    def cudaDriverGetVersion(self) -> tuple[int, int]:
        return 0, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[int, int]:
        return 0, self.runtime

    def cudaGetDevice(self) -> tuple[int, int]:
        return self.device_status, 0

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=b"Fake GPU\0\0", major=self.capability[0], minor=self.capability[1])

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        if size > self.room:
            return 2, 0
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        self.peak = max(self.peak, sum(map(len, self.blocks.values())))
        return 0, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[int]:
        self.freed.append(address)
        del self.blocks[address]
        return (0,)

    def cudaMemcpy(self, target: int, source: int, size: int, kind: int) -> tuple[int]:
        ctypes.memmove(target, source, size)
        self.copied_to_host += size if kind == self.cudaMemcpyKind.cudaMemcpyDeviceToHost else 0
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        self.copied_to_device += size
        return self.cudaMemcpy(target, source, size, kind)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, self.stream

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        self.awaited.append(stream)
        return (0,)


def at(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array that lies at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def on_fake_gpu(session: OnnxSession, cudart: FakeCudart) -> OnnxSession:
    """A session on the CPU that leaves its outputs in the fake GPU's memory."""
    session._memory, session._on_gpu = DeviceMemory(cudart), True
    return session


@dataclass(eq=False)
class FakeTensorRt:
    """The module ``tensorrt_rtx``: a plan is ``plan``, its engine computes with a Python function."""

    spec: GraphSpec
    compute: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    __version__: str = "1.7.1.116"
    __name__: str = "tensorrt_rtx"
    names: list[str] = field(default_factory=list)
    fails: bool = False
    has_room: bool = True
    replays_graphs: bool = False
    contexts: list[Any] = field(default_factory=list)

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

        def __init__(self) -> None:
            pass

    def __post_init__(self) -> None:
        if self.replays_graphs:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
        self.names = self.names or [tensor.name for tensor in (*self.spec.inputs, *self.spec.outputs)]

    def Runtime(self, logger: Any) -> Any:
        def deserialize(plan: bytes) -> Any:
            if plan == b"plan" or (plan == b"plan with a runtime" and runtime.engine_host_code_allowed):
                return _Engine(self, logger)
            logger.log("error", "the plan is damaged")
            return None

        runtime = SimpleNamespace(deserialize_cuda_engine=deserialize, engine_host_code_allowed=False)
        return runtime


class _Engine:
    def __init__(self, library: FakeTensorRt, logger: Any) -> None:
        self.library, self.logger = library, logger
        self.num_io_tensors = len(library.names)

    def get_tensor_name(self, index: int) -> str:
        return self.library.names[index]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(cuda_graph_strategy="disabled")

    def create_execution_context(self, config: Any = None) -> Any:
        self.library.contexts.append(config)
        return _Context(self) if self.library.has_room else None


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        spec = self.engine.library.spec
        sizes = {
            wanted: size
            for tensor in spec.inputs
            for wanted, size in zip(tensor.shape, self.shapes[tensor.name], strict=True)
            if isinstance(wanted, str)
        }
        (output,) = (tensor for tensor in spec.outputs if tensor.name == name)
        return tuple(sizes[size] if isinstance(size, str) else size for size in output.shape)

    def execute_async_v3(self, stream: int) -> bool:
        library = self.engine.library
        if library.fails:
            self.engine.logger.log("error", "a kernel failed")
            return False
        dtypes = {tensor.name: tensor.dtype for tensor in (*library.spec.inputs, *library.spec.outputs)}
        feeds = {t.name: at(self.addresses[t.name], self.shapes[t.name], t.dtype) for t in library.spec.inputs}
        for name, value in library.compute(feeds).items():
            at(self.addresses[name], value.shape, dtypes[name])[...] = value
        return True
