"""Inputs and ways to run proposal encoders, for the tests of every kind of image tower."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from risengine.manifest import GraphSpec
from risengine.method import Method
from risexport.checks.plain import plain_features
from risexport.onnx_export import ExportRequest, export_graph
from risexport.presets import ClipFacts, TowerFamily

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def clip_facts(image_size: int, family: TowerFamily = "vit") -> ClipFacts:
    return ClipFacts("test", "random", "", family, image_size, 64, 77, CLIP_MEAN, CLIP_STD)


def random_tower(seed: int = 0, quick_gelu: bool = False, **overrides: object) -> VisionTransformer:
    torch.manual_seed(seed)
    vision = {"layers": 4, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 40, **overrides}
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(32, vision, text, quick_gelu=quick_gelu).eval()
    return _perturbed(model.visual, seed)


def _perturbed(tower: nn.Module, seed: int) -> nn.Module:
    """Moves biases and norms off their initial zeros and ones, which would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
            elif "ln_" in name:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    return tower.requires_grad_(False)


def make_inputs(count: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random image and rectangles, ellipses, specks; among several masks one is empty, one full, one a pixel."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), bool)
    for index in range(count):
        y, x = rng.integers(height), rng.integers(width)
        h, w = 1 + rng.integers(height - y), 1 + rng.integers(width - x)
        if index % 2:
            masks[index, y : y + h, x : x + w] = True
        else:
            masks[index] = ((rows - y) / h) ** 2 + ((columns - x) / w) ** 2 <= 0.3
    if count > 4:
        masks[1], masks[2] = False, True
        masks[3] = False
        masks[3, height // 3, 0] = True
    return torch.from_numpy(image), torch.from_numpy(masks)


def plainly(tower: nn.Module, method: Method, image: Tensor, masks: Tensor) -> list[Tensor]:
    """Global, local and mixed features of the plain computation in float64."""
    global_features, local_features = plain_features(deepcopy(tower).double(), method, image, masks)
    features = method.global_weight * global_features + (1 - method.global_weight) * local_features
    if method.similarity == "cosine":
        features = F.normalize(features, dim=-1)
    return [global_features, local_features, features]


def run_module(encoder: nn.Module, image: Tensor, masks: Tensor, weight: float) -> list[Tensor]:
    with torch.inference_mode():
        return list(encoder(image, masks, torch.tensor(weight)))


def export_encoder(encoder: nn.Module, path: Path) -> GraphSpec:
    image, masks = make_inputs(5, 30, 41)
    request = ExportRequest(
        path=path,
        inputs={"image": image, "masks": masks, "global_weight": torch.tensor(0.95)},
        outputs=("global_features", "local_features", "features"),
        dynamic={"image": {0: "H", 1: "W"}, "masks": {0: "N", 1: "H", 2: "W"}},
    )
    return export_graph(encoder, request)


def open_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_graph(session: ort.InferenceSession, image: Tensor, masks: Tensor, weight: float) -> list[Tensor]:
    feeds = {"image": image.numpy(), "masks": masks.numpy(), "global_weight": np.array(weight, np.float32)}
    return [torch.from_numpy(value) for value in session.run(None, feeds)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, e in zip(("global", "local", "mix"), actual, expected, strict=True):
        error = ((a.double() - e.double()).norm(dim=-1) / e.double().norm(dim=-1)).max()
        assert error <= tolerance, f"{name}: relative error {error:.2e}"


def assert_serves_all_sizes(session: ort.InferenceSession, encoder: nn.Module) -> None:
    """Runs a graph at sizes other than its examples', and at the extremes of a mask's coverage."""
    for count, height, width in [(1, 33, 70), (7, 61, 44), (64, 48, 97), (2, 1, 200), (3, 40, 40)]:
        image, masks = make_inputs(count, height, width, seed=count)
        assert_close(run_graph(session, image, masks, 0.3), run_module(encoder, image, masks, 0.3), 1e-4)
    image, _ = make_inputs(1, 20, 30)
    nothing = torch.zeros(1, 20, 30, dtype=torch.bool)
    for masks in (nothing, ~nothing):
        assert_close(run_graph(session, image, masks, 1.0), run_module(encoder, image, masks, 1.0), 1e-4)
