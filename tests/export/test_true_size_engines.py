"""Every role of ViT-B/32 with vit_t and vit_b, true sizes, in half precision: an engine each, its attention fused."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import msgspec
import onnx_ir
import pytest

from risengine.manifest import GraphSpec
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checkpoints.sam_checkpoints import load_sam
from risexport.config import EngineOptions
from risexport.graphs import GraphPlan, clip_graphs, sam_graphs
from risexport.half.casts import to_half
from risexport.half.precision import nodes_in_single
from risexport.native.engine_layers import Fusion, Layer, summarise
from risexport.native.engines import EngineBuilder
from risexport.onnx_export import write_graph
from risexport.presets import method_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_VIT_B_GROUPS = 11  # of queries in each of the four attentions over the whole map, beside eight in windows


def compiled(plan: GraphPlan, folder: Path) -> tuple[GraphSpec, Fusion, set[str]]:
    """Exports, halves by the first plan, and compiles."""
    spec = plan.export(folder)
    model = onnx_ir.load(folder / spec.file)
    single = nodes_in_single(model, {}, 0)
    to_half(model, single)
    graph, _ = write_graph(model, folder / spec.file)
    builder = EngineBuilder("tensorrt-rtx", EngineOptions(("8.6", "8.9")))
    found = builder.compile(plan.role, replace(spec, sha256=graph.sha256), folder, folder, lambda stage: None)
    assert found.engine is not None
    layers = msgspec.json.decode((folder / found.engine.layers.file).read_bytes(), type=tuple[Layer, ...])
    return found, summarise(layers), set(single)


def check_products(fusion: Fusion, single: set[str]) -> None:
    for nodes in fusion.single_products:
        assert single & set(nodes), f"{nodes} is computed in single precision"


def test_clip(tmp_path: Path) -> None:
    clip, facts = load_clip("ViT-B-32")
    method = method_for("clean", facts)
    expected = {"proposal_encoder": 12 + method.masked_blocks, "text_encoder": 12}
    for plan in clip_graphs(clip, method, "dense"):
        spec, fusion, single = compiled(plan, tmp_path)
        assert fusion.attentions == expected[plan.role]
        assert not fusion.softmaxes
        check_products(fusion, single)
        assert spec.size_bytes > 50e6


@pytest.mark.parametrize(("name", "attentions"), [("vit_t", 10), ("vit_b", 8 + 4 * _VIT_B_GROUPS)])
def test_sam(name: str, attentions: int, tmp_path: Path) -> None:
    sam, _ = load_sam(name)
    for plan in sam_graphs(sam):
        _, fusion, single = compiled(plan, tmp_path)
        check_products(fusion, single)
        if plan.role == "image_encoder":
            assert fusion.attentions == attentions
            assert not fusion.softmaxes
    del sam
    gc.collect()
