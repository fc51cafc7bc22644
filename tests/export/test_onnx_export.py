"""Exported files: reproducible, lean, dynamic, and readable by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from risengine.bundle import file_sha256
from risengine.errors import BackendError
from risengine.manifest import TensorSpec
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


def test_describes_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "scorer.onnx"
    spec = export_graph(Scorer().eval(), request(path))
    assert spec.file == "scorer.onnx"
    assert spec.sha256 == file_sha256(path)
    assert spec.size_bytes == path.stat().st_size
    assert spec.inputs == (TensorSpec("rows", "float32", ("N", 8)), TensorSpec("weights", "uint8", ("N",)))
    assert spec.outputs == (TensorSpec("hidden", "float32", ("N", 8)), TensorSpec("total", "float32", (8,)))
    assert spec.flops == 2 * 3 * 8 * 8
    assert spec.external == ()


def test_same_module_gives_same_bytes(tmp_path: Path) -> None:
    hashes = [export_graph(Scorer().eval(), request(tmp_path / f"{name}.onnx")).sha256 for name in "ab"]
    assert hashes[0] == hashes[1]


def test_nothing_superfluous_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "scorer.onnx"
    export_graph(Scorer().eval(), request(path))
    model = onnx.load(path)
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert not any("unused" in tensor.name for tensor in model.graph.initializer)
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.value_info):
        assert not part.doc_string if hasattr(part, "doc_string") else True
        assert not part.metadata_props
    assert model.opset_import[0].version == OPSET
    assert str(Path(__file__).parent).encode() not in path.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 17])
def test_dynamic_sizes_run(tmp_path: Path, count: int) -> None:
    path, module = tmp_path / "scorer.onnx", Scorer().eval()
    export_graph(module, request(path))
    rows, weights = torch.randn(count, 8), torch.full((count,), 3, dtype=torch.uint8)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    actual = session.run(None, {"rows": rows.numpy(), "weights": weights.numpy()})
    for value, expected in zip(actual, module(rows, weights), strict=True):
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_large_weights_go_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "EXTERNAL_DATA_BYTES", 1)
    path, module = tmp_path / "scorer.onnx", Scorer().eval()
    spec = export_graph(module, request(path))
    (data,) = spec.external
    assert data.file == "scorer.onnx.data"
    assert data.sha256 == file_sha256(tmp_path / data.file)
    rows, weights = torch.randn(4, 8), torch.ones(4, dtype=torch.uint8)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    actual = session.run(None, {"rows": rows.numpy(), "weights": weights.numpy()})[0]
    np.testing.assert_allclose(actual, module(rows, weights)[0].detach().numpy(), rtol=1e-4, atol=1e-5)


class FixedSize(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.reshape(3, 8) * 2.0


def test_a_size_that_became_constant_is_refused(tmp_path: Path) -> None:
    fixed = ExportRequest(tmp_path / "fixed.onnx", {"rows": torch.randn(3, 8)}, ("out",), {"rows": {0: "N"}})
    with pytest.raises(BackendError, match=r"fixed|N"):
        export_graph(FixedSize(), fixed)


def test_export_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    export_graph(Scorer().eval(), request(tmp_path / "scorer.onnx"))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
