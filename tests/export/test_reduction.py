"""Builds in half precision: the plan that is accurate enough, what the bundle says of it, and nothing left behind."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from onnx_ir import DataType

from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import Session
from risengine.bundle import Bundle, open_bundle
from risengine.config import RuntimeConfig
from risengine.manifest import GraphSpec, Parity, Role
from risexport.build import build, stages
from risexport.checks.parity import TOLERANCES, ParityError, Tolerances
from risexport.config import BuildConfig
from risexport.graphs import GraphPlan
from risexport.half.precision import PLANS
from risexport.half.reduction import _advancing, halve

TOLD: list[str] = []


@pytest.fixture
def quick_export(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the graphs of the bundle that is there."""
    reuse_graphs(tiny_bundle, monkeypatch)


def reuse_graphs(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(plan: GraphPlan, folder: Path) -> GraphSpec:
        shutil.copy(bundle.graph_path(plan.role), folder)
        return bundle.manifest.graphs[plan.role]

    monkeypatch.setattr(GraphPlan, "export", copy)


@pytest.fixture(scope="module")
def half_bundle(tiny_config: BuildConfig, tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("half") / "bundle"
    TOLD.clear()
    with pytest.MonkeyPatch.context() as monkeypatch:
        reuse_graphs(tiny_bundle, monkeypatch)
        # A decoder of width 32 with random weights is far rougher than those that the tolerances are made for.
        rough = {"decoder_error": 2e-2, "mask_iou": 0.9}
        monkeypatch.setitem(TOLERANCES, "fp16", replace(TOLERANCES["fp16"], **rough))
        return open_bundle(build(replace(tiny_config, out=out, precision="fp16"), TOLD.append))


def test_the_bundle_says_what_it_is(half_bundle: Bundle, tiny_bundle: Bundle) -> None:
    manifest, single = half_bundle.manifest, tiny_bundle.manifest
    assert manifest.precision == "fp16"
    assert tuple(TOLD) == stages("fp16", "cpu")
    assert {path.name for path in half_bundle.path.parent.iterdir()} == {"bundle"}
    assert {path.name for path in half_bundle.path.iterdir()} == {path.name for path in tiny_bundle.path.iterdir()}
    for role, graph in manifest.graphs.items():
        assert (graph.inputs, graph.outputs) == (single.graphs[role].inputs, single.graphs[role].outputs)
        assert graph.flops == single.graphs[role].flops
        assert graph.size_bytes < 0.9 * single.graphs[role].size_bytes
    assert manifest.graphs["text_encoder"].size_bytes < 0.52 * single.graphs["text_encoder"].size_bytes
    figures = [
        {(row.role, row.tensor, row.measure) for row in manifest.parity if row.rounded is rounded}
        for rounded in (False, True)
    ]
    assert figures[0] == figures[1]
    assert len(figures[0]) == len(manifest.parity) / 2


def test_products_are_in_half_precision_except_those_listed(half_bundle: Bundle) -> None:
    for role, spec in half_bundle.manifest.graphs.items():
        listed = {entry.split()[-1]: entry.split()[:2] for entry in spec.fp32_nodes}
        graph = onnx_ir.load(half_bundle.graph_path(role)).graph
        products = [node for node in graph if node.op_type in ("Conv", "Gemm", "MatMul")]
        single = [node for node in products if node.outputs[0].dtype == DataType.FLOAT]
        assert len(products) > len(single)
        assert all(listed[str(node.name)] == ["preparation:", node.op_type] for node in single)
        operators = {node.op_type for node in graph if node.name in listed}
        wanted: dict[Role, set[str]] = {
            "image_encoder": {"Floor", "MatMul"},
            "point_decoder": {"Sin", "Cos", "MatMul"},
            "proposal_encoder": {"ReduceL2", "Log", "MatMul"},
        }
        assert wanted.get(role, set()) <= operators


def test_features_are_those_of_single_precision(half_bundle: Bundle, tiny_bundle: Bundle) -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((5, 60, 90)) > 0.5
    masks[1] = False
    feeds = {"image": rng.integers(0, 256, (60, 90, 3), np.uint8), "masks": masks, "global_weight": np.float32(0.8)}
    described = []
    for bundle in (half_bundle, tiny_bundle):
        spec = bundle.manifest.graphs["proposal_encoder"]
        session = OnnxSession(bundle.graph_path("proposal_encoder"), spec, RuntimeConfig(threads=1))
        described.append(session.run({**feeds, "global_weight": np.array(0.8, np.float32)})["features"])
        session.close()
    np.testing.assert_allclose(np.linalg.norm(described[0], axis=1), 1.0, rtol=1e-5)
    assert (described[0] * described[1]).sum(1).min() > 0.9999


class Judge:
    """A comparison that finds a graph at fault as often as told."""

    def __init__(self, faults: list[Role]) -> None:
        self.faults = faults
        self.tolerances: list[Tolerances] = []

    def __call__(self, sessions: Mapping[Role, Session], *, tolerances: Tolerances) -> list[Parity]:
        self.tolerances.append(tolerances)
        for session in sessions.values():
            session.run({"tokens": np.array([[49406, 5, 49407, *[0] * 74]] * 2, np.int64)})
        if self.faults and tolerances == TOLERANCES["fp16"]:
            raise ParityError(Parity(self.faults.pop(), "features", "cosine", 0.1, 0.5))
        return [Parity("text_encoder", "features", "cosine", 1.0, 0.5)]


def test_a_graph_goes_on_to_the_next_plan(
    tiny_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graphs = {"text_encoder": tiny_bundle.manifest.graphs["text_encoder"]}
    (tmp_path / "exported").mkdir()
    exported = tmp_path / "exported" / "text_encoder.onnx"
    exported.write_bytes(tiny_bundle.graph_path("text_encoder").read_bytes())
    judge = Judge(["text_encoder", "text_encoder"])
    with caplog.at_level("INFO", logger="risexport"):
        reduced, rows = halve(graphs, exported.parent, tmp_path, judge)  # type: ignore[arg-type]
    assert f"text_encoder: {PLANS[2]}; in single precision: " in caplog.text
    assert "is in single precision" not in caplog.text
    assert judge.tolerances == [TOLERANCES["fp32"], *[TOLERANCES["fp16"]] * 4]
    kept = {entry.split(":")[0] for entry in reduced["text_encoder"].fp32_nodes}
    assert "normalisation" in kept
    assert not {"attention", "residual"} & kept
    assert [(row.tensor, row.rounded) for row in rows] == [("features", True), ("features", False)]
    with pytest.raises(ParityError, match="cosine of features"):
        halve(graphs, exported.parent, tmp_path, Judge(["text_encoder"] * len(PLANS)))  # type: ignore[arg-type]


def test_a_graph_that_ends_in_single_precision_is_warned_of(
    tiny_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graphs = {"text_encoder": tiny_bundle.manifest.graphs["text_encoder"]}
    (tmp_path / "exported").mkdir()
    shutil.copy(tiny_bundle.graph_path("text_encoder"), tmp_path / "exported")
    with caplog.at_level("WARNING", logger="risexport"):
        halve(graphs, tmp_path / "exported", tmp_path, Judge(["text_encoder"] * (len(PLANS) - 1)))  # type: ignore[arg-type]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning == (
        "text_encoder is in single precision, as large and as slow as with --precision fp32: in half precision "
        "text_encoder: cosine of features, every result rounded to half precision, against the PyTorch reference is "
        "0.1; expected at least 0.5"
    )


def test_suspects_enter_single_precision_one_at_a_time() -> None:
    row = Parity("proposal_encoder", "features", "selection_agreement", 0.9, 0.99)
    last = len(PLANS) - 1
    plans: dict[Role, int] = {"proposal_encoder": last - 1, "text_encoder": last - 1, "image_encoder": 0}
    assert _advancing(row, {**plans, "proposal_encoder": 0, "text_encoder": 0}) == ["proposal_encoder", "text_encoder"]
    assert _advancing(row, {**plans, "text_encoder": 1}) == ["text_encoder"]
    assert _advancing(row, plans) == ["proposal_encoder"]
    assert _advancing(row, {**plans, "proposal_encoder": last}) == ["text_encoder"]
    assert _advancing(row, dict.fromkeys(plans, last)) == []


@pytest.mark.usefixtures("quick_export")
def test_a_build_that_no_plan_makes_accurate_leaves_nothing(
    tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "fp16", replace(TOLERANCES["fp16"], feature_error=1e-9))
    with pytest.raises(ParityError, match="No bundle was written"):
        build(replace(tiny_config, out=tmp_path / "bundle", precision="fp16"))
    assert not list(tmp_path.iterdir())
