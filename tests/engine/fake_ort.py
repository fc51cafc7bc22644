"""An ONNX Runtime with a provider of NVIDIA's, built in or as a plug-in, over the fake GPU of ``fake_gpu``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_gpu import at

from risengine.manifest import GraphSpec

CPU = "CPUExecutionProvider"


@dataclass(eq=False)
class FakeOnnxRuntime:
    """The module ``onnxruntime``; a session of it computes with a Python function.

    ``plugin`` is the provider that a registered library brings, ``devices`` the GPUs that it finds. ``opened`` lists
    what sessions were asked for.
    """

    spec: GraphSpec
    compute: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    built_in: tuple[str, ...] = (CPU,)
    plugin: str = ""
    devices: list[SimpleNamespace] = field(default_factory=lambda: [ep_device(0)])
    refusal: str = ""
    does_not_start: bool = False
    library_fails: str = ""
    registered: list[tuple[str, str]] = field(default_factory=list)
    opened: list[SimpleNamespace] = field(default_factory=list)
    __version__: str = "1.32.0"

    def get_available_providers(self) -> list[str]:
        return list(self.built_in)

    def get_ep_devices(self) -> list[Any]:
        for device in self.devices:
            device.ep_name = self.plugin
        return [SimpleNamespace(ep_name=CPU), *(self.devices if self.registered else [])]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.library_fails:
            raise RuntimeError(self.library_fails)
        if self.registered:
            raise RuntimeError(f"library {name} is already registered")
        self.registered.append((name, path))

    class SessionOptions:
        def __init__(self) -> None:
            self.chosen: list[Any] = []

        def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
            self.chosen += devices

    def InferenceSession(self, path: Path, options: Any, **settings: Any) -> Any:
        self.opened.append(SimpleNamespace(path=path, options=options, **settings))
        if self.refusal:
            raise RuntimeError(self.refusal)
        asked = settings["providers"] or [device.ep_name for device in options.chosen]
        gpu = options.chosen[0].gpu if options.chosen else int(settings["provider_options"][0]["device_id"])
        return _Session(self, [CPU] if self.does_not_start else [*asked, CPU], gpu)


def ep_device(gpu: int, place: bool = True, number: bool = True) -> SimpleNamespace:
    """An ``OrtEpDevice``: its GPU's number in truth, and whether it says where that sits or which number it has."""
    hardware = SimpleNamespace(metadata={"pci_bus_id": f"0000:{10 + gpu:02X}:00.0"} if place else {})
    options = {"device_id": str(gpu)} if number else {}
    return SimpleNamespace(gpu=gpu, device=hardware, ep_options=options, ep_metadata={})


class _Session:
    def __init__(self, ort: FakeOnnxRuntime, providers: list[str], gpu: int) -> None:
        self.ort, self.providers, self.gpu = ort, providers, gpu

    def get_providers(self) -> list[str]:
        return self.providers

    def get_inputs(self) -> Any:
        return self.ort.spec.inputs

    def get_outputs(self) -> Any:
        return self.ort.spec.outputs

    def run(self, names: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = self.ort.compute(feeds)
        return [outputs[name] for name in names]

    def io_binding(self) -> _Binding:
        return _Binding(self.gpu)

    def run_with_iobinding(self, binding: _Binding) -> None:
        for name, value in self.ort.compute(binding.inputs).items():
            binding.outputs[name][...] = value


class _Binding:
    def __init__(self, gpu: int) -> None:
        self.place = "cuda", gpu  # the only word that ONNX Runtime has for NVIDIA's memory
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.inputs[name] = array

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        assert (device, number) == self.place
        self.inputs[name] = at(address, shape, dtype)

    def bind_output(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        assert (device, number) == self.place
        self.outputs[name] = at(address, shape, dtype)

    def synchronize_outputs(self) -> None:
        pass
