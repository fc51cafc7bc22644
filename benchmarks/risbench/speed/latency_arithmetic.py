"""How much either side computes and moves in one question: the arithmetic beside a latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from risbench.machine.arithmetic import count_gflop, graph_gflop
from risbench.machine.watch import GraphCall, watched_graphs
from risbench.reference.text import encode_texts
from risbench.reference.visual import encode_masks
from risbench.speed.engine_path import STAGE_OF_ROLE, EnginePath
from risbench.speed.reference_path import Models, ReferencePath
from risbench.speed.stock_side import StockSide
from risbench.speed.whole_path import PathRun
from risengine.generator.prompts import generator_crops
from risengine.manifest import GraphSpec, Role
from risexport.graphs import GraphPlan, clip_graphs, measurer_graph, sam_graphs

__all__ = ["Work", "engine_work", "reference_work"]

_CLIP_ROLES: tuple[Role, ...] = ("proposal_encoder", "text_encoder")
"""Graphs whose arithmetic depends on the values they are given, not only on their shapes."""


@dataclass(frozen=True)
class Work:
    """What a question costs, by stage.

    Attributes:
        gflop: Arithmetic in 1e9 operations, two a multiply-add.
        gbyte: Weights, inputs and outputs of the stage's graphs, once a run of each, in 1e9 bytes; empty where nothing
            is known of them.
    """

    gflop: Mapping[str, float]
    gbyte: Mapping[str, float]


def engine_work(path: EnginePath, run: PathRun, models: Models, text: str) -> Work:
    """Counts the arithmetic of the engine's graphs by the modules they were exported from.

    Args:
        path: The engine; :attr:`~risbench.speed.engine_path.EnginePath.calls` are those of ``run``.
        run: A question it has answered.
        models: The bundle's models.
        text: An expression that the engine has not read yet.
    """
    engine = path.engine
    rows, columns = models.sam.prompt_encoder.image_embedding_size
    measurer = measurer_graph((4 * rows, 4 * columns))
    plans = {plan.role: plan for plan in (*sam_graphs(models.sam), measurer, *clip_graphs(models.clip, engine.method))}
    gflop: Counter[str] = Counter()
    shapes = Counter((call.role, call.shapes) for call in path.calls if call.role not in _CLIP_ROLES)
    for (role, given), count in shapes.items():
        gflop[STAGE_OF_ROLE[role]] += count * graph_gflop(plans[role], dict(given))  # type: ignore[assignment]
    with watched_graphs(engine.sessions, keep=_CLIP_ROLES) as calls:
        engine.segment(engine.encode_image(run.encoded.image, masks=run.encoded.proposals), text)
    for call in calls:
        gflop[STAGE_OF_ROLE[call.role]] += _call_gflop(plans[call.role], call)  # type: ignore[assignment]
    gbyte: Counter[str] = Counter()
    for call in path.calls:
        moved = call.array_bytes + _weight_bytes(engine.manifest.graphs[call.role])
        gbyte[STAGE_OF_ROLE[call.role]] += 1e-9 * moved  # type: ignore[assignment]
    return Work(gflop, gbyte)


def reference_work(path: ReferencePath, run: PathRun, models: Models) -> Work:
    """Counts the arithmetic of the reference's modules.

    Args:
        path: The reference.
        run: A question it has answered.
        models: The same models.
    """
    pipeline, encoded = path.pipeline, run.encoded
    stock = StockSide(models.sam, models.sam_facts)
    masks, texts = encoded.proposals.masks, [run.answer.text, run.answer.phrase]
    crops = len(generator_crops(pipeline.proposals, encoded.size))
    return Work(
        {
            "image_encode": crops * stock.encoder_gflop(),
            "prompts": stock.decoder_gflop(pipeline.proposals, encoded.size),
            "proposal_features": count_gflop(
                lambda: encode_masks(models.clip.visual, encoded.image, masks, pipeline.method)
            ),
            "text": count_gflop(lambda: encode_texts(models.clip, pipeline.tokenizer, texts)),
        },
        {},
    )


def _call_gflop(plan: GraphPlan, call: GraphCall) -> float:
    assert call.feeds is not None
    feeds = [torch.from_numpy(np.array(call.feeds[name])) for name in plan.inputs]
    return count_gflop(lambda: plan.module.eval()(*feeds))


def _weight_bytes(spec: GraphSpec) -> int:
    return spec.size_bytes + sum(file.size_bytes for file in spec.external)
