"""A TensorRT over the fake GPUs, and an engine for it: enough of its interface to run a session without either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCudart, at

from risengine.backends import tensorrt_session
from risengine.backends.tensorrt_session import TensorRtSession
from risengine.manifest import EngineSpec, FileSpec, GraphSpec, ShapeProfile, TensorSpec

ENGINE = EngineSpec(
    library="tensorrt_rtx",
    version="1.7.1.116",
    compute_capabilities=("8.6", "8.9"),
    profiles={"x": ShapeProfile((1, 3), (2, 3), (4, 3))},
    onnx_sha256="",
    layers=FileSpec("g.layers.json", "", 0),
    context=FileSpec("g.context.onnx", "", 0),
)
SPEC = GraphSpec(
    file="g.plan",
    sha256="",
    size_bytes=4,
    inputs=(TensorSpec("x", "float32", ("N", 3)), TensorSpec("scale", "float32", ())),
    outputs=(TensorSpec("y", "float32", ("N", 3)), TensorSpec("sums", "float32", ("N",))),
    engine=ENGINE,
)
FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "scale": np.array(0.5, np.float32)}


def compute(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the engine of ``SPEC`` computes."""
    y = feeds["x"] * feeds["scale"]
    return {"y": y, "sums": y.sum(axis=1)}


def open_fake(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: bytes = b"plan", **options: Any
) -> tuple[TensorRtSession, FakeTensorRt]:
    """Loads the engine of ``SPEC``; ``options`` are the library's."""
    library = FakeTensorRt(cudart, **options)
    monkeypatch.setattr(tensorrt_session, "cuda_module", lambda: cudart)
    monkeypatch.setattr(tensorrt_session, "native_module", lambda name: library)
    (tmp_path / "g.plan").write_bytes(plan)
    return TensorRtSession(tmp_path / "g.plan", SPEC), library


@dataclass(eq=False)
class FakeTensorRt:
    """The module ``tensorrt_rtx``: a plan is ``plan``, its engine computes with :func:`compute`.

    ``gpus`` holds the current GPU at every call that works on one; ``amid_capture`` is called while a run is recorded,
    and tells whether that goes well.
    """

    cudart: FakeCudart
    __version__: str = "1.7.1.116"
    __name__: str = "tensorrt_rtx"
    names: list[str] = field(default_factory=list)
    fails: bool = False
    has_room: bool = True
    replays_graphs: bool = False
    contexts: list[Any] = field(default_factory=list)
    gpus: set[int] = field(default_factory=set)
    amid_capture: Callable[[], bool] = lambda: True

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

        def __init__(self) -> None:
            pass

    def __post_init__(self) -> None:
        if self.replays_graphs:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
        self.names = self.names or [tensor.name for tensor in (*SPEC.inputs, *SPEC.outputs)]

    def Runtime(self, logger: Any) -> Any:
        def deserialize(plan: bytes) -> Any:
            self.gpus.add(self.cudart.current)
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
        self.library.gpus.add(self.library.cudart.current)
        return _Context(self) if self.library.has_room else None


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.ready: dict[str, tuple[int, ...]] = {}  # shapes that its own state is brought up to date with

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes = {
            wanted: size
            for tensor in SPEC.inputs
            for wanted, size in zip(tensor.shape, self.shapes[tensor.name], strict=True)
            if isinstance(wanted, str)
        }
        (output,) = (tensor for tensor in SPEC.outputs if tensor.name == name)
        return tuple(sizes[size] if isinstance(size, str) else size for size in output.shape)

    def execute_async_v3(self, stream: int) -> bool:
        library = self.engine.library
        cudart = library.cudart
        library.gpus.add(cudart.current)
        assert cudart.streams[stream].device == cudart.current
        if library.fails:
            self.engine.logger.log("error", "a kernel failed")
            return False
        if cudart.is_captured(stream) and (self.ready != self.shapes or not library.amid_capture()):
            self.engine.logger.log("error", "no capture now")
            return False
        cudart.enqueue(stream, self._work(stream))
        self.ready = dict(self.shapes)
        return True

    def _work(self, stream: int) -> Callable[[], None]:
        cudart = self.engine.library.cudart
        shapes, addresses, kept = dict(self.shapes), dict(self.addresses), cudart.is_captured(stream)

        def work() -> None:
            assert (self.shapes, self.addresses) == (shapes, addresses)  # or what it does is undefined
            for name, address in addresses.items():  # a caller's input may be none of ours
                assert address in cudart.blocks or not (kept or name in ("y", "sums"))
                home = None if address in cudart.managed else cudart.homes.get(address)
                assert home in (None, cudart.streams[stream].device)
            feeds = {t.name: at(addresses[t.name], shapes[t.name], t.dtype) for t in SPEC.inputs}
            for name, value in compute(feeds).items():
                at(addresses[name], value.shape, "float32")[...] = value

        return work
