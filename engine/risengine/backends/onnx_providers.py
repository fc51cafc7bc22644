"""ONNX Runtime's execution providers: which of them it has here, built in or as a plug-in, and sessions on them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from risengine.backends.nvidia import Gpu
from risengine.backends.shared_libraries import missing_libraries
from risengine.errors import BackendError
from risengine.manifest import Target

__all__ = ["PROVIDERS", "Provider", "find_provider", "onnxruntime_module"]

PROVIDERS: dict[Target, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
"""ONNX Runtime's execution provider for each of its devices."""

_PLUGINS: dict[Target, str] = {"tensorrt-rtx": "onnxruntime_ep_nv_tensorrt_rtx"}
"""Modules of packages that hold a provider for any ONNX Runtime from 1.24 on: each names its library."""

_LIBRARIES: dict[Target, str] = {
    "cuda": "libonnxruntime_providers_cuda.so",
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
    "tensorrt-rtx": "libonnxruntime_providers_nv_tensorrt_rtx.so",
}
"""What ONNX Runtime loads when a session first asks for a built-in provider, and drops without it."""

_GPU_BUILD = "pip uninstall onnxruntime && pip install onnxruntime-gpu"
_REMEDIES: dict[Target, str] = {
    "cpu": "pip install --force-reinstall onnxruntime",
    "cuda": _GPU_BUILD,
    "tensorrt": f"{_GPU_BUILD}, which needs TensorRT's libraries",
    "tensorrt-rtx": "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13",
}

_OPTIONS: dict[Target, dict[str, str]] = {
    "cuda": {"use_tf32": "0"},  # ONNX Runtime's default rounds fp32 products to 10 bits; fp16 is there for speed
}

_SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""ONNX Runtime's fused sum and norm takes four times as long as its norm alone: a fifth of SAM's point decoder."""


@dataclass(frozen=True)
class Provider:
    """A provider that ONNX Runtime has here.

    Attributes:
        name: ONNX Runtime's name of it.
        devices: ``OrtEpDevice`` of each GPU that a plug-in may use; empty where the provider is built in.
        options: Of a built-in provider.
        folder: Where the library of a built-in provider lies, if it has one of its own.
    """

    name: str
    devices: tuple[Any, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def on_gpu(self, gpu: Gpu) -> Provider:
        """Returns this provider bound to one GPU.

        Raises:
            BackendError: A plug-in offers other GPUs, or does not say which it offers.
        """
        if not self.devices:
            return replace(self, options={**self.options, "device_id": str(gpu.number)})
        told = [_is_gpu(device, gpu) for device in self.devices]
        if told == [None] and gpu.number == 0:  # the only one, which CUDA numbers so
            return self
        fitting = tuple(device for device, is_it in zip(self.devices, told, strict=True) if is_it)
        if not fitting:
            raise BackendError(
                f"{self.name} offers {len(self.devices)} GPUs, none of which it says is GPU {gpu.number}, {gpu.name} "
                f"at {gpu.pci_bus_id}; expected CUDA's current one. Make another current before loading "
                "(CUDA_VISIBLE_DEVICES or cudaSetDevice), or use the compiler's own module."
            )
        return replace(self, devices=fitting[:1])

    def load(self, path: Path, threads: int) -> Any:
        """Returns an ``InferenceSession``.

        Args:
            path: The ONNX file.
            threads: Of one call on a CPU; 0 lets ONNX Runtime choose.

        Raises:
            Exception: What ONNX Runtime throws, whose exception classes share no public base.
        """
        ort = onnxruntime_module()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if self.devices:
            options.add_provider_for_devices(list(self.devices), {})
        return ort.InferenceSession(
            path,
            options,
            providers=None if self.devices else [self.name],
            provider_options=None if self.devices else [dict(self.options)],
            disabled_optimizers=list(_SLOW_FUSIONS),
            enable_fallback=0,  # or it would print, and run on another provider
        )


def find_provider(target: Target) -> Provider:
    """Returns the provider that runs graphs on a target's device; a plug-in is registered when first looked for.

    Raises:
        BackendError: ONNX Runtime is missing, lacks the provider or what it needs, or the plug-in does not load or
            finds no device.
    """
    ort = onnxruntime_module()
    name, available = PROVIDERS[target], ort.get_available_providers()
    if name in available:
        return Provider(name, options=_OPTIONS.get(target, {}), folder=_checked_folder(ort, target))
    found = _plugin_devices(ort, target)
    if not found:
        raise BackendError(
            f"ONNX Runtime {ort.__version__} has {', '.join(available)}; expected {name}. Run: {_REMEDIES[target]}"
        )
    return Provider(name, found)


def onnxruntime_module() -> Any:
    """Returns ONNX Runtime.

    Raises:
        BackendError: It is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime is missing ({error}). Run: pip install onnxruntime") from error
    return onnxruntime


def _plugin_devices(ort: Any, target: Target) -> tuple[Any, ...]:
    """Returns the devices of a target's plug-in; none where no plug-in is installed or ONNX Runtime takes none."""
    if not hasattr(ort, "get_ep_devices"):
        return ()
    found = _devices_of(ort, PROVIDERS[target])
    if found or target not in _PLUGINS:
        return found
    try:
        plugin = importlib.import_module(_PLUGINS[target])
    except (ImportError, OSError):
        return ()
    try:
        ort.register_execution_provider_library(PROVIDERS[target], plugin.get_library_path())
    except Exception as error:  # ONNX Runtime's exception classes share no public base
        if "already registered" not in str(error):
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot load the plug-in {plugin.__name__}: {error}. It needs an "
                "NVIDIA driver and ONNX Runtime 1.24 or newer; update what is older."
            ) from error
    found = _devices_of(ort, PROVIDERS[target])
    if not found:
        raise BackendError(
            f"the plug-in {plugin.__name__} finds no GPU that it runs on; expected one of compute capability 8.6, 8.9 "
            "or from 12.0 on. Look at `nvidia-smi`, or use the compiler's own module."
        )
    return found


def _devices_of(ort: Any, name: str) -> tuple[Any, ...]:
    return tuple(device for device in ort.get_ep_devices() if device.ep_name == name)


def _checked_folder(ort: Any, target: Target) -> Path | None:
    """Returns where a built-in provider's library lies, once the libraries that it needs are found."""
    if target not in _LIBRARIES or getattr(ort, "__file__", None) is None:
        return None
    path = Path(ort.__file__).parent / "capi" / _LIBRARIES[target]
    if not path.exists():  # another system's, or a build in one piece
        return None
    missing = missing_libraries(path)
    if missing:
        raise BackendError(
            f"{PROVIDERS[target]} of ONNX Runtime {ort.__version__} cannot start: {'; '.join(missing)}. Install "
            "NVIDIA's package that holds it, and put its folder on LD_LIBRARY_PATH; for CUDA's and cuDNN's packages of "
            "PyPI, onnxruntime.preload_dlls() in your program does as well."
        )
    return path.parent


def _is_gpu(device: Any, gpu: Gpu) -> bool | None:
    """Tells whether a plug-in's device is a GPU: by its place on the bus, else by CUDA's number of it.

    ONNX Runtime says where the device is, from 1.24 or so on and where the system tells; NVIDIA's plug-in looks there
    too, and a provider that counts GPUs itself says which it takes this one for. None where neither is said.
    """
    place = device.device.metadata.get("pci_bus_id")
    if place is not None:
        return bool(place.lower() == gpu.pci_bus_id)
    number = device.ep_options.get("device_id", device.ep_metadata.get("cuda_device_id"))
    return None if number is None else int(number) == gpu.number
