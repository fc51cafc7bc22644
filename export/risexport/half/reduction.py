"""From graphs in single precision to graphs in half, each by the first plan that is accurate enough."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import onnx_ir

from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import Session
from risengine.config import RuntimeConfig
from risengine.manifest import GraphSpec, Parity, Role
from risexport.checks.parity import TOLERANCES, ParityError, Tolerances
from risexport.half.casts import round_every_result, to_half
from risexport.half.precision import PLANS, nodes_in_single
from risexport.half.ranges import Extent, RangeSession
from risexport.onnx_export import write_graph

__all__ = ["Comparison", "halve", "open_sessions"]

_logger = logging.getLogger(__name__)


class Comparison(Protocol):
    """Compares the sessions of a model's graphs with the model."""

    def __call__(self, sessions: Mapping[Role, Session], *, tolerances: Tolerances) -> list[Parity]:
        """Returns the figures; raises :class:`~risexport.checks.parity.ParityError` where one is past its tolerance."""
        ...


def halve(
    graphs: Mapping[Role, GraphSpec], exported: Path, folder: Path, measure: Comparison
) -> tuple[dict[Role, GraphSpec], list[Parity]]:
    """Writes graphs of one model in half precision.

    The graphs are first compared as they are, which also measures the extent of every tensor. Then each is reduced by
    the first of :data:`risexport.half.precision.PLANS`; one that is past its tolerance, as it is or with every result
    rounded, goes on to the next plan. One that ends wholly in single precision is warned of.

    Args:
        graphs: The model's graphs in single precision.
        exported: Their folder; further files are written into it, at most as large again.
        folder: Where the new graphs are written.
        measure: Comparison with the model.

    Returns:
        The new graphs, and how near they come to PyTorch: with every result rounded to half precision, then as they
        are.

    Raises:
        ParityError: A graph in single precision, or one in half precision by the last plan, is past its tolerance.
        BackendError: A graph cannot be reduced or run.
    """
    probes = {role: RangeSession(exported / spec.file, spec) for role, spec in graphs.items()}
    with _closing(probes):
        measure(probes, tolerances=TOLERANCES["fp32"])
        extents = {role: session.extents for role, session in probes.items()}
    plans = dict.fromkeys(graphs, 0)
    faults: dict[Role, Parity] = {}
    reduced = {role: _reduce(spec, exported, folder, extents[role], 0) for role, spec in graphs.items()}
    while True:
        try:
            parity = _compare(reduced, exported, folder, measure)
            break
        except ParityError as error:
            advancing = _advancing(error.row, plans)
            if not advancing:
                raise
            _logger.info("in half precision %s", error.row)
            for role in advancing:
                plans[role] += 1
                faults[role] = error.row
                reduced[role] = _reduce(graphs[role], exported, folder, extents[role], plans[role])
    for role, spec in reduced.items():
        kept = Counter(node.split(":")[0] for node in spec.fp32_nodes)
        reasons = ", ".join(f"{reason} x {count}" for reason, count in kept.items())
        _logger.info("%s: %s; in single precision: %s", role, PLANS[plans[role]], reasons or "nothing")
        if plans[role] + 1 == len(PLANS):
            _logger.warning(
                "%s is in single precision, as large and as slow as with --precision fp32: in half precision %s",
                role,
                faults[role],
            )
    return reduced, parity


_ROUNDED = "rounded"


def _compare(graphs: Mapping[Role, GraphSpec], exported: Path, folder: Path, measure: Comparison) -> list[Parity]:
    rows: list[Parity] = []
    for rounded, place in ((True, exported / _ROUNDED), (False, folder)):
        with open_sessions(graphs, place) as sessions:
            try:
                figures = measure(sessions, tolerances=TOLERANCES["fp16"])
            except ParityError as error:
                raise ParityError(replace(error.row, rounded=rounded)) from error
        rows += (replace(row, rounded=rounded) for row in figures)
    return rows


def _advancing(row: Parity, plans: Mapping[Role, int]) -> list[Role]:
    """Returns the graphs to reduce by their next plans: of those that may be at fault, the ones on the lowest plan.

    They go on together, except to the last plan: one of them wholly in single precision may be enough.
    """
    waiting = [role for role in _suspects(row) if role in plans and plans[role] + 1 < len(PLANS)]
    lowest = min((plans[role] for role in waiting), default=0)
    advancing = [role for role in waiting if plans[role] == lowest]
    return advancing[:1] if lowest + 2 == len(PLANS) else advancing


def _suspects(row: Parity) -> tuple[Role, ...]:
    """Returns the graphs that may be at fault for a figure, the likeliest first: it is of one, the others fed this."""
    if row.role == "mask_decoder":
        return "point_decoder", "mask_decoder", "image_projector"
    if row.role == "point_decoder":
        return "point_decoder", "image_projector"
    if row.measure == "selection_agreement":
        return "proposal_encoder", "text_encoder"
    return (row.role,)


def _reduce(spec: GraphSpec, exported: Path, folder: Path, extents: Mapping[str, Extent], plan: int) -> GraphSpec:
    model = onnx_ir.load(exported / spec.file)
    operators = {node.name: node.op_type for node in model.graph}
    single = nodes_in_single(model, extents, plan)
    to_half(model, single)
    graph_file, external = write_graph(model, folder / spec.file)
    round_every_result(model)
    (exported / _ROUNDED).mkdir(exist_ok=True)
    write_graph(model, exported / _ROUNDED / spec.file)
    return replace(
        spec,
        sha256=graph_file.sha256,
        size_bytes=graph_file.size_bytes,
        external=external,
        fp32_nodes=tuple(f"{reason}: {operators[name]} {name}" for name, reason in single.items()),
    )


@contextmanager
def open_sessions(graphs: Mapping[Role, GraphSpec], folder: Path) -> Iterator[dict[Role, Session]]:
    """Opens graphs of a folder on ONNX Runtime's CPU provider and closes them afterwards.

    Raises:
        BackendError: ONNX Runtime cannot load a graph.
    """
    sessions: dict[Role, Session] = {}
    with _closing(sessions):
        for role, spec in graphs.items():
            sessions[role] = OnnxSession(folder / spec.file, spec, RuntimeConfig())
        yield sessions


@contextmanager
def _closing(sessions: Mapping[Role, Session]) -> Iterator[None]:
    try:
        yield
    finally:
        for session in sessions.values():
            session.close()
