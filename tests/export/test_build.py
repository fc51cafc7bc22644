"""From two checkpoints to a bundle: complete and equal to the libraries, or not there at all."""

from __future__ import annotations

import argparse
import errno
import shutil
import signal
from collections import namedtuple
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

import risengine
from risengine.backends.onnx_session import OnnxSession
from risengine.bundle import Bundle, file_sha256, open_bundle
from risengine.config import RuntimeConfig
from risengine.errors import InputError
from risengine.manifest import GraphSpec, Manifest, Role
from risengine.method import ProposalSettings
from risengine.vectors import Vectors
from risengine.verify import verify_bundle
from risexport import build as build_module
from risexport import cli
from risexport.build import STAGES, build, stages
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checks import references
from risexport.checks.parity import ParityError
from risexport.checks.vectors import make_vectors
from risexport.config import BuildConfig
from risexport.graphs import GraphPlan
from risexport.presets import MethodOptions

IMAGE_SIZE = (75, 110)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (*IMAGE_SIZE, 3), dtype=np.uint8)


def test_manifest_says_what_was_built(tiny_bundle: Bundle, tiny_config: BuildConfig) -> None:
    manifest = Manifest.decode((tiny_bundle.path / "manifest.json").read_bytes())
    assert (manifest.name, manifest.license, manifest.precision, manifest.target) == (
        "tiny",
        "Apache-2.0",
        "fp32",
        "cpu",
    )
    clip, sam = manifest.sources
    assert (clip.role, clip.checkpoint, clip.license) == ("clip", "random", "Apache-2.0")
    assert (sam.role, sam.checkpoint, sam.license) == ("sam", "tiny_sam.safetensors", "MIT")
    assert sam.sha256 == file_sha256(tiny_config.sam_checkpoint)  # type: ignore[arg-type]
    assert (manifest.method.preset, manifest.method.global_weight) == ("clean", 0.8)
    assert manifest.method.image_size_px == 32
    assert manifest.proposals == ProposalSettings(points_per_side=4)
    assert manifest.sam_image_size_px == 64
    assert {row.role for row in manifest.parity} == set(manifest.graphs)
    assert all(graph.flops > 0 for graph in manifest.graphs.values())
    listed = {file.file for file in tiny_bundle.files} | {"manifest.json"}
    assert {path.name for path in tiny_bundle.path.iterdir()} == listed


def test_nothing_is_left_beside_the_bundle(tiny_bundle: Bundle) -> None:
    assert not [path for path in tiny_bundle.path.parent.iterdir() if path.name.startswith(".")]


def test_graphs_in_sequence_equal_the_libraries(
    tiny_sam: Sam,
    tiny_config: BuildConfig,
    tiny_bundle: Bundle,
    sessions: dict[Role, OnnxSession],
    image: np.ndarray,
) -> None:
    """Image to masks as SamPredictor's, masks to features, texts as open_clip's, and the mask each text chooses."""
    points = np.array([[20, 30], [90, 60], [55, 40]], np.float32)
    embedding = sessions["image_encoder"].run({"image": image})["image_embedding"]
    decoded = sessions["point_decoder"].run(
        {
            **sessions["image_projector"].run({"image_embedding": embedding}),
            "image_size": np.array(IMAGE_SIZE, np.int64),
            "points": np.stack([points, np.zeros_like(points)], axis=1),
            "labels": np.tile(np.array([1, -1], np.int64), (3, 1)),
        }
    )
    logits = sessions["mask_decoder"].run(
        {
            "image_features": decoded["image_features"],
            "mask_tokens": decoded["mask_tokens"].reshape(9, -1),
            "prompt_index": np.arange(3, dtype=np.int64).repeat(3),
        }
    )["logits"]
    predictor = SamPredictor(tiny_sam)
    predictor.set_image(image)
    upsampled = tiny_sam.postprocess_masks(torch.from_numpy(logits)[None], predictor.input_size, IMAGE_SIZE)[0]
    masks = (upsampled > 0).numpy()
    for index, point in enumerate(points):
        expected, scores, _ = predictor.predict(point[None], np.ones(1))
        np.testing.assert_allclose(decoded["iou_predictions"][index], scores, rtol=5e-3, atol=5e-3)
        for mask, other in zip(masks[3 * index : 3 * index + 3], expected, strict=True):
            assert (mask & other).sum() >= 0.99 * (mask | other).sum()

    masks = masks[masks.any((1, 2))]
    assert len(masks) > 1
    described = sessions["proposal_encoder"].run(
        {"image": image, "masks": masks, "global_weight": np.array(0.8, np.float32)}
    )
    np.testing.assert_allclose(np.linalg.norm(described["features"], axis=1), 1.0, rtol=1e-5)
    clip, _ = load_clip(tiny_config.clip)
    tokens = np.zeros((2, 77), np.int64)
    tokens[:, :4] = [[49406, 320, 736, 49407], [49406, 1929, 518, 49407]]
    with torch.inference_mode():
        expected_texts = clip.encode_text(torch.from_numpy(tokens)).numpy()
    texts = sessions["text_encoder"].run({"tokens": tokens})["features"]
    np.testing.assert_allclose(texts, expected_texts, rtol=1e-3, atol=1e-4)
    assert (texts @ described["features"].T).shape == (2, len(masks))


@pytest.fixture
def quick_export(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the graphs of the bundle that is there and compares them on little: these tests are not about them."""

    export = GraphPlan.export

    def copy(plan: GraphPlan, folder: Path) -> GraphSpec:
        if plan.role not in tiny_bundle.manifest.graphs:
            return export(plan, folder)
        shutil.copy(tiny_bundle.graph_path(plan.role), folder)
        return tiny_bundle.manifest.graphs[plan.role]

    monkeypatch.setattr(GraphPlan, "export", copy)
    monkeypatch.setattr(references, "IMAGE_SIZE", (80, 120))
    monkeypatch.setattr(references, "MASKS", 3)


@pytest.fixture
def config(tiny_config: BuildConfig, tmp_path: Path) -> BuildConfig:
    return replace(tiny_config, out=tmp_path / "bundle")


@pytest.mark.usefixtures("quick_export")
def test_stages_are_told_in_order(config: BuildConfig) -> None:
    told: list[str] = []
    assert build(config, told.append) == config.out
    assert tuple(told) == STAGES
    open_bundle(config.out)


@pytest.mark.usefixtures("quick_export")
def test_a_target_without_a_device_is_verified_on_the_cpu_and_warned_of(
    config: BuildConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    told: list[str] = []
    build(replace(config, target="cuda"), told.append)
    assert "not run on cuda (ONNX Runtime" in caplog.text
    assert tuple(told) == stages("fp32", "cuda") != STAGES
    bundle = open_bundle(config.out)
    assert bundle.manifest.target == "cuda"
    roles = set(get_args(Role))
    assert {row.role for row in bundle.manifest.parity} == set(bundle.manifest.graphs) == roles
    for device in ("cpu", "openvino"):
        found = verify_bundle(bundle, RuntimeConfig(device))
        assert not found.failures
        assert {row.role for row in found.parity} == roles - {"mask_measurer"}
    with risengine.load(config.out, RuntimeConfig("cpu")) as engine:
        assert "mask_measurer" not in engine.sessions  # NumPy computes the masks' edges alone


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("stage", ["export text_encoder", "compare SAM with PyTorch", "verify the bundle"])
def test_an_interrupted_build_leaves_nothing(config: BuildConfig, stage: str) -> None:
    def interrupt(begun: str) -> None:
        if begun == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(config, interrupt)
    assert not list(config.out.parent.iterdir())


@pytest.mark.usefixtures("quick_export")
def test_a_graph_past_its_tolerance_leaves_nothing(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    tolerances = replace(build_module.TOLERANCES["fp32"], decoder_error=1e-12)
    monkeypatch.setitem(build_module.TOLERANCES, "fp32", tolerances)
    with pytest.raises(
        ParityError, match=r"point_decoder: relative_error of iou_predictions .* expected at most 1e-12"
    ):
        build(config)
    assert not list(config.out.parent.iterdir())


@pytest.mark.usefixtures("quick_export")
def test_a_bundle_that_fails_its_own_verification_leaves_nothing(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturb(*references: Any) -> Vectors:
        vectors = make_vectors(*references)
        return replace(vectors, text_features=1.01 * vectors.text_features)

    monkeypatch.setattr(build_module, "make_vectors", disturb)
    with pytest.raises(ParityError, match=r"text_encoder: relative_error of features .* is 0\.0099"):
        build(config)
    assert not list(config.out.parent.iterdir())


@pytest.mark.usefixtures("quick_export")
def test_versions_need_no_package_metadata(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where onnxruntime comes from onnxruntime-gpu, and everything else from checkouts."""

    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(build_module, "version", absent)
    versions = open_bundle(build(config)).manifest.compiler.versions
    assert versions["onnxruntime"] == onnxruntime.__version__
    assert versions["risengine"] == risengine.__version__
    assert versions["torch"] == "unknown"


def test_an_existing_directory_is_refused_before_the_work(config: BuildConfig) -> None:
    config.out.mkdir()
    (config.out / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="--force"):
        build(config)
    with pytest.raises(InputError, match="is no bundle"):
        build(replace(config, force=True))
    assert (config.out / "holiday.jpg").read_bytes() == b"precious"


@pytest.mark.usefixtures("quick_export")
def test_force_replaces_a_bundle_only_when_the_new_one_is_complete(
    config: BuildConfig, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle.path, config.out)
    forced = replace(config, force=True, name="newer")
    with pytest.raises(InputError, match="unknown"):
        build(replace(forced, sam="vit_bb"))
    assert open_bundle(config.out).manifest.name == "tiny"
    build(forced)
    assert open_bundle(config.out).manifest.name == "newer"
    assert [path.name for path in config.out.parent.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("quick_export")
def test_a_symbolic_link_stays_one(config: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    config.out.symlink_to(tmp_path / "disk" / "bundle")
    for name in ("first", "second"):
        assert build(replace(config, name=name, force=name == "second")) == config.out
        assert open_bundle(config.out).manifest.name == name
    assert config.out.is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["bundle"]


def test_unwritable_places_are_refused_before_the_work(config: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    for out in (tmp_path / "file" / "bundle", Path("/proc/no/bundle"), tmp_path / ("x" * 300)):
        told: list[str] = []
        with pytest.raises(InputError, match="cannot be written"):
            build(replace(config, out=out), told.append)
        assert not told


def test_a_small_disk_is_refused_before_the_export(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**20, 2**20 - 5, 5))
    told: list[str] = []
    with pytest.raises(InputError, match=r"0 MB free; expected at least \d+ MB"):
        build(config, told.append)
    assert told == ["load CLIP"]
    assert not list(config.out.parent.iterdir())


@pytest.mark.usefixtures("quick_export")
def test_a_full_disk_is_an_input_error(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build_module, "write_tokenizer", full)
    with pytest.raises(InputError, match="No space left on device"):
        build(config)
    assert not list(config.out.parent.iterdir())


@pytest.mark.usefixtures("quick_export")
def test_command_line_reaches_the_manifest(
    config: BuildConfig, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    words = f"{config.out} --clip {config.clip} --sam {config.sam} --sam-checkpoint {config.sam_checkpoint}"
    words += " --license MIT --points-per-side 8 --pred-iou-thresh 0.7 --sentence-weight 0.25"
    handler = signal.getsignal(signal.SIGTERM)
    assert cli.run(parser.parse_args(words.split())) == 0
    assert signal.getsignal(signal.SIGTERM) == handler
    manifest = open_bundle(config.out).manifest
    assert (manifest.name, manifest.license) == ("bundle", "MIT")
    assert manifest.proposals == ProposalSettings(points_per_side=8, pred_iou_thresh=0.7)
    assert manifest.method.sentence_weight == 0.25
    printed = capsys.readouterr()
    assert str(config.out) in printed.out
    assert all(stage in printed.err for stage in STAGES)


def test_command_line_defaults_are_the_configs() -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    options = vars(parser.parse_args(["out", "--clip", "ViT-B-32", "--sam", "vit_b"]))
    default = BuildConfig(Path("out"), "ViT-B-32", "vit_b")
    for name in ("preset", "precision", "target", "name", "license", "force", "clip_checkpoint"):
        assert options[name] == getattr(default, name), name


def test_method_options_reach_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[BuildConfig] = []

    def note(config: BuildConfig, progress: object) -> Path:
        built.append(config)
        return tmp_path

    monkeypatch.setattr(build_module, "build", note)
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    words = f"{tmp_path} --clip RN50 --sam vit_b"
    cli.run(parser.parse_args(words.split()))
    options = " --global-weight 0.85 --sentence-weight 0.25 --masked-blocks 2 --mask-pooling point"
    cli.run(parser.parse_args((words + options).split()))
    assert [config.method for config in built] == [MethodOptions(), MethodOptions(0.85, 0.25, 2, "point")]
    with pytest.raises(SystemExit):
        parser.parse_args([*words.split(), "--mask-pooling", "mean"])


def test_too_many_masked_blocks_are_refused_before_the_export(config: BuildConfig) -> None:
    told: list[str] = []
    with pytest.raises(InputError, match=r"masked_blocks = 9; expected 1 to 4, .*Choose it with --masked-blocks"):
        build(replace(config, method=MethodOptions(masked_blocks=9)), told.append)
    assert told == ["load CLIP"]
