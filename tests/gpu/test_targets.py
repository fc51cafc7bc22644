"""On a machine with an NVIDIA GPU: every role and whole answers on every target that it has. Elsewhere these skip.

Run them with ``pytest -m gpu``; a bundle is built for each target, so the first test of one takes a minute.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import risengine
from risbench.cli import main as risbench_main
from risengine.backends import engine_runners
from risengine.backends.device_array import DeviceArray
from risengine.backends.devices import find_device
from risengine.backends.engine_runners import LIBRARIES
from risengine.backends.nvidia import cuda_module, native_module, read_gpu
from risengine.backends.onnx_providers import find_provider
from risengine.backends.session import DeviceSession
from risengine.backends.shared_libraries import shared_library_version
from risengine.bundle import Bundle, open_bundle
from risengine.config import RuntimeConfig
from risengine.demo import demo_pictures
from risengine.generator.proposals import generate_proposals
from risengine.images import load_image
from risengine.manifest import Role, Target
from risengine.measures import relative_error
from risengine.verify import verify_bundle
from risexport.build import build
from risexport.config import BuildConfig, EngineOptions, Precision
from risexport.presets import MethodOptions

pytestmark = pytest.mark.gpu

TABLETOP = Path(__file__).parents[2] / "models" / "tabletop"
CASES: tuple[tuple[Target, Precision], ...] = (
    ("cuda", "fp32"),
    ("cuda", "fp16"),
    ("tensorrt-rtx", "fp16"),
    ("tensorrt", "fp16"),
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target, precision = request.param
    missing = find_device(target).missing
    if missing:
        pytest.skip(f"no device for {target}: {missing}")
    if target in LIBRARIES:
        try:
            native_module(LIBRARIES[target])
        except risengine.BackendError as error:
            pytest.skip(f"no compiler for {target}: {error}")
    embedded = open_bundle("tabletop").manifest
    capability = read_gpu(cuda_module()).compute_capability
    options = EngineOptions((capability,)) if target == "tensorrt-rtx" else EngineOptions()
    try:
        config = BuildConfig(
            out=tmp_path_factory.mktemp("gpu") / "bundle",
            clip=str(TABLETOP / "clip.json"),
            clip_checkpoint=str(TABLETOP / "weights" / "clip.safetensors"),
            sam="tabletop.sam_model:build_tabletop_sam",
            sam_checkpoint=TABLETOP / "weights" / "sam.safetensors",
            precision=precision,
            target=target,
            engine=options,
            method=MethodOptions(global_weight=embedded.method.global_weight),
            proposals=embedded.proposals,
        )
        return open_bundle(build(config))
    except risengine.InputError as error:
        if "does not compile for compute capability" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[risengine.Engine]:
    with risengine.load(bundle.path) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[risengine.Engine]:
    with risengine.load("tabletop") as loaded:
        yield loaded


def test_every_role_passes_the_tolerances_of_the_build(bundle: Bundle) -> None:
    found = verify_bundle(bundle, RuntimeConfig())
    assert not found.failures
    assert {row.role for row in found.parity} == set(get_args(Role))  # mask_measurer among them
    assert "CPUExecutionProvider" not in found.providers[:1]


def test_a_provider_of_onnx_runtime_runs_the_engines_too(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bundle.manifest.graphs["text_encoder"].engine
    if engine is None:
        pytest.skip(f"{bundle.manifest.target} has no engines")
    try:
        provider = find_provider(bundle.manifest.target)
    except risengine.BackendError as error:
        pytest.skip(f"ONNX Runtime has no provider for {bundle.manifest.target}: {error}")
    version = shared_library_version(engine.library, engine.version, provider.folder)
    if version != engine.version:
        pytest.skip(f"the provider finds {engine.library} {version}; the engines are for {engine.version}")

    def hidden(library: str) -> Any:
        raise risengine.BackendError(f"{library} is hidden by this test")

    monkeypatch.setattr(engine_runners, "native_module", hidden)
    found = verify_bundle(bundle, RuntimeConfig())
    assert not found.failures
    assert found.providers[0] == provider.name


def test_masks_are_those_of_the_cpu(engine: risengine.Engine, on_cpu: risengine.Engine) -> None:
    for picture in demo_pictures():
        expected, actual = on_cpu.proposals(picture.path).masks, engine.proposals(picture.path).masks
        pairs = [(one & two).sum() / max(1, (one | two).sum()) for one in expected for two in actual]
        best = np.reshape(pairs, (len(expected), len(actual))).max(axis=1)
        assert (best >= 0.9).mean() >= 0.9


def test_answers_are_those_of_the_cpu(engine: risengine.Engine, on_cpu: risengine.Engine) -> None:
    same = []
    for picture in demo_pictures():
        encoded = engine.encode_image(picture.path, masks=on_cpu.proposals(picture.path))
        described = on_cpu.encode_image(picture.path, masks=encoded.proposals)
        for question in picture.questions:
            one, two = engine.segment(encoded, question.text), on_cpu.segment(described, question.text)
            same.append(one.index == two.index)
    assert np.mean(same) >= 0.9


def test_masks_stay_on_the_gpu(engine: risengine.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between image and winning mask the host sees six numbers a candidate, and each proposal's mask once."""
    session, seen = engine.sessions["proposal_encoder"], []
    run = type(session).run_on_device

    def watch(self: Any, feeds: dict[str, Any], *more: Any, **named: Any) -> dict[str, Any]:
        if "masks" in feeds:
            seen.append(feeds["masks"])
        return run(self, feeds, *more, **named)

    monkeypatch.setattr(type(session), "run_on_device", watch)
    encoded = engine.encode_image(demo_pictures()[0].path)
    assert all(isinstance(masks, DeviceArray) for masks in seen)
    assert sum(map(len, seen)) == len(encoded.proposals) > 0
    np.testing.assert_array_equal(np.concatenate([np.asarray(masks) for masks in seen]), encoded.proposals.masks)


@pytest.mark.parametrize("settings", [{}, {"crop_n_layers": 1}, {"search": "turbo"}], ids=str)
def test_the_gpu_measures_as_the_host(engine: risengine.Engine, settings: dict[str, Any]) -> None:
    """The same logits, measured and drawn on the GPU or in the host's memory."""
    image = load_image(demo_pictures()[0].path)
    options = dataclasses.replace(engine.proposal_settings, **settings)
    side_px = engine.manifest.sam_image_size_px
    on_host = {role: session for role, session in engine.sessions.items() if role != "mask_measurer"}
    actual, expected = (
        generate_proposals(sessions, image, options, side_px) for sessions in (engine.sessions, on_host)
    )
    assert abs(len(actual) - len(expected)) <= 0.02 * len(expected) + 1
    pairs = [(one & two).sum() / (one | two).sum() for one in expected.masks for two in actual.masks]
    assert np.mean(np.reshape(pairs, (len(expected), len(actual))).max(axis=1) > 0.99) >= 0.97


def test_libraries_take_outputs_through_dlpack(engine: risengine.Engine) -> None:
    session = engine.sessions["image_projector"]
    assert isinstance(session, DeviceSession)
    (spec,) = session.inputs
    given = np.random.default_rng(0).normal(size=tuple(int(size) for size in spec.shape)).astype(np.float32)
    outputs, expected = session.run_on_device({spec.name: given}), session.run({spec.name: given})
    taken = 0
    for library in ("torch", "cupy", "jax.dlpack"):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        if library == "torch" and not module.cuda.is_available():
            continue
        for name, held in outputs.items():
            seen = module.from_dlpack(held)
            assert seen.__dlpack_device__() == held.__dlpack_device__()
            to_host = {"torch": lambda tensor: tensor.cpu().numpy(), "cupy": lambda array: array.get()}
            host = to_host.get(library, np.asarray)(seen)
            np.testing.assert_array_equal(host, held.to_host())
            assert relative_error(host, expected[name]) < 1e-3
            taken += 1
    if not taken:
        pytest.skip("none of torch, cupy and jax sees the GPU")


def test_arrays_of_torch_go_in_and_out_without_a_copy(engine: risengine.Engine) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    session = engine.sessions["image_projector"]
    assert isinstance(session, DeviceSession)
    (spec,) = session.inputs
    given = torch.randn(tuple(int(size) for size in spec.shape), device="cuda")
    outputs: dict[str, Any] = session.run_on_device({spec.name: given})
    expected = session.run({spec.name: given.cpu().numpy()})
    for name, held in outputs.items():
        seen = torch.as_tensor(held, device="cuda")
        assert seen.data_ptr() == held.address
        assert relative_error(seen.cpu().numpy(), expected[name]) < 1e-3


def test_risbench_measures_it(bundle: Bundle, tmp_path: Path) -> None:
    report = tmp_path / "latency.json"
    words = ["latency", str(bundle.path), "--devices", bundle.manifest.target, "--iterations", "5", "--batch", "0"]
    assert risbench_main([*words, "--json", str(report)]) == 0
    assert json.loads(report.read_bytes())["sides"]


def test_no_output_is_overwritten_by_the_next_call(engine: risengine.Engine) -> None:
    session = engine.sessions["text_encoder"]
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 400, (2, session.inputs[0].shape[1]), dtype=np.int64) for _ in range(2)]
    first = session.run({"tokens": tokens[0]})["features"]
    kept = first.copy()
    session.run({"tokens": tokens[1]})
    np.testing.assert_array_equal(first, kept)


def test_runs_of_the_same_shapes_answer_alike(engine: risengine.Engine) -> None:
    """The first is plain; from the second on a native engine replays a CUDA graph, and each sees its own inputs."""
    session = engine.sessions["text_encoder"]
    rng = np.random.default_rng(1)
    tokens = [rng.integers(1, 400, (3, session.inputs[0].shape[1]), dtype=np.int64) for _ in range(2)]
    answers = [session.run({"tokens": tokens[number % 2]})["features"] for number in range(6)]
    assert relative_error(answers[1], answers[0]) > 1e-2
    for number, answer in enumerate(answers[2:]):
        assert relative_error(answer, answers[number % 2]) < 1e-3


def test_an_engine_stays_on_its_gpu(bundle: Bundle, on_cpu: risengine.Engine) -> None:
    cudart = cuda_module()
    if int(cudart.cudaGetDeviceCount()[1]) < 2:
        pytest.skip("there is one GPU")
    image, here = load_image(demo_pictures()[0].path), read_gpu(cudart)
    assert int(cudart.cudaSetDevice(1)[0]) == 0
    try:
        if read_gpu(cudart).compute_capability != here.compute_capability:
            pytest.skip("the second GPU is another kind of GPU")
        with risengine.load(bundle.path) as second:
            cudart.cudaSetDevice(0)
            session = second.sessions["image_encoder"]
            assert isinstance(session, DeviceSession)
            held = session.run_on_device({"image": image})["image_embedding"]
            assert held.device == 1
            assert cudart.cudaGetDevice()[1] == 0
            expected = on_cpu.sessions["image_encoder"].run({"image": image})["image_embedding"]
            assert relative_error(held.to_host(), expected) < 5e-2
            with risengine.load(bundle.path) as first:
                projector = first.sessions["image_projector"]
                assert isinstance(projector, DeviceSession)
                with pytest.raises(risengine.InputError, match="lies on GPU 1"):
                    projector.run_on_device({"image_embedding": held})
    finally:
        cudart.cudaSetDevice(0)
