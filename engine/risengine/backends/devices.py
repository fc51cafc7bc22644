"""What this machine can run: the device of every target, what runs it, and what is missing for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from risengine.backends.engine_runners import LIBRARIES, find_runner, open_engine
from risengine.backends.nvidia import cuda_module, read_gpu
from risengine.backends.onnx_providers import find_provider, onnxruntime_module
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.openvino_session import OpenVinoSession, openvino_module
from risengine.backends.session import Session
from risengine.bundle import Bundle
from risengine.config import RuntimeConfig
from risengine.errors import BackendError, BundleError
from risengine.manifest import Role, Target

__all__ = ["Device", "choose_device", "find_device", "find_devices", "open_session", "usable_devices"]

_LOG = logging.getLogger(__name__)

_ONNX: tuple[Target, ...] = ("cpu", "cuda", "openvino")


@dataclass(frozen=True)
class Device:
    """One target on this machine.

    Attributes:
        target: Its name, as in ``RuntimeConfig(device=...)``.
        runs_on: Library, version and hardware; empty where it cannot be used.
        missing: What was expected, and how to get it; empty where it can be used.
    """

    target: Target
    runs_on: str = ""
    missing: str = ""


def find_devices() -> tuple[Device, ...]:
    """Looks for every target's device."""
    return tuple(find_device(target) for target in get_args(Target))


def find_device(target: Target) -> Device:
    """Looks for a target's device."""
    try:
        return Device(target, runs_on=_FINDERS[target](target))
    except BackendError as error:
        return Device(target, missing=str(error))


def choose_device(bundle: Bundle, config: RuntimeConfig) -> Target:
    """Returns the device that will run a bundle.

    Raises:
        BundleError: The bundle cannot run on the device that was asked for, on any machine.
        BackendError: This machine lacks the device.
    """
    target = bundle.manifest.target
    wanted = config.device or target
    fitting = _ONNX if target in _ONNX else (target,)
    if wanted not in fitting:
        raise BundleError(
            f"bundle {bundle.path} is built for target {target!r}, which runs on {', '.join(fitting)}; the device is "
            f"{wanted!r}. Rebuild it with --target {wanted}, or load it without a device."
        )
    found = find_device(wanted)
    if not found.missing:
        return wanted
    if config.fallback and "cpu" in fitting:
        _LOG.warning("%s runs on the CPU in place of %s: %s", bundle.path, wanted, found.missing)
        return "cpu"
    raise BackendError(f"device {wanted!r} cannot be used: {found.missing}")


def usable_devices(bundle: Bundle) -> tuple[Device, ...]:
    """Returns the devices of this machine that a bundle could be loaded on, its own target first; none if none."""
    target = bundle.manifest.target
    fitting = (target, *(other for other in _ONNX if other != target)) if target in _ONNX else (target,)
    return tuple(found for found in map(find_device, fitting) if not found.missing and not _refusal(bundle, found))


def open_session(bundle: Bundle, role: Role, device: Target, config: RuntimeConfig) -> Session:
    """Loads a graph of a bundle.

    Args:
        bundle: From :func:`risengine.bundle.open_bundle`, which has checked the hash of every file.
        role: Which graph.
        device: From :func:`choose_device`.
        config: Threads.

    Raises:
        BackendError: The graph cannot be loaded.
        BundleError: The graph is not what the manifest says, or an engine for another library or GPU.
    """
    if device in LIBRARIES:
        return open_engine(bundle, role, device, config)
    path, spec = bundle.graph_path(role), bundle.manifest.graphs[role]
    if device == "openvino":
        return OpenVinoSession(path, spec, config)
    return OnnxSession(path, spec, RuntimeConfig(device, config.threads))


def _refusal(bundle: Bundle, device: Device) -> str:
    """Returns why a usable device does not take a bundle's engines."""
    if device.target not in LIBRARIES:
        return ""
    runner = find_runner(device.target)
    try:
        for spec in bundle.manifest.graphs.values():
            runner.check(spec)
    except BundleError as error:
        return str(error)
    return ""


def _find_onnx_runtime(target: Target) -> str:
    library = f"onnxruntime {onnxruntime_module().__version__}, {find_provider(target).name}"
    return f"{library}, {_describe_gpu()}" if target == "cuda" else library


def _find_openvino(target: Target) -> str:
    ov = openvino_module()
    return f"openvino {ov.__version__.split('-')[0]}, {ov.Core().get_property('CPU', 'FULL_DEVICE_NAME')}"


def _find_native(target: Target) -> str:
    return f"{find_runner(target).name}, {_describe_gpu()}"


def _describe_gpu() -> str:
    gpu = read_gpu(cuda_module())
    return f"{gpu.name} ({gpu.compute_capability}, CUDA {gpu.driver})"


_FINDERS: dict[Target, Callable[[Target], str]] = {
    "cpu": _find_onnx_runtime,
    "cuda": _find_onnx_runtime,
    "openvino": _find_openvino,
    "tensorrt": _find_native,
    "tensorrt-rtx": _find_native,
}
