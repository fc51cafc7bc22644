"""Two independent readings of the method: the reference here, and the fused encoder that is exported."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bench_samples import CLEAN, REFERENCE
from open_clip.model import CLIP

from risbench.reference.visual import encode_masks
from risengine.method import Method
from risexport.clip.vit import VitProposalEncoder


def _masks(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Rectangles, every second one riddled with holes; the first is one pixel, the last everything."""
    masks = np.zeros((count, *size), np.bool_)
    for index, mask in enumerate(masks):
        top, left = rng.integers(size[0] - 4), rng.integers(size[1] - 4)
        bottom, right = rng.integers(top + 1, size[0] + 1), rng.integers(left + 1, size[1] + 1)
        inside = rng.random((bottom - top, right - left)) < (0.6 if index % 2 else 1.0)
        inside[0, 0] = True
        mask[top:bottom, left:right] = inside
    masks[0], masks[-1] = False, True
    masks[0, size[0] // 2, 0] = True
    return masks


@pytest.mark.parametrize("method", [CLEAN, REFERENCE], ids=["clean", "reference"])
@pytest.mark.parametrize("size", [(37, 61), (90, 40)])
def test_fused_encoder_equals_the_reference(method: Method, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0])
    torch.manual_seed(0)
    vision = {"image_size": 48, "patch_size": 8, "width": 32, "head_width": 8, "layers": 5}
    clip = CLIP(24, vision, {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}).eval()
    with torch.no_grad():
        for parameter in clip.visual.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    masks = _masks(rng, 9, size)
    method = dataclasses.replace(method, global_weight=0.7)
    expected = encode_masks(clip.visual, image, masks, method)
    with torch.inference_mode():
        fused = VitProposalEncoder(clip.visual, method).eval()
        actual = fused(torch.from_numpy(image), torch.from_numpy(masks), torch.tensor(method.global_weight))
    unit = torch.nn.functional.normalize(expected.features, dim=1)
    for name, found, wanted in zip(
        ("global", "local", "mixed"), actual, (expected.global_features, expected.local_features, unit), strict=True
    ):
        error = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
        assert error.max() < 1e-4, f"{name}: relative error {error.max():.1e}"
