"""Native engines, compiled here without a GPU by TensorRT-RTX: what is in them, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import onnx_ir
import pytest

from risengine.backends.shared_libraries import shared_library_version
from risengine.bundle import Bundle, open_bundle
from risengine.cli import main
from risengine.errors import BackendError, BundleError, InputError
from risengine.manifest import Role, ShapeProfile, TensorSpec
from risexport.build import build, stages
from risexport.config import BuildConfig, EngineOptions
from risexport.native.engine_layers import Fusion, Layer, read_layers, summarise
from risexport.native.engines import EngineBuilder

CAPABILITIES = ("8.6", "8.9")
TABLETOP = Path(__file__).parents[2] / "models" / "tabletop"


def fusion_of(bundle: Bundle, role: str) -> Fusion:
    engine = bundle.manifest.graphs[role].engine  # type: ignore[index]
    assert engine is not None
    data = (bundle.path / engine.layers.file).read_bytes()
    return summarise(msgspec.json.decode(data, type=tuple[Layer, ...]))


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def native_bundle(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Bundle:
    """The tabletop models: the tiny ones' heads are too narrow for the kernels that the compiler has."""
    config = BuildConfig(
        out=tmp_path_factory.mktemp("native") / "bundle",
        clip=str(TABLETOP / "clip.json"),
        clip_checkpoint=str(TABLETOP / "weights" / "clip.safetensors"),
        sam="tabletop.sam_model:build_tabletop_sam",
        sam_checkpoint=TABLETOP / "weights" / "sam.safetensors",
        precision="fp16",
        target="tensorrt-rtx",
        engine=EngineOptions(CAPABILITIES, {"N": (1, 4, 32)}),
    )
    return open_bundle(build(config, told.append))


def test_every_role_has_an_engine(native_bundle: Bundle) -> None:
    manifest = native_bundle.manifest
    assert manifest.target == "tensorrt-rtx"
    assert manifest.compiler.versions["tensorrt_rtx"]
    for role, spec in manifest.graphs.items():
        engine = spec.engine
        assert engine is not None
        assert spec.file == f"{role}.plan"
        assert engine.compute_capabilities == CAPABILITIES
        assert engine.profiles.keys() == {t.name for t in spec.inputs if any(isinstance(s, str) for s in t.shape)}
    assert manifest.graphs.keys() == set(get_args(Role))
    masks = manifest.graphs["proposal_encoder"].engine
    assert masks is not None
    assert masks.profiles["masks"] == ShapeProfile((1, 1, 1), (4, 480, 640), (32, 1080, 1920))
    assert any(figure.rounded for figure in manifest.parity)


def test_every_engine_has_a_context_graph_for_onnx_runtime(native_bundle: Bundle) -> None:
    listed = {file.file: file for file in native_bundle.files}
    for role, spec in native_bundle.manifest.graphs.items():
        assert spec.engine is not None
        context = spec.engine.context
        assert context is not None
        assert listed[context.file] == context
        assert context.file == f"{role}.context.onnx"
        model = onnx_ir.load(native_bundle.path / context.file)
        assert model.graph.node(0).attributes["ep_cache_context"].as_string() == spec.file
        for declared, values in ((spec.inputs, model.graph.inputs), (spec.outputs, model.graph.outputs)):
            assert [value.name for value in values] == [tensor.name for tensor in declared]
    assert {path.name for path in native_bundle.path.glob("*.onnx")} <= listed.keys()


def test_the_shared_library_says_what_the_module_says(native_bundle: Bundle) -> None:
    """As a provider of ONNX Runtime would load it; compiling has loaded it here."""
    version = native_bundle.manifest.compiler.versions["tensorrt_rtx"]
    assert shared_library_version("tensorrt_rtx", version) == version


def test_attention_is_fused_and_products_are_in_half_precision(native_bundle: Bundle) -> None:
    masked = native_bundle.manifest.method.masked_blocks
    shape = json.loads((TABLETOP / "clip.json").read_text(encoding="utf-8"))
    blocks, text_blocks = shape["vision_cfg"]["layers"], shape["text_cfg"]["layers"]
    expected = {"proposal_encoder": blocks + masked, "text_encoder": text_blocks}  # crops and image, then masks
    for role, attentions in expected.items():
        fusion = fusion_of(native_bundle, role)
        assert fusion.attentions == attentions
        assert not fusion.softmaxes
    measurer = native_bundle.manifest.graphs["mask_measurer"]
    layers = (native_bundle.path / "mask_measurer.layers.json").read_bytes()
    operands = {operand for layer in msgspec.json.decode(layers, type=tuple[Layer, ...]) for operand in layer.operands}
    assert "Float" in operands
    assert "Half" not in operands  # a threshold follows: it is exact in a bundle of half precision too
    for role, spec in native_bundle.manifest.graphs.items():
        if spec is measurer:
            continue
        kept = {node.split()[-1] for node in spec.fp32_nodes}
        for nodes in fusion_of(native_bundle, role).single_products:
            assert kept & set(nodes), f"{role} computes {nodes} in single precision"


def test_the_build_tells_what_it_is_at(native_bundle: Bundle, told: list[str]) -> None:
    expected = stages("fp16", "tensorrt-rtx")
    assert [stage for stage in told if ": " not in stage] == list(expected)
    assert any(stage.startswith("compile proposal_encoder: ") for stage in told)


def test_inspect_shows_the_engines_and_load_says_what_is_missing(
    native_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(native_bundle.path)]) == 0
    printed = capsys.readouterr().out
    assert "compute capability 8.6, 8.9" in printed
    assert "masks (1, 1, 1) to (32, 1080, 1920), best (4, 480, 640)" in printed
    assert "mask_decoder.context.onnx: the same for ONNX Runtime's provider" in printed
    assert main(["segment", "--bundle", str(native_bundle.path), "/nowhere.jpg", "the mug"]) == 2
    assert "device 'tensorrt-rtx' cannot be used" in capsys.readouterr().err


def test_a_changed_engine_is_refused(native_bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(native_bundle.path, tmp_path / "copy"))
    plan = copy / "mask_decoder.plan"
    plan.write_bytes(plan.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"mask_decoder\.plan was changed: SHA-256"):
        open_bundle(copy)
    shutil.copy(native_bundle.path / plan.name, plan)
    (copy / "mask_decoder.layers.json").unlink()
    with pytest.raises(BundleError, match=r"lacks mask_decoder\.layers\.json"):
        open_bundle(copy)
    shutil.copy(native_bundle.path / "mask_decoder.layers.json", copy)
    context = copy / "text_encoder.context.onnx"
    context.write_bytes(context.read_bytes().replace(b"text_encoder.plan", b"../ncoder.plan"))
    with pytest.raises(BundleError, match=r"text_encoder\.context\.onnx was changed: SHA-256"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(("9.0",)), r"does not compile for compute capability 9\.0; expected one of 7\.5, 8\.0, 8\.6"),
        (EngineOptions(profile={"Z": (1, 2, 3)}), "profile names 'Z'; expected one of the dimensions H, W, N"),
    ],
)
def test_what_the_compiler_cannot_do_is_refused_before_the_work(options: EngineOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineBuilder("tensorrt-rtx", options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": {"N": (4, 2, 8)}}, "expected least <= best <= largest"),
        ({"profile": {"N": (0, 2, 8)}}, "each at least 1"),
        ({"workspace_mib": 0}, "workspace_mib = 0"),
        ({"optimization_level": 6}, "expected 0 to 5"),
    ],
)
def test_options_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineOptions(**change)


def test_engine_options_need_a_target_with_engines(tiny_config: BuildConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, out=tmp_path / "bundle", engine=EngineOptions(("8.6",)))
    with pytest.raises(InputError, match="target cpu has no engines"):
        build(config)


def test_a_missing_compiler_is_said_before_the_work(tiny_config: BuildConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, out=tmp_path / "bundle", target="tensorrt")
    with pytest.raises(BackendError, match="tensorrt is missing"):
        build(config)
    assert not (tmp_path / "bundle").exists()


INTERRUPTED = """
import os, sys
from pathlib import Path
from risengine.bundle import open_bundle
from risexport.config import EngineOptions
from risexport.native.engines import EngineBuilder

bundle, folder, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def interrupt(stage):
    if ": " in stage:
        os.kill(os.getpid(), number)

spec = open_bundle(bundle).manifest.graphs["image_projector"]
try:
    EngineBuilder("tensorrt-rtx", EngineOptions(("8.6",))).compile("image_projector", spec, bundle, folder, interrupt)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_compiler(tiny_bundle: Bundle, tmp_path: Path, number: signal.Signals) -> None:
    copy = shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    words = [sys.executable, "-c", INTERRUPTED, str(copy), str(tmp_path), str(int(number))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # signals are a process's own affair
    assert done.stdout == "interrupted\n"
    assert not (tmp_path / "image_projector.plan").exists()


def _copied(bundle: Bundle, folder: Path) -> Path:
    model = onnx_ir.load(bundle.graph_path("image_projector"))
    onnx_ir.save(model, folder / "image_projector.onnx")
    return folder


def test_a_graph_that_the_compiler_does_not_read(tiny_bundle: Bundle, tmp_path: Path) -> None:
    model = onnx_ir.load(tiny_bundle.graph_path("image_projector"))
    node = next(node for node in model.graph if node.op_type == "MatMul")
    node.op_type = "NoSuchOperator"
    onnx_ir.save(model, tmp_path / "image_projector.onnx")
    builder = EngineBuilder("tensorrt-rtx", EngineOptions(("8.6",)))
    with pytest.raises(BackendError, match=r"did not read the graph of image_projector: .*another --target"):
        builder.compile(
            "image_projector", tiny_bundle.manifest.graphs["image_projector"], tmp_path, tmp_path, lambda stage: None
        )


def test_a_fixed_image_size_leaves_the_measurer_its_points() -> None:
    builder = EngineBuilder("tensorrt-rtx", EngineOptions(("8.6",), profile={"H": (480, 480, 480)}))
    rows = TensorSpec("row_starts", "int64", ("H",))
    assert builder._profile("mask_measurer", rows) == ShapeProfile((1,), (480,), (480,))
    assert builder._profile("image_encoder", rows) == ShapeProfile((480,), (480,), (480,))


def test_tensorrt_rtx_has_no_engines_for_later_versions() -> None:
    with pytest.raises(InputError, match=r"tensorrt-rtx makes engines for its own version alone"):
        EngineBuilder("tensorrt-rtx", EngineOptions(("8.6",), version_compatible=True))


def test_tensorrt_rtx_has_no_timing_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensorrt-rtx measures nothing while it builds.*Leave out --timing-cache"):
        EngineBuilder("tensorrt-rtx", EngineOptions(("8.6",), timing_cache=tmp_path / "timing.cache"))


LOG = [
    "Engine generation completed in 0.7 seconds.",
    "Layers:\n"
    "Name: _gemm_mha_v2_1, LayerType: kgen, Inputs: [ { Name: a, Dimensions: [-1,32], Datatype: Half, Format: x }], "
    "Constants: [], Outputs: [], TacticName: _gemm_mha_v2_0x5f, StreamId: 0, "
    "Metadata: [ONNX Layer: n1][ONNX Layer: n2]\n"
    "Name: m2, LayerType: gemm, Inputs: [ { Name: a, Dimensions: [-1,32], Datatype: Float, Format: x }], "
    "Constants: [ { Name: b, Dimensions: [32], Datatype: Half, Format: x }], Outputs: [], TacticName: t, StreamId: 0, "
    "Metadata: [ONNX Layer: n3]\n"
    "Name: __myl_MaxrSubExpSumDiv_3, LayerType: kgen, Inputs: [ { Name: a, Dimensions: [1,2], Datatype: Half }], "
    "Constants: [], Outputs: [], TacticName: u, StreamId: 0, Metadata: [ONNX Layer: n4]\n",
]


def test_layers_are_read_from_the_log() -> None:
    layers = read_layers(LOG)
    assert layers[0] == Layer("_gemm_mha_v2_1", "kgen", "_gemm_mha_v2_0x5f", ("Half",), ("n1", "n2"))
    assert summarise(layers) == Fusion(1, ("__myl_MaxrSubExpSumDiv_3",), (("n3",),))
