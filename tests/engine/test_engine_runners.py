"""What runs an engine: the compiler's own module, or ONNX Runtime's provider by way of the context graph."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from fake_gpu import FakeCudart
from fake_ort import CPU, FakeOnnxRuntime
from fake_tensorrt import FEEDS, SPEC, FakeTensorRt, compute

from risengine.backends import engine_runners
from risengine.backends.device_array import DeviceArray
from risengine.backends.devices import find_device, open_session, usable_devices
from risengine.backends.engine_runners import find_runner
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import Session
from risengine.backends.tensorrt_session import TensorRtSession
from risengine.bundle import Bundle, open_bundle
from risengine.config import RuntimeConfig
from risengine.errors import BackendError, BundleError
from risengine.manifest import GraphSpec, Role

RTX = "NvTensorRTRTXExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    found = FakeCudart()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", found)  # type: ignore[arg-type]
    return found


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch, cudart: FakeCudart) -> FakeOnnxRuntime:
    """A machine with a GPU, ONNX Runtime and the plug-in for TensorRT-RTX, and none of NVIDIA's Python modules."""
    found = FakeOnnxRuntime(SPEC, compute, plugin=RTX)
    plugin = SimpleNamespace(__name__=PLUGIN, get_library_path=lambda: "/plugin.so")
    for name, module in {"onnxruntime": found, PLUGIN: plugin, "tensorrt": None, "tensorrt_rtx": None}.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setattr(engine_runners, "shared_library_version", lambda library, version, folder: "1.7.1.116")
    return found


def bundle_of(spec: GraphSpec, target: Any = "tensorrt-rtx", path: Path = Path("/bundle")) -> Bundle:
    manifest = open_bundle("tabletop").manifest
    graphs: dict[Role, GraphSpec] = dict.fromkeys(get_args(Role), spec)
    return Bundle(path, replace(manifest, target=target, graphs=graphs), "")


def opened(spec: GraphSpec = SPEC, target: Any = "tensorrt-rtx") -> Session:
    return open_session(bundle_of(spec, target), "image_projector", target, RuntimeConfig())


def test_the_compilers_own_module_comes_first(
    ort: FakeOnnxRuntime, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = FakeTensorRt(cudart)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)  # type: ignore[arg-type]
    (tmp_path / "g.plan").write_bytes(b"plan")
    session = open_session(bundle_of(SPEC, path=tmp_path), "image_projector", "tensorrt-rtx", RuntimeConfig())
    assert isinstance(session, TensorRtSession)
    assert session.providers == ("tensorrt_rtx 1.7.1.116",)
    assert not ort.opened
    assert find_device("tensorrt-rtx").runs_on == "tensorrt_rtx 1.7.1.116, Fake GPU (8.6, CUDA 13.0)"


def test_the_plug_in_stands_in_for_it(ort: FakeOnnxRuntime) -> None:
    session = opened()
    assert isinstance(session, OnnxSession)
    assert session.on_gpu
    assert session.providers == (RTX, CPU)
    (asked,) = ort.opened
    assert asked.path == Path("/bundle/g.context.onnx")
    assert asked.providers is None
    assert [device.gpu for device in asked.options.chosen] == [0]
    assert not asked.enable_fallback
    opened()
    assert ort.registered == [(RTX, "/plugin.so")]  # once
    assert find_device("tensorrt-rtx").runs_on == f"onnxruntime 1.32.0, {RTX}, Fake GPU (8.6, CUDA 13.0)"


@pytest.mark.parametrize(("target", "provider"), [("tensorrt", TENSORRT), ("tensorrt-rtx", RTX)])
def test_a_provider_that_is_built_in_needs_no_plug_in(ort: FakeOnnxRuntime, target: str, provider: str) -> None:
    ort.built_in = (provider, CPU)
    assert opened(target=target).providers == (provider, CPU)
    assert ort.opened[0].providers == [provider]
    assert not ort.registered


def test_an_engine_by_its_context_computes_on_the_device(ort: FakeOnnxRuntime, cudart: FakeCudart) -> None:
    session = opened()
    np.testing.assert_array_equal(session.run(FEEDS)["y"], FEEDS["x"] / 2)
    assert isinstance(session, OnnxSession)
    held = session.run_on_device(FEEDS, to_host=("sums",))
    assert isinstance(held["y"], DeviceArray)
    np.testing.assert_array_equal(held["sums"], [1.5, 6])
    again = session.run_on_device({**FEEDS, "x": held["y"]})
    np.testing.assert_array_equal(again["y"].to_host(), FEEDS["x"] / 4)
    with pytest.raises(BackendError, match=r"x is \(5, 3\); the engine was compiled for \(1, 3\) to \(4, 3\)"):
        session.run({**FEEDS, "x": np.zeros((5, 3), np.float32)})


def test_without_either_both_remedies_are_named(ort: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PLUGIN, None)  # type: ignore[arg-type]
    for target, module, package in (
        ("tensorrt", "pip install tensorrt", "pip install onnxruntime-gpu"),
        ("tensorrt-rtx", 'pip install "risengine', "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"),
    ):
        missing = find_device(target).missing  # type: ignore[arg-type]
        assert module in missing
        assert package in missing


def test_an_onnx_runtime_without_plug_ins_is_asked_for_none(
    ort: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SimpleNamespace(__version__="1.20.0", get_available_providers=lambda: [CPU])
    monkeypatch.setitem(sys.modules, "onnxruntime", old)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=f"ONNX Runtime 1.20.0 has {CPU}; expected {RTX}. Run: pip install"):
        find_runner("tensorrt-rtx")


def test_a_plug_in_that_does_not_load_or_finds_no_gpu(ort: FakeOnnxRuntime) -> None:
    ort.library_fails = "libcuda.so.1: cannot open shared object file"
    with pytest.raises(BackendError, match=f"cannot load the plug-in {PLUGIN}: libcuda.so.1.*needs an NVIDIA driver"):
        find_runner("tensorrt-rtx")
    ort.library_fails, ort.devices = "", []
    for _ in range(2):  # the second time its library is registered already
        with pytest.raises(BackendError, match=f"plug-in {PLUGIN} finds no GPU that it runs on; expected .* 8.6, 8.9"):
            find_runner("tensorrt-rtx")


def engine_with(**change: Any) -> GraphSpec:
    assert SPEC.engine is not None
    return replace(SPEC, engine=replace(SPEC.engine, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "1.6.0.1"}, r"compiled by tensorrt_rtx 1\.6\.0\.1; 1\.7\.1\.116 is installed.* or rebuild"),
        ({"compute_capabilities": ("8.9",)}, r"compute capability 8\.9; this GPU, Fake GPU, has 8\.6"),
        (
            {"context": None},
            f"g.plan has no context graph, which onnxruntime 1.32.0, {RTX} needs.*tensorrt_rtx",
        ),
    ],
)
def test_engines_are_refused_before_onnx_runtime_sees_them(
    ort: FakeOnnxRuntime, change: dict[str, Any], message: str
) -> None:
    spec = engine_with(**change)
    with pytest.raises(BundleError, match=message):
        opened(spec)
    assert not ort.opened
    assert not usable_devices(bundle_of(spec))


def test_a_driver_that_is_too_old_is_named(ort: FakeOnnxRuntime, cudart: FakeCudart) -> None:
    cudart.driver = 12040
    with pytest.raises(BackendError, match=r"the NVIDIA driver serves CUDA 12\.4"):
        opened()


def test_a_version_that_cannot_be_told_is_the_providers_to_refuse(
    ort: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_runners, "shared_library_version", lambda library, version, folder: None)
    assert opened(engine_with(version="1.6.0.1")).providers == (RTX, CPU)
    ort.refusal = "TensorRT EP could not deserialize engine from cache: g.plan"
    with pytest.raises(
        BackendError,
        match=r"cannot load .*g\.context\.onnx: .*could not deserialize.*compiled by tensorrt_rtx 1\.7\.1\.116: use an",
    ):
        opened()


def test_a_provider_that_does_not_start_is_no_fallback(ort: FakeOnnxRuntime) -> None:
    ort.does_not_start = True
    with pytest.raises(BackendError, match=f"runs on {CPU}; expected {RTX}, which does not start here"):
        opened()
