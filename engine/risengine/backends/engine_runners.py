"""What runs native engines here: the module of the library that compiled them, or else a provider of ONNX Runtime.

The module is preferred where both are there: it keeps an execution context a thread and replays CUDA graphs. A provider
is handed the bundle's context graphs (``EngineSpec.context``), which hold no layer that it could compile: it reads the
engine's file or fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risengine.backends.nvidia import check_engine, cuda_module, native_module, read_gpu
from risengine.backends.onnx_providers import find_provider, onnxruntime_module
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import Session
from risengine.backends.shared_libraries import shared_library_version
from risengine.backends.tensorrt_session import TensorRtSession
from risengine.bundle import Bundle
from risengine.config import RuntimeConfig
from risengine.errors import BackendError, BundleError
from risengine.manifest import EngineSpec, GraphSpec, Role, Target

__all__ = ["LIBRARIES", "EngineRunner", "find_runner", "open_engine"]

LIBRARIES: dict[Target, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The module that compiles and runs a target's engines."""


@dataclass(frozen=True)
class EngineRunner:
    """What runs a target's engines here.

    Attributes:
        name: Library and version, or ONNX Runtime's and the provider.
        module: The library's Python module; None where a provider of ONNX Runtime stands in for it.
        folder: Where that provider's library lies, if it is built in.
    """

    name: str
    module: Any = None
    folder: Path | None = None

    def check(self, spec: GraphSpec) -> None:
        """Checks that an engine can run, before anything touches it.

        Raises:
            BundleError: It was compiled for another version or GPU, or has no context graph where one is needed.
            BackendError: There is no GPU, or its driver is too old.
        """
        check_engine(spec, self._version(spec.engine), read_gpu(cuda_module()))
        if self.module is None:
            _context_of(spec, self.name)

    def _version(self, engine: EngineSpec | None) -> str | None:
        """Returns the version of the library; None where a provider's cannot be told."""
        if self.module is not None:
            return str(self.module.__version__)
        return None if engine is None else shared_library_version(engine.library, engine.version, self.folder)


def find_runner(target: Target) -> EngineRunner:
    """Returns what runs a target's engines; the library's own module where it is installed.

    Raises:
        BackendError: Neither the module nor a provider is there.
    """
    try:
        module = native_module(LIBRARIES[target])
    except BackendError as missing:
        try:
            provider = find_provider(target)
        except BackendError as lacking:
            raise BackendError(f"{missing}. Or take ONNX Runtime's provider: {lacking}") from lacking
        name = f"onnxruntime {onnxruntime_module().__version__}, {provider.name}"
        return EngineRunner(name, folder=provider.folder)
    return EngineRunner(f"{LIBRARIES[target]} {module.__version__}", module)


def open_engine(bundle: Bundle, role: Role, target: Target, config: RuntimeConfig) -> Session:
    """Loads an engine of a bundle.

    Args:
        bundle: From :func:`risengine.bundle.open_bundle`.
        role: Which engine.
        target: The bundle's.
        config: Threads.

    Raises:
        BackendError: What would run it is missing or fails.
        BundleError: The engine is for another library, version or GPU, or not what the manifest says.
    """
    spec, runner = bundle.manifest.graphs[role], find_runner(target)
    if runner.module is not None:
        return TensorRtSession(bundle.graph_path(role), spec)
    runner.check(spec)
    return OnnxSession(bundle.path / _context_of(spec, runner.name), spec, RuntimeConfig(target, config.threads))


def _context_of(spec: GraphSpec, runner: str) -> Path:
    if spec.engine is None or spec.engine.context is None:
        library = "its compiler's module" if spec.engine is None else spec.engine.library
        raise BundleError(
            f"{spec.file} has no context graph, which {runner} needs; expected one beside it. Rebuild the bundle, or "
            f"install {library}."
        )
    return Path(spec.engine.context.file)
