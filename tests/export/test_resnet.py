"""The ResNet proposal encoder against the plain computation and risbench's reference; a bundle of it in the engine."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import open_clip
import pytest
import torch
from encoder_samples import (
    assert_close,
    assert_serves_all_sizes,
    clip_facts,
    make_inputs,
    open_session,
    plainly,
    run_module,
)
from open_clip.modified_resnet import ModifiedResNet
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import nn

import risengine
from risbench.reference import ReferencePipeline
from risbench.reference.visual import encode_masks
from risengine.bundle import Bundle, open_bundle
from risengine.errors import InputError
from risengine.manifest import GraphSpec
from risexport.build import build
from risexport.clip.crops import token_weights
from risexport.clip.resnet import ResnetProposalEncoder
from risexport.clip.vit import VitProposalEncoder
from risexport.config import BuildConfig
from risexport.graphs import GraphPlan
from risexport.presets import MethodOptions, Preset, method_for

SIZE_PX = 96
LAYERS = [2, 1, 1, 1]
CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"layers": LAYERS, "width": 8, "head_width": 64, "image_size": SIZE_PX},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TEXTS = ("the small red cube", "the man's left hand", "a bowl behind the blue box", "mug", "the rightmost green bottle")


def perturb(tower: nn.Module) -> None:
    """Moves batch norms off their initial state, in which folding them would change nothing."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in tower.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, mean, spread in (
                    (module.running_mean, 0.0, 0.3),
                    (module.running_var, 1.0, 0.2),
                    (module.weight, 1.0, 0.3),
                    (module.bias, 0.0, 0.3),
                ):
                    tensor.copy_(mean + spread * torch.randn(tensor.shape, generator=generator))
                module.running_var.abs_()
            elif isinstance(module, nn.Linear):
                module.bias.normal_(std=0.3, generator=generator)


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        clip = open_clip.CLIP(**CLIP_CONFIG)
    perturb(clip.visual)
    return clip.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tower(clip: open_clip.CLIP) -> ModifiedResNet:
    return clip.visual


@pytest.fixture(scope="module")
def bundle(
    clip: open_clip.CLIP, tiny_bundle: Bundle, tiny_config: BuildConfig, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """Built from a configuration and a file of weights; SAM's graphs are those of the tiny bundle."""
    folder = tmp_path_factory.mktemp("resnet")
    (folder / "resnet.json").write_text(json.dumps(CLIP_CONFIG), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in clip.state_dict().items()}
    save_file(weights, folder / "clip.safetensors")
    config = replace(
        tiny_config,
        out=folder / "bundle",
        clip=str(folder / "resnet.json"),
        clip_checkpoint=str(folder / "clip.safetensors"),
        preset="reference",
        method=MethodOptions(global_weight=0.4, sentence_weight=0.3),
    )
    export = GraphPlan.export

    def export_or_copy(plan: GraphPlan, out: Path) -> GraphSpec:
        if plan.role in ("proposal_encoder", "text_encoder"):
            return export(plan, out)
        shutil.copy(tiny_bundle.graph_path(plan.role), out)
        return tiny_bundle.manifest.graphs[plan.role]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GraphPlan, "export", export_or_copy)
        return open_bundle(build(config))


@pytest.mark.parametrize("preset", ["clean", "reference"])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 33, 70), (7, 61, 44)])
def test_equals_plain_computation(tower: ModifiedResNet, preset: Preset, count: int, height: int, width: int) -> None:
    method = method_for(preset, clip_facts(SIZE_PX, "resnet"), MethodOptions(global_weight=0.7))
    image, masks = make_inputs(count, height, width)
    holes = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < 0.4
    masks[min(2, count - 1)] &= ~holes  # of several masks, the one that covers everything
    weights = token_weights(masks, SIZE_PX // 32, method)
    assert ((weights > 0) & (weights < 1)).any()
    assert count == 1 or (weights.sum(1) == 0).any()
    actual = run_module(ResnetProposalEncoder(tower, method), image, masks, 0.7)
    assert_close(actual, plainly(tower, method, image, masks), 1e-5)
    torch.testing.assert_close(actual[1].norm(dim=1), torch.ones(count))


@pytest.mark.parametrize("preset", ["clean", "reference"])
def test_equals_the_reference(tower: ModifiedResNet, preset: Preset) -> None:
    method = method_for(preset, clip_facts(SIZE_PX, "resnet"), MethodOptions(global_weight=0.4))
    image, masks = make_inputs(9, 58, 83, seed=1)
    masks = masks[masks.flatten(1).any(1)]
    expected = encode_masks(tower, image.numpy(), masks.numpy(), method)
    actual = run_module(ResnetProposalEncoder(tower, method), image, masks, 0.4)
    assert_close(actual, [expected.global_features, expected.local_features, expected.features], 1e-5)


def test_the_tower_is_not_changed(tower: ModifiedResNet) -> None:
    before = deepcopy(tower)
    ResnetProposalEncoder(tower, method_for("clean", clip_facts(SIZE_PX, "resnet")))
    assert [type(module) for module in tower.modules()] == [type(module) for module in before.modules()]
    for name, value in before.state_dict().items():
        assert torch.equal(tower.state_dict()[name], value), name


def test_one_graph_serves_all_sizes(bundle: Bundle, tower: ModifiedResNet, tmp_path: Path) -> None:
    path = bundle.graph_path("proposal_encoder")
    encoder = ResnetProposalEncoder(tower, bundle.manifest.method)
    assert_serves_all_sizes(open_session(path), encoder)

    graph = onnx.load(path).graph
    stored = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    weights = sum(value.numel() for value in encoder.state_dict().values())
    assert stored - weights < 200  # scalars, axes, shapes: every weight is stored once
    convolutions = 3 + 3 * sum(LAYERS) + 4  # stem, bottlenecks, and the shortcuts of each stage's first
    assert [node.op_type for node in graph.node].count("Conv") == convolutions

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert operators["BatchNormalization"] == operators["Relu"] == 0  # part of the convolutions


def test_unusable_towers_are_refused(tower: ModifiedResNet) -> None:
    method = method_for("clean", clip_facts(SIZE_PX, "resnet"))
    with pytest.raises(InputError, match=r"is a Identity; expected .* such as RN50"):
        ResnetProposalEncoder(nn.Identity(), method)
    with pytest.raises(InputError, match="squares of 96 px; expected 64 px"):
        ResnetProposalEncoder(tower, replace(method, image_size_px=64))
    odd = ModifiedResNet(LAYERS, output_dim=8, heads=4, image_size=72, width=8)
    with pytest.raises(InputError, match="a multiple of 32"):
        ResnetProposalEncoder(odd, replace(method, image_size_px=72))
    with pytest.raises(InputError, match="ModifiedResNet"):
        VitProposalEncoder(tower, method)


def test_a_bundle_answers_like_the_reference(bundle: Bundle, clip: open_clip.CLIP, tiny_sam: Sam) -> None:
    """Texts of unit length are mixed, and the score is the product with the mixed features as they are."""
    method = bundle.manifest.method
    assert (method.similarity, method.masked_blocks) == ("dot", 0)
    tokenizer = open_clip.get_tokenizer("RN50")
    reference = ReferencePipeline(clip, tokenizer, tiny_sam, method, bundle.manifest.proposals)
    image, masks = (tensor.numpy() for tensor in make_inputs(40, 90, 130, seed=3))
    masks = masks[masks.any(axis=(1, 2))]
    config = risengine.RuntimeConfig(threads=1, strategy="global_local")  # the reference's
    with risengine.load(bundle.path, config) as engine:
        found, expected = engine.encode_image(image, masks), reference.encode_image(image, masks)
        error = np.linalg.norm(found.features - expected.features, axis=1) / np.linalg.norm(expected.features, axis=1)
        assert error.max() <= 1e-4
        for text in TEXTS:
            answers, wanted = engine.rank(found, text, len(masks)), reference.rank(expected, text, len(masks))
            scores = {answer.index: answer.score for answer in wanted}
            assert answers[0].index == wanted[0].index
            assert answers[0].phrase == wanted[0].phrase
            assert [scores[answer.index] for answer in answers] == pytest.approx(
                sorted(scores.values())[::-1], abs=1e-5
            )
            assert [answer.score for answer in answers] == pytest.approx(sorted(scores.values())[::-1], abs=1e-5)
        nothing = engine.encode_image(image, np.zeros((0, 90, 130), np.bool_))
        assert nothing.features.shape == (0, 24)
        assert engine.rank(nothing, TEXTS[0]) == []
