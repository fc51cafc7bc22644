"""Exported files: reproducible, lean, dynamic, and readable by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from risengine.bundle import file_sha256
from risengine.errors import BackendError
from risengine.manifest import GraphSpec, TensorSpec
from risexport import onnx_export
from risexport.onnx_export import OPSET, ExportRequest, export_graph


class Scorer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8))
        self.unused = nn.Linear(50, 50)

    def forward(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.layer(rows) * weights[:, None].float()
        return hidden, hidden.sum(0)


def request(path: Path) -> ExportRequest:
    inputs = {"rows": torch.randn(3, 8), "weights": torch.arange(3, dtype=torch.uint8)}
    return ExportRequest(path, inputs, ("hidden", "total"), {"rows": {0: "N"}, "weights": {0: "N"}})


@dataclass(frozen=True)
class Exported:
    module: Scorer
    path: Path
    spec: GraphSpec


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path, module = tmp_path_factory.mktemp("graph") / "scorer.onnx", Scorer().eval()
    return Exported(module, path, export_graph(module, request(path)))


def test_describes_what_it_wrote(exported: Exported) -> None:
    spec, path = exported.spec, exported.path
    assert spec.file == "scorer.onnx"
    assert spec.sha256 == file_sha256(path)
    assert spec.size_bytes == path.stat().st_size
    assert spec.inputs == (TensorSpec("rows", "float32", ("N", 8)), TensorSpec("weights", "uint8", ("N",)))
    assert spec.outputs == (TensorSpec("hidden", "float32", ("N", 8)), TensorSpec("total", "float32", (8,)))
    assert spec.flops == 2 * 3 * 8 * 8
    assert spec.external == ()


def test_export_is_silent_and_reproducible(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    again = export_graph(Scorer().eval(), request(tmp_path / "again.onnx"))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert again.sha256 == exported.spec.sha256


def test_nothing_superfluous_is_stored(exported: Exported) -> None:
    model = onnx.load(exported.path)
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert not any("unused" in tensor.name for tensor in model.graph.initializer)
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.value_info):
        assert not part.doc_string if hasattr(part, "doc_string") else True
        assert not part.metadata_props
    assert model.opset_import[0].version == OPSET
    assert str(Path(__file__).parent).encode() not in exported.path.read_bytes()


def assert_runs(path: Path, module: Scorer, count: int) -> None:
    rows, weights = torch.randn(count, 8), torch.full((count,), 3, dtype=torch.uint8)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    actual = session.run(None, {"rows": rows.numpy(), "weights": weights.numpy()})
    for value, expected in zip(actual, module(rows, weights), strict=True):
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 17])
def test_dynamic_sizes_run(exported: Exported, count: int) -> None:
    assert_runs(exported.path, exported.module, count)


def test_large_weights_go_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "EXTERNAL_DATA_BYTES", 1)
    path, module = tmp_path / "scorer.onnx", Scorer().eval()
    spec = export_graph(module, request(path))
    (data,) = spec.external
    assert data.file == "scorer.onnx.data"
    assert data.sha256 == file_sha256(tmp_path / data.file)
    assert_runs(path, module, 4)


class FixedSize(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.reshape(3, 8) * 2.0


def test_a_size_that_became_constant_is_refused(tmp_path: Path) -> None:
    fixed = ExportRequest(tmp_path / "fixed.onnx", {"rows": torch.randn(3, 8)}, ("out",), {"rows": {0: "N"}})
    with pytest.raises(BackendError, match=r"(?s)fixed.*(Install the versions|compute it from)"):
        export_graph(FixedSize(), fixed)
