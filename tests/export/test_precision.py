"""Half precision in the graph: what becomes half, what does not, and that the answers stay the same."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from onnx_ir import DataType
from torch import Tensor, nn

from risengine.manifest import GraphSpec
from risexport.half.casts import round_every_result, to_half
from risexport.half.precision import PLANS, SMALL, nodes_in_single
from risexport.half.ranges import Extent, RangeSession
from risexport.onnx_export import ExportRequest, export_graph, write_graph

ROWS = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """One layer of everything that the rules name."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(16, 224)
        self.norm = nn.LayerNorm(224)
        self.down = nn.Linear(224, 16)
        self.scale = scale

    def forward(self, rows: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        grey = torch.floor(pixels.float() * 0.37)[:, None] / 255
        hidden = self.up(rows + grey) * self.scale / self.scale
        keys = self.norm(hidden)
        weights = ((keys @ keys.T) / 16).softmax(-1)
        result = rows + self.down(weights @ keys)
        return result / torch.linalg.vector_norm(result, dim=-1, keepdim=True).clamp(min=1e-12), result


FEEDS = {"rows": ROWS.numpy(), "pixels": np.array([0, 3, 90, 200, 255], np.uint8)}


def export(folder: Path, module: nn.Module) -> GraphSpec:
    inputs = {"rows": ROWS, "pixels": torch.from_numpy(FEEDS["pixels"])}
    dynamic = {"rows": {0: "N"}, "pixels": {0: "N"}}
    return export_graph(module.eval(), ExportRequest(folder / "net.onnx", inputs, ("unit", "raw"), dynamic))


def measured(folder: Path, spec: GraphSpec) -> dict[str, Extent]:
    session = RangeSession(folder / spec.file, spec)
    session.run(FEEDS)
    session.close()
    return session.extents


def run(path: Path) -> list[np.ndarray]:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, FEEDS)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GraphSpec]:
    folder = tmp_path_factory.mktemp("network")
    return folder, export(folder, Network())


def reduced(folder: Path, spec: GraphSpec, plan: int = 0) -> tuple[onnx_ir.Model, dict[str, str]]:
    model = onnx_ir.load(folder / spec.file)
    single = nodes_in_single(model, measured(folder, spec), plan)
    to_half(model, single)
    return model, single


@pytest.mark.parametrize("plan", range(len(PLANS) - 1))
def test_results_are_those_of_single_precision(network: tuple[Path, GraphSpec], tmp_path: Path, plan: int) -> None:
    folder, spec = network
    expected = run(folder / spec.file)
    model, _ = reduced(folder, spec, plan)
    write_graph(model, tmp_path / "half.onnx")
    round_every_result(model)
    write_graph(model, tmp_path / "rounded.onnx")
    for path in (tmp_path / "half.onnx", tmp_path / "rounded.onnx"):
        for actual, value in zip(run(path), expected, strict=True):
            assert actual.dtype == np.float32
            error = np.linalg.norm(actual - value) / np.linalg.norm(value)
            assert 0 < error < 2e-3


def test_the_last_plan_changes_nothing(network: tuple[Path, GraphSpec], tmp_path: Path) -> None:
    folder, spec = network
    model, _ = reduced(folder, spec, len(PLANS) - 1)
    round_every_result(model)
    write_graph(model, tmp_path / "rounded.onnx")
    for actual, expected in zip(run(tmp_path / "rounded.onnx"), run(folder / spec.file), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_the_signature_stays_and_the_weights_halve(network: tuple[Path, GraphSpec], tmp_path: Path) -> None:
    folder, spec = network
    before = onnx_ir.load(folder / spec.file)
    model, _ = reduced(folder, spec)
    for old, new in ((before.graph.inputs, model.graph.inputs), (before.graph.outputs, model.graph.outputs)):
        assert [(v.name, v.dtype, v.shape) for v in old] == [(v.name, v.dtype, v.shape) for v in new]
    weights = [value for value in model.graph.initializers.values() if value.const_value.size >= 16]
    assert {value.dtype for value in weights} == {DataType.FLOAT16}
    file, _ = write_graph(model, tmp_path / "half.onnx")
    assert file.size_bytes < 0.75 * spec.size_bytes
    products = [node for node in model.graph if node.op_type in ("MatMul", "Gemm")]
    assert len(products) == 4
    assert all(node.outputs[0].dtype == DataType.FLOAT16 for node in products)


def test_each_plan_keeps_what_it_names(network: tuple[Path, GraphSpec]) -> None:
    folder, spec = network
    kept = [reduced(folder, spec, plan) for plan in range(len(PLANS))]
    for (_, fewer), (_, more) in itertools.pairwise(kept):
        assert fewer.keys() < more.keys()
    first, last = kept[0][0], kept[-2][1]
    operators = {node.name: node.op_type for node in first.graph}
    reasons = {reason: Counter(operators[name] for name, r in last.items() if r == reason) for reason in last.values()}
    assert reasons["preparation"] == {"Cast": 1, "Mul": 1, "Floor": 1, "Unsqueeze": 1, "Div": 1, "Add": 1}
    assert reasons["root"] == {"ReduceL2": 1, "Clip": 1, "Div": 1}
    assert reasons["small"] == {"Div": 1, "Softmax": 1}  # of 5 x 5 numbers, where the largest tensor has 5 x 224
    assert reasons["normalisation"] == {"LayerNormalization": 1}
    assert reasons["attention"] == {"MatMul": 1}
    assert reasons["residual"] == {"Add": 1}
    assert "range" not in reasons


class Tokens(nn.Module):
    """A few tokens beside many cells, as in SAM's point decoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(192, 192)

    def forward(self, tokens: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.project(tokens)
        return projected, (cells @ projected.T) @ projected


def test_small_tensors_keep_single_precision_and_their_weights_half(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = {"tokens": torch.randn(16, 192, generator=generator), "cells": torch.randn(400, 192, generator=generator)}
    module = Tokens().eval()
    spec = export_graph(module, ExportRequest(tmp_path / "net.onnx", inputs, ("projected", "mixed"), {}))
    feeds = {name: value.numpy() for name, value in inputs.items()}
    session = RangeSession(tmp_path / spec.file, spec)
    session.run(feeds)
    session.close()
    halved = module.project.weight.detach().half().float().numpy()
    expected = feeds["tokens"] @ halved.T + module.project.bias.detach().numpy()
    errors = []
    for plan in (0, 1):
        model = onnx_ir.load(tmp_path / spec.file)
        single = nodes_in_single(model, session.extents, plan)
        to_half(model, single)
        if plan == 1:
            products = {node.name for node in model.graph if node.op_type in ("Gemm", "MatMul")}
            kept = {name for name, reason in single.items() if reason == SMALL}
            assert len(products) == 3
            assert len(products & kept) == 1  # of the tokens; those with cells are in half precision
        stored = {value.const_value.size: value.dtype for value in model.graph.initializers.values()}
        assert stored[192 * 192] == DataType.FLOAT16
        assert stored[192] == (DataType.FLOAT if plan == 1 else DataType.FLOAT16)
        round_every_result(model)
        write_graph(model, tmp_path / "rounded.onnx")
        rounded = ort.InferenceSession(tmp_path / "rounded.onnx", providers=["CPUExecutionProvider"])
        errors.append(np.abs(rounded.run(["projected"], feeds)[0] - expected).max())
    assert errors[1] < 1e-5 < 1e-4 < errors[0]


def test_what_leaves_the_range_stays_in_single_precision(tmp_path: Path) -> None:
    spec = export(tmp_path, Network(scale=6e4))
    extents = measured(tmp_path, spec)
    assert max(extent.reach for extent in extents.values()) > 65504
    model, single = reduced(tmp_path, spec)
    operators = {node.name: node.op_type for node in model.graph}
    wide = {operators[name] for name, reason in single.items() if reason == "range"}
    assert wide == {"Mul", "Div"}
    round_every_result(model)
    write_graph(model, tmp_path / "rounded.onnx")
    for actual, expected in zip(run(tmp_path / "rounded.onnx"), run(tmp_path / spec.file), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-2)


def test_rounding_shows_an_overflow_that_the_cpu_provider_hides(tmp_path: Path) -> None:
    """The reason for :func:`round_every_result`: without it a graph that overflows passes every comparison here."""
    spec = export(tmp_path, Network(scale=6e4))
    model = onnx_ir.load(tmp_path / spec.file)
    to_half(model, nodes_in_single(model, {}, 0))
    write_graph(model, tmp_path / "half.onnx")
    round_every_result(model)
    write_graph(model, tmp_path / "rounded.onnx")
    assert np.isfinite(run(tmp_path / "half.onnx")[0]).all()
    assert not np.isfinite(run(tmp_path / "rounded.onnx")[0]).all()


def test_the_same_graph_gives_the_same_bytes(network: tuple[Path, GraphSpec], tmp_path: Path) -> None:
    folder, spec = network
    files = [write_graph(reduced(folder, spec)[0], tmp_path / name)[0] for name in ("a.onnx", "b.onnx")]
    assert files[0].sha256 == files[1].sha256


def test_extents_are_those_of_all_runs(network: tuple[Path, GraphSpec]) -> None:
    folder, spec = network
    session = RangeSession(folder / spec.file, spec)
    for factor in (1, -3, 2):
        outputs = session.run({**FEEDS, "rows": factor * FEEDS["rows"]})
    assert session.extents["rows"] == Extent(pytest.approx(3 * np.abs(FEEDS["rows"]).max()), 80)
    assert session.extents["raw"].elements == 80
    assert max(extent.elements for extent in session.extents.values()) == 5 * 224
    assert set(outputs) == {"unit", "raw"}
    np.testing.assert_allclose(outputs["raw"], run_scaled(folder / spec.file, 2), rtol=1e-5, atol=1e-5)
    session.run({"rows": FEEDS["rows"][:0], "pixels": FEEDS["pixels"][:0]})
    session.run({**FEEDS, "rows": np.full_like(FEEDS["rows"], np.nan)})
    session.run(FEEDS)
    assert np.isnan(session.extents["raw"].reach)
    kept = nodes_in_single(onnx_ir.load(folder / spec.file), session.extents, 0)
    assert "range" in kept.values()


def run_scaled(path: Path, factor: float) -> np.ndarray:
    feeds = {**FEEDS, "rows": factor * FEEDS["rows"]}
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["raw"], feeds)[0]
