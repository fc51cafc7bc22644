"""The limit beside a latency: how fast this machine multiplies matrices in single precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from risengine.backends.onnx_session import OnnxSession
from risengine.config import RuntimeConfig
from risexport.onnx_export import ExportRequest, export_graph

__all__ = ["GEMM_GFLOP", "SIDE", "gemm_calls"]

SIDE = 2048
"""Rows and columns of both factors: large enough that memory does not count."""

GEMM_GFLOP = 2e-9 * SIDE**3


class _Product(nn.Module):
    """A layer without bias: the factor is a constant, as weights are, so that a runtime may lay it out beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIDE, SIDE), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def gemm_calls(folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Returns one product of two (SIDE, SIDE) float32 matrices as PyTorch and as ONNX Runtime compute it.

    Args:
        folder: Where the graph is written.
        threads: Threads of ONNX Runtime. PyTorch uses those the process has set.
    """
    product, x = _Product(), torch.randn(SIDE, SIDE)
    spec = export_graph(product, ExportRequest(folder / "gemm.onnx", {"x": x}, ("y",), {}))
    session = OnnxSession(folder / spec.file, spec, RuntimeConfig(threads=threads))
    feeds = {"x": x.numpy()}

    def multiply() -> Tensor:
        with torch.inference_mode():
            result: Tensor = product(x)
        return result

    return {"torch": multiply, "onnxruntime": lambda: session.run(feeds)}
