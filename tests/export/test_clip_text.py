"""The text encoder against open_clip's encode_text, in torch and through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import open_clip
import pytest
import torch
from torch import Tensor

from risengine.errors import InputError
from risexport.clip.clip_text import ClipTextEncoder
from risexport.onnx_export import ExportRequest, export_graph

VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
TEXTS = ["the red mug", "a", "", "the small green bottle behind the blue box", "cup " * 75]


def _clip(quick_gelu: bool = False, custom: bool = False, **overrides: object) -> torch.nn.Module:
    torch.manual_seed(3)
    build = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    clip = build(24, VISION, {**TEXT, **overrides}, quick_gelu=quick_gelu).eval().requires_grad_(False)
    for name, parameter in clip.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(torch.randn_like(parameter) * 0.3)
        elif "embedding" in name:
            parameter.copy_(torch.randn_like(parameter))
    return clip


def _assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert ((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).max() <= tolerance


@pytest.mark.parametrize(
    "options", [{}, {"quick_gelu": True}, {"custom": True}, {"proj_bias": True}, {"proj_type": "none"}]
)
def test_equals_encode_text(options: dict[str, object]) -> None:
    clip = _clip(**options)
    tokens = open_clip.tokenize(TEXTS)
    with torch.inference_mode():
        _assert_close(ClipTextEncoder(clip)(tokens), clip.encode_text(tokens), 1e-5)
        _assert_close(ClipTextEncoder(clip, layout="dense")(tokens), clip.encode_text(tokens), 1e-5)


def test_normalised_features_have_unit_length() -> None:
    clip = _clip()
    tokens = open_clip.tokenize(TEXTS)
    with torch.inference_mode():
        features = ClipTextEncoder(clip, normalised=True)(tokens)
        _assert_close(features, clip.encode_text(tokens, normalize=True), 1e-5)


@pytest.mark.parametrize("compact", [False, True])
def test_graph_serves_any_number_of_texts(compact: bool, tmp_path: Path) -> None:
    clip = _clip()
    if compact:
        clip.token_embedding.weight[1000:49000] = clip.token_embedding.weight[7].clone()
    encoder = ClipTextEncoder(clip)
    path = tmp_path / "text.onnx"
    inputs = {"tokens": torch.ones(2, 77, dtype=torch.int64)}
    spec = export_graph(encoder, ExportRequest(path, inputs, ("features",), {"tokens": {0: "T"}}))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    tokens = open_clip.tokenize(TEXTS)
    for part in (tokens, tokens[:1], tokens[4:], tokens[:2]):
        with torch.inference_mode():
            expected = clip.encode_text(part)
        _assert_close(torch.from_numpy(session.run(None, {"tokens": part.numpy()})[0]), expected, 1e-4)
    assert (spec.size_bytes < 1_000_000) == compact
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("LayerNormalization") == 7
    assert operators.count("Gelu") == 3
    assert operators.count("Softmax") == 3


def test_compaction_keeps_every_distinct_row() -> None:
    clip = _clip()
    clip.token_embedding.weight[100:] = clip.token_embedding.weight[100].clone()
    encoder = ClipTextEncoder(clip)
    assert encoder.table.shape == (101, 32)
    assert encoder.id_map is not None
    np.testing.assert_array_equal(encoder.table[encoder.id_map], clip.token_embedding.weight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"no_causal_mask": True}, "causal"),
        ({"pool_type": "last"}, "'last'"),
        ({"embed_cls": True}, "causal"),
        ({"qk_norm": True}, "text tower has blocks"),
    ],
)
def test_other_towers_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipTextEncoder(_clip(custom=True, **overrides))
