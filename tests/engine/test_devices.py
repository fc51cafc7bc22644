"""What runs here is said; what does not is refused with a remedy, or replaced only where that was asked for."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCudart

import risengine
from risengine.backends import devices, onnx_providers, onnx_session
from risengine.backends.devices import choose_device, find_device, find_devices, open_session, usable_devices
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import run_chained
from risengine.bundle import Bundle, open_bundle
from risengine.cli import main
from risengine.config import RuntimeConfig
from risengine.demo import DemoPicture
from risengine.errors import BackendError, BundleError, InputError
from risengine.manifest import Target


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle("tabletop")


def built_for(bundle: Bundle, target: Target) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, target=target))


def test_every_target_has_a_device_or_a_remedy() -> None:
    found = {device.target: device for device in find_devices()}
    assert found.keys() == {"cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx"}
    assert "CPUExecutionProvider" in found["cpu"].runs_on
    assert found["openvino"].runs_on.startswith("openvino 20")
    for device in found.values():
        assert bool(device.runs_on) != bool(device.missing)
        assert device.runs_on or "pip install" in device.missing or "Install" in device.missing


def test_the_device_is_the_bundles_unless_another_is_asked_for(bundle: Bundle) -> None:
    assert choose_device(bundle, RuntimeConfig()) == "cpu"
    assert choose_device(built_for(bundle, "openvino"), RuntimeConfig()) == "openvino"
    assert choose_device(built_for(bundle, "openvino"), RuntimeConfig("cpu")) == "cpu"
    assert usable_devices(bundle)[0].target == "cpu"


def test_engines_and_graphs_are_not_exchanged(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"runs on cpu, cuda, openvino; the device is 'tensorrt'. Rebuild"):
        choose_device(bundle, RuntimeConfig("tensorrt"))
    with pytest.raises(BundleError, match="'tensorrt-rtx', which runs on tensorrt-rtx; the device is 'cpu'"):
        choose_device(built_for(bundle, "tensorrt-rtx"), RuntimeConfig("cpu", fallback=True))


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    ort = onnx_providers.onnxruntime_module()
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.mark.usefixtures("no_cuda")
def test_a_missing_device_is_refused_or_replaced_with_a_warning(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackendError, match=r"device 'cuda' cannot be used: .*expected CUDAExecutionProvider. Run: pip"):
        risengine.load("tabletop", RuntimeConfig("cuda"))
    with caplog.at_level(logging.WARNING), risengine.load("tabletop", RuntimeConfig("cuda", fallback=True)) as engine:
        assert engine.providers == ("CPUExecutionProvider",)
    assert "runs on the CPU in place of cuda" in caplog.text


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_providers.PROVIDERS, "cuda", "AzureExecutionProvider")
    monkeypatch.setattr(onnx_session, "cuda_module", FakeCudart)
    ort = onnx_providers.onnxruntime_module()
    honest = ort.InferenceSession
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda *args, **options: honest(*args, **{**options, "providers": ["CPUExecutionProvider"]}),
    )
    with pytest.raises(BackendError, match="runs on CPUExecutionProvider; expected AzureExecutionProvider"):
        open_session(bundle, "text_encoder", "cuda", RuntimeConfig())


def test_cuda_computes_in_the_precision_that_the_graph_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ort = onnx_providers.onnxruntime_module()
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *args, **options: asked.append(options))
    onnx_providers.find_provider("cuda").load(tmp_path / "g.onnx", 1)
    assert asked[0]["providers"] == ["CUDAExecutionProvider"]
    assert asked[0]["provider_options"] == [{"use_tf32": "0"}]


def test_config_is_checked() -> None:
    with pytest.raises(InputError, match="device 'gpu' is unknown; expected one of: cpu, cuda"):
        RuntimeConfig("gpu")  # type: ignore[arg-type]


def test_openvino_answers_as_onnx_runtime_does(picture: DemoPicture) -> None:
    config = RuntimeConfig("openvino", threads=1)
    with risengine.load("tabletop", config) as other, risengine.load("tabletop", RuntimeConfig(threads=1)) as engine:
        assert other.providers == ("OpenVINO CPU",)
        expected = engine.encode_image(picture.path)
        actual = other.encode_image(picture.path, masks=expected.proposals)
        np.testing.assert_allclose(actual.features, expected.features, atol=1e-5)
        proposals = other.proposals(picture.path)
        assert len(proposals) == len(expected.proposals)
        for one, two in zip(proposals.masks, expected.proposals.masks, strict=True):
            assert (one & two).sum() / (one | two).sum() >= 0.99
        with pytest.raises(BackendError, match=r"got the inputs \[\]"):
            other.sessions["image_encoder"].run({})
    with pytest.raises(BackendError, match="is closed"):
        other.sessions["image_encoder"].run({"image": np.zeros((4, 5, 3), np.uint8)})


def test_openvino_refuses_what_is_no_graph(bundle_copy: Path) -> None:
    path = bundle_copy / "text_encoder.onnx"
    path.write_bytes(b"no protobuf")
    spec = open_bundle("tabletop").manifest.graphs["text_encoder"]
    with pytest.raises(BackendError, match=r"OpenVINO .* cannot compile .*text_encoder\.onnx"):
        devices.OpenVinoSession(path, spec, RuntimeConfig())


def test_bound_outputs_are_what_a_run_returns(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binding that the GPU uses, over memory of the host."""
    role = "mask_decoder"
    session = OnnxSession(bundle.graph_path(role), bundle.manifest.graphs[role], RuntimeConfig(threads=1))
    rng = np.random.default_rng(0)
    feeds = {
        "image_features": rng.normal(size=(3, 1024, 64)).astype(np.float32),
        "mask_tokens": rng.normal(size=(4, 8)).astype(np.float32),
        "prompt_index": np.array([0, 2, 1, 1]),
    }
    expected = run_chained(session, feeds)["logits"]
    assert isinstance(expected, np.ndarray)
    session._memory = onnx_session.DeviceMemory(FakeCudart())
    held = run_chained(session, feeds)["logits"]
    np.testing.assert_array_equal(held.to_host(), expected)
    features = onnx_session.DeviceArray.of(session._memory, feeds["image_features"])
    again = run_chained(session, {**feeds, "image_features": features}, to_host=("logits",))["logits"]
    np.testing.assert_array_equal(again, expected)


def test_the_doctor_says_what_runs(capsys: pytest.CaptureFixture[str], bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    (bundle_copy / "manifest.json").write_text(json.dumps({**manifest, "target": "tensorrt"}))
    assert main(["doctor", str(bundle_copy), "/nowhere"]) == 0
    printed = capsys.readouterr().out
    assert "cpu          yes  onnxruntime" in printed
    assert "tensorrt     no   tensorrt is missing" in printed
    assert "tabletop: runs on cpu" in printed
    assert f"{bundle_copy}: cannot run here: it is built for tensorrt" in printed
    assert "/nowhere: cannot be used: no bundle at /nowhere" in printed
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {device["target"] for device in facts["devices"]} == {device.target for device in find_devices()}
    assert find_device("cpu").runs_on in {device["runs_on"] for device in facts["devices"]}
