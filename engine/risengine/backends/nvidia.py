"""What an NVIDIA GPU and its libraries are here, and whether a native engine may run on them."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from risengine.errors import BackendError, BundleError
from risengine.manifest import EngineSpec, GraphSpec

__all__ = [
    "Gpu",
    "check_engine",
    "cuda_module",
    "native_logger",
    "native_module",
    "read_gpu",
]

_INSTALL = {
    "tensorrt": "pip install tensorrt, or take JetPack's",
    "tensorrt_rtx": 'pip install "risengine[tensorrt]"',
}


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: Its product name.
        compute_capability: Such as ``8.6``.
        driver: Newest CUDA version that the driver serves, such as ``13.0``.
        runtime: CUDA version of the installed runtime library.
        number: CUDA's number of it.
        pci_bus_id: Where it sits, such as ``0000:0a:00.0``.
    """

    name: str
    compute_capability: str
    driver: str
    runtime: str
    number: int
    pci_bus_id: str


def native_module(library: str) -> Any:
    """Returns TensorRT's or TensorRT-RTX's Python module.

    Raises:
        BackendError: It is missing, or a library that it needs is.
    """
    try:
        return importlib.import_module(library)
    except (ImportError, OSError) as error:
        raise BackendError(f"{library} is missing ({error}). Run: {_INSTALL[library]}") from error


@functools.cache
def native_logger(library: Any) -> Any:
    """Returns the logger of a native library: one for the whole process, because the library never lets go of it.

    ``messages`` are the descriptions of layers since they were last cleared; ``take_error()`` says what went wrong.
    """

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []
            self._error = ""

        def log(self, severity: Any, message: str) -> None:
            # Without a GPU every step complains of the driver, and means nothing by it.
            failed = severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR)
            if failed and "driver version" not in message:
                self._error = message
            if "LayerType: " in message:
                self.messages.append(message)

        def take_error(self) -> str:
            """Returns the last error, once: the next failure is another's."""
            error, self._error = self._error, ""
            return error or "no reason given"

    return Logger()


def cuda_module() -> Any:
    """Returns CUDA's runtime API, ``cuda.bindings.runtime``.

    Raises:
        BackendError: It is missing.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise BackendError(f"cuda-bindings is missing ({error}). Run: pip install cuda-bindings") from error


def read_gpu(cudart: Any) -> Gpu:
    """Returns the current GPU of CUDA's runtime API.

    Raises:
        BackendError: There is no GPU, or its driver is too old for the runtime.
    """
    driver = _version(_answer(cudart, "cudaDriverGetVersion"))
    runtime = _version(_answer(cudart, "cudaRuntimeGetVersion"))
    if driver == "0.0":
        raise BackendError("no NVIDIA driver is loaded; expected one. Install it, or load a bundle for another target.")
    if _numbers(driver)[0] < _numbers(runtime)[0]:
        raise BackendError(
            f"the NVIDIA driver serves CUDA {driver}; the installed libraries need CUDA {runtime}. Update the driver, "
            "or install the libraries' build for the driver's CUDA."
        )
    device = _answer(cudart, "cudaGetDevice")
    found = _answer(cudart, "cudaGetDeviceProperties", device)
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    pci_bus_id = f"{found.pciDomainID:04x}:{found.pciBusID:02x}:{found.pciDeviceID:02x}.0"
    return Gpu(name.rstrip("\0"), f"{found.major}.{found.minor}", driver, runtime, int(device), pci_bus_id)


def check_engine(spec: GraphSpec, version: str | None, gpu: Gpu) -> None:
    """Checks that a native engine was compiled for a library and a GPU, before either touches it.

    Args:
        spec: Graph with an engine.
        version: Version of the installed library; None where it cannot be told, and the library itself has to refuse.
        gpu: Where it would run.

    Raises:
        BundleError: The engine is for another version or another GPU.
    """
    engine = spec.engine
    if engine is None:
        raise BundleError(f"{spec.file} is an ONNX graph; expected a native engine. Rebuild the bundle.")
    if version is not None and not _version_fits(engine, version):
        newer = " or a newer one of the same major version" if engine.any_newer_version else ""
        raise BundleError(
            f"{spec.file} was compiled by {engine.library} {engine.version}; {version} is installed. Install that "
            f"version{newer}, or rebuild the bundle with this one."
        )
    if not _gpu_fits(engine, gpu.compute_capability):
        raise BundleError(
            f"{spec.file} was compiled for compute capability {', '.join(engine.compute_capabilities)}; this GPU, "
            f"{gpu.name}, has {gpu.compute_capability}. Rebuild the bundle with --compute-capability "
            f"{gpu.compute_capability}."
        )


def _version_fits(engine: EngineSpec, version: str) -> bool:
    built, here = _numbers(engine.version), _numbers(version)
    if engine.any_newer_version:
        return built[0] == here[0] and built <= here
    return built == here


def _gpu_fits(engine: EngineSpec, compute_capability: str) -> bool:
    here = _numbers(compute_capability)
    built = [_numbers(text) for text in engine.compute_capabilities]
    return here in built or (engine.any_newer_gpu and any(least <= here for least in built))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _version(number: int) -> str:
    """Writes CUDA's number of a version, 1000 times the major plus 10 times the minor."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _answer(cudart: Any, function: str, *arguments: Any) -> Any:
    status, *values = getattr(cudart, function)(*arguments)
    if int(status) != 0:
        raise BackendError(
            f"{function} failed with {status.name if hasattr(status, 'name') else status}; expected an NVIDIA GPU that "
            "works. Look at `nvidia-smi`, or load a bundle for another target."
        )
    return values[0]
