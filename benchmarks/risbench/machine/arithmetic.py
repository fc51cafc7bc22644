"""Arithmetic beside a latency: how much was computed, and at which share of the machine's GEMM rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from risbench.machine.timing import Timing
from risexport.graphs import GraphPlan

__all__ = ["Measured", "count_gflop", "graph_gflop", "with_rate"]


@dataclass(frozen=True)
class Measured:
    """One side of a comparison.

    Attributes:
        timing: Durations.
        gflop: Arithmetic of one call in 1e9 operations, two a multiply-add, counted at these inputs.
        gflop_per_s: The same a second, at the median.
        gemm_share: The same as a share of the machine's GEMM rate.
    """

    timing: Timing
    gflop: float
    gflop_per_s: float
    gemm_share: float


def with_rate(timing: Timing, gflop: float, gemm_gflop_per_s: float) -> Measured:
    """Adds the arithmetic of a call to its durations."""
    rate = 1e3 * gflop / timing.p50_ms
    return Measured(timing, gflop, rate, rate / gemm_gflop_per_s)


def count_gflop(computation: Callable[[], object]) -> float:
    """Counts the matrix products and convolutions of a computation in PyTorch, in 1e9 operations."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know PyTorch's fused attention layer
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            computation()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return 1e-9 * float(counter.get_total_flops())


def graph_gflop(plan: GraphPlan, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Counts one run of a graph by the module it was exported from, where shapes alone decide, in 1e9 operations.

    Args:
        plan: The graph's.
        shapes: Of its inputs, by name.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        inputs = [torch.empty(shapes[name], dtype=example.dtype) for name, example in plan.inputs.items()]
        return count_gflop(lambda: plan.module.eval()(*inputs))
