"""CLIP at true sizes with random weights: the exported graphs against the PyTorch reference and open_clip itself.

On two cores: ViT-B-32 and RN50 2 minutes, ViT-B-16 5, ViT-L-14 25 and 8 GB of memory; the others 4 to 6 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from true_size_samples import perturb

from risbench.reference.preprocess import token_weights
from risbench.reference.visual import VisualFeatures, encode_masks
from risengine.backends.onnx_session import OnnxSession
from risengine.config import RuntimeConfig
from risengine.method import Method
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.graphs import clip_graphs
from risexport.presets import Preset, method_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

TOLERANCE = 1e-4
MODELS: list[tuple[str, Preset]] = [
    ("ViT-B-32", "reference"),
    ("ViT-B-32", "clean"),
    ("RN50", "reference"),
    ("ViT-B-16", "reference"),
    ("ViT-L-14", "reference"),
]
PORTRAIT, LANDSCAPE = (411, 222), (240, 427)
COUNTS = [(1, PORTRAIT), (7, PORTRAIT), (64, LANDSCAPE), (200, LANDSCAPE)]
TEXTS = ["a", "the red mug left of the small green bottle", "something", "", "cup " * 75, "RED MUG!", "2 boxes"]
_REFERENCE_BATCH = 25
"""Masks that PyTorch describes at once; what it keeps of ViT-L-14 stays below 1 GB."""

Array = NDArray[Any]


def image_and_masks(count: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A noisy patchwork and masks: ellipses, rectangles with holes, one pixel in the corner, everything.

    The first is an ellipse; the second and third of several are the pixel, which no sample meets, and everything.
    """
    rng = np.random.default_rng(size[0])
    coarse = rng.integers(0, 256, (-(-size[0] // 30), -(-size[1] // 30), 3)).repeat(30, 0).repeat(30, 1)
    image = (coarse[: size[0], : size[1]] + rng.integers(-30, 31, (*size, 3))).clip(0, 255).astype(np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = np.zeros((count, *size), np.bool_)
    for index, mask in enumerate(masks):
        centre, radius = rng.random(2) * size, 3 + rng.random(2) ** 2 * np.array(size) / 2
        away = np.stack([(y - centre[0]) / radius[0], (x - centre[1]) / radius[1]])
        if index % 2:
            mask[:] = (np.abs(away).max(0) <= 1) & (rng.random(size) < 0.7)
        else:
            mask[:] = (away**2).sum(0) <= 1
        mask[tuple(centre.astype(int))] = True
    if count > 2:
        masks[1:3] = False
        masks[1, 0, 0] = True
        masks[2] = True
    return image, masks


@dataclass(frozen=True)
class TrueSize:
    """One model: its graphs, loaded, and what PyTorch computes; the model itself is gone."""

    proposal_encoder: OnnxSession
    text_encoder: OnnxSession
    method: Method
    features: dict[tuple[int, int], dict[str, Array]]
    tokens: Array
    texts: Array


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def true_size(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrueSize]:
    name, preset = request.param
    folder = tmp_path_factory.mktemp("graphs")
    clip, facts = load_clip(name)
    perturb(clip)
    method = method_for(preset, facts)
    specs = {plan.role: plan.export(folder) for plan in clip_graphs(clip, method)}
    features = {
        size: _reference(clip.visual, method, size, max(n for n, s in COUNTS if s == size)) for _, size in COUNTS
    }
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    with torch.inference_mode():
        texts = clip.encode_text(tokens, normalize=method.similarity == "dot").numpy()
    del clip
    encoders = [
        OnnxSession(folder / specs[role].file, specs[role], RuntimeConfig())
        for role in ("proposal_encoder", "text_encoder")
    ]
    yield TrueSize(*encoders, method, features, tokens.numpy(), texts)
    for encoder in encoders:
        encoder.close()
    for file in folder.iterdir():
        file.unlink()


def _reference(visual: nn.Module, method: Method, size: tuple[int, int], count: int) -> dict[str, Array]:
    image, masks = image_and_masks(count, size)
    assert _has_soft_and_empty(visual, masks, method)
    parts: list[VisualFeatures] = [
        encode_masks(visual, image, masks[start : start + _REFERENCE_BATCH], method)
        for start in range(0, count, _REFERENCE_BATCH)
    ]
    found = {
        name: torch.cat([getattr(part, name) for part in parts]).numpy()
        for name in ("global_features", "local_features", "features")
    }
    if method.similarity == "cosine":
        found["features"] = found["features"] / np.linalg.norm(found["features"], axis=1, keepdims=True)
    return found


def _has_soft_and_empty(visual: nn.Module, masks: NDArray[np.bool_], method: Method) -> bool:
    grid = getattr(visual, "grid_size", (method.image_size_px // 32,) * 2)
    weights = token_weights(torch.from_numpy(masks), grid, method)
    soft = ((weights > 0) & (weights < 1)).any()
    return bool(soft and (method.mask_pooling == "area" or not weights[1].any()))


def relative_error(actual: Array, expected: Array) -> float:
    """Returns the worst row's relative error in Euclidean norm."""
    difference = np.linalg.norm(actual.astype(np.float64) - expected, axis=1)
    return float((difference / np.linalg.norm(expected.astype(np.float64), axis=1)).max())


@pytest.mark.parametrize(("count", "size"), COUNTS)
def test_features_equal_the_reference(true_size: TrueSize, count: int, size: tuple[int, int]) -> None:
    expected = true_size.features[size]
    image, masks = image_and_masks(len(expected["features"]), size)
    weight = np.array(true_size.method.global_weight, np.float32)
    actual = true_size.proposal_encoder.run({"image": image, "masks": masks[:count], "global_weight": weight})
    for name, wanted in expected.items():
        error = relative_error(actual[name], wanted[:count])
        assert error <= TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("count", [1, len(TEXTS)])
def test_texts_equal_open_clips(true_size: TrueSize, count: int) -> None:
    actual = true_size.text_encoder.run({"tokens": true_size.tokens[:count]})["features"]
    assert relative_error(actual, true_size.texts[:count]) <= TOLERANCE
