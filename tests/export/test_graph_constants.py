"""The exported graphs know nothing of the example they were exported with: one bundle serves every size and text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import open_clip
import pytest
from PIL import Image
from segment_anything.modeling import Sam

import risengine
from risengine.bundle import Bundle
from risengine.demo import demo_pictures
from risengine.manifest import OPTIONAL_ROLES, Role
from risexport import graphs
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.config import BuildConfig
from risexport.graphs import GraphPlan
from risexport.presets import ClipFacts, method_for

# Primes, none of them a size of the tiny models.
SIZE, PROMPTS, MASKS, TEXTS, WORDS = (311, 419), 2 * 107, 113, 131, 59
TRACES = {*SIZE, SIZE[0] * SIZE[1], PROMPTS, PROMPTS // 2, MASKS, MASKS + 1, TEXTS, WORDS, WORDS + 2}

ROLES: tuple[Role, ...] = tuple(role for role in get_args(Role) if role not in OPTIONAL_ROLES)


@pytest.fixture
def other_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples of other sizes than those that a build exports with."""
    for name, value in {"IMAGE_SIZE": SIZE, "PROMPTS": PROMPTS, "MASKS": MASKS, "TEXTS": TEXTS, "WORDS": WORDS}.items():
        assert getattr(graphs, f"_{name}") != value
        monkeypatch.setattr(graphs, f"_{name}", value)


def _plan(plans: list[GraphPlan], role: Role) -> GraphPlan:
    (found,) = (plan for plan in plans if plan.role == role)
    return found


def _sizes(graph: onnx.GraphProto) -> Iterator[int]:
    """Yields all that can fix a size: scalars, short vectors, attributes, and the dimensions of weights and values."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS):
                yield from np.atleast_1d(onnx.helper.get_attribute_value(attribute)).tolist()
            elif attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for tensor in tensors:
        yield from tensor.dims
        if tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) and np.prod(tensor.dims) <= 8:
            yield from onnx.numpy_helper.to_array(tensor).ravel().tolist()
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from (dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _assert_no_trace(path: Path, traces: set[int]) -> None:
    sizes = set(_sizes(onnx.load(path).graph))
    assert -1 in sizes or 1 in sizes
    assert not sizes & traces


@pytest.mark.usefixtures("other_examples")
@pytest.mark.parametrize("role", ROLES)
def test_graphs_do_not_depend_on_the_example(
    role: Role, tiny_bundle: Bundle, tiny_config: BuildConfig, tiny_sam: Sam, tmp_path: Path
) -> None:
    clip, _ = load_clip(tiny_config.clip)
    plans = [*graphs.sam_graphs(tiny_sam), *graphs.clip_graphs(clip, tiny_bundle.manifest.method)]
    spec = _plan(plans, role).export(tmp_path)
    assert spec.sha256 == tiny_bundle.manifest.graphs[role].sha256
    _assert_no_trace(tmp_path / spec.file, TRACES)


def test_the_measurer_does_not_depend_on_the_example(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    usual = graphs.measurer_graph((32, 32)).export(tmp_path)
    request.getfixturevalue("other_examples")
    other = graphs.measurer_graph((32, 32)).export(tmp_path)
    assert other.flops_at != usual.flops_at
    assert other.sha256 == usual.sha256
    _assert_no_trace(tmp_path / other.file, TRACES)


def test_the_reference_presets_graph_of_a_resnet_does_not_depend_on_the_example(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The tower and the preset that the tiny bundle does not have."""
    vision = {"layers": (1, 1, 1, 1), "width": 8, "head_width": 32, "image_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(24, vision, text).eval().requires_grad_(False)
    method = method_for("reference", ClipFacts("test", "random", "", "resnet", 32, 24, 77, (0.5,) * 3, (0.3,) * 3))
    usual = _plan(graphs.clip_graphs(clip, method), "proposal_encoder").export(tmp_path)
    request.getfixturevalue("other_examples")
    other = _plan(graphs.clip_graphs(clip, method), "proposal_encoder").export(tmp_path)
    assert other.flops != usual.flops
    assert other.sha256 == usual.sha256
    _assert_no_trace(tmp_path / other.file, TRACES)


def test_one_engine_serves_all_sizes_and_texts() -> None:
    """What an engine has answered before, of another size and text, leaves no trace in its answers."""
    picture = demo_pictures()[0]
    texts = [*(question.text for question in picture.questions), "something on the table"]
    with Image.open(picture.path) as opened:
        image = opened.convert("RGB")
    images = [np.asarray(image), np.asarray(image.resize((451, 307)))]
    with risengine.load() as engine:
        answers = [engine.segment(pixels, text) for text in texts for pixels in images]
    assert len({answer.mask.shape for answer in answers}) == 2
    assert len(texts) >= 3
    assert len({(answer.mask.shape, answer.score) for answer in answers}) == len(answers)
    for answer, (text, pixels) in zip(answers, itertools.product(texts, images), strict=True):
        with risengine.load() as fresh:
            alone = fresh.segment(pixels, text)
        np.testing.assert_array_equal(answer.mask, alone.mask)
        assert answer.score == pytest.approx(alone.score, abs=1e-6)
