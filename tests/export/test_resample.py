"""Resize matrices against torch's own interpolation of crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from risexport.resample import ResizeKind, resize, resize_weights


def _interpolate(crop: torch.Tensor, size: tuple[int, int], kind: str) -> torch.Tensor:
    # float64, because torch's own float32 coordinates are off by up to 1e-4 px far from the origin
    batched = crop.double()[None]
    if kind == "bilinear":
        return F.interpolate(batched, size, mode="bilinear", antialias=False, align_corners=False)[0]
    return F.interpolate(batched, size, mode="bilinear", antialias=True, align_corners=False)[0]


def _area(crop: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Exact cell averages: repeat every pixel so that cells hold whole numbers of pixels, then average."""
    fine = crop.double().repeat_interleave(size[0], dim=-2).repeat_interleave(size[1], dim=-1)
    return F.avg_pool2d(fine[None], (crop.shape[-2], crop.shape[-1]))[0]


def _boxes(rng: np.random.Generator, count: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
    boxes = [(0, 0, height, width), (height - 1, width - 1, 1, 1), (0, 0, 1, width), (0, 0, height, 1)]
    while len(boxes) < count:
        y, x = int(rng.integers(height)), int(rng.integers(width))
        boxes.append((y, x, int(rng.integers(1, height - y + 1)), int(rng.integers(1, width - x + 1))))
    return boxes


@pytest.mark.parametrize("kind", ["antialias", "bilinear", "area"])
@pytest.mark.parametrize(
    ("height", "width", "out"), [(37, 53, 7), (37, 53, 64), (21, 90, 21), (5, 3, 14), (1, 400, 16)]
)
def test_crops_equal_interpolation(kind: ResizeKind, height: int, width: int, out: int) -> None:
    rng = np.random.default_rng(height * width + out)
    image = torch.from_numpy(rng.standard_normal((3, height, width)).astype(np.float32))
    boxes = _boxes(rng, 24, height, width)
    y, x, h, w = torch.tensor(boxes).unbind(1)
    rows = resize_weights(y, h, out, height, kind)
    columns = resize_weights(x, w, out, width, kind)
    actual = resize(image, rows[:, None], columns[:, None])
    for box, resized in zip(boxes, actual, strict=True):
        crop = image[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        expected = _area(crop, (out, out)) if kind == "area" else _interpolate(crop, (out, out), kind)
        torch.testing.assert_close(resized.double(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["antialias", "bilinear", "area"])
def test_far_from_the_origin(kind: ResizeKind) -> None:
    start, length, size = 7001, 907, 8192
    weights = resize_weights(torch.tensor([start]), torch.tensor([length]), 224, size, kind)[0]
    near = resize_weights(torch.tensor([0]), torch.tensor([length]), 224, length, kind)[0]
    torch.testing.assert_close(weights[:, start : start + length], near, rtol=0, atol=1e-7)
    assert weights[:, :start].count_nonzero() == 0
    assert weights[:, start + length :].count_nonzero() == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(224), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["antialias", "bilinear", "area"])
def test_out_length_pads_with_zero_rows(kind: ResizeKind) -> None:
    start, length = torch.tensor([0, 0]), torch.tensor([40, 40])
    padded = resize_weights(start, length, 64, 40, kind, out_length=torch.tensor([51, 64]))
    torch.testing.assert_close(padded[0, :51], resize_weights(start, length, 51, 40, kind)[0], rtol=0, atol=0)
    assert padded[0, 51:].count_nonzero() == 0
    torch.testing.assert_close(padded[1], resize_weights(start, length, 64, 40, kind)[1], rtol=0, atol=0)


def test_area_of_an_untouched_cell_is_exactly_zero() -> None:
    mask = torch.zeros(45, 67)
    mask[20:31, 10:19] = 1
    rows = resize_weights(torch.tensor([0]), torch.tensor([45]), 7, 45, "area")
    columns = resize_weights(torch.tensor([0]), torch.tensor([67]), 7, 67, "area")
    cells = resize(mask, rows, columns)[0]
    touched = torch.zeros(7, 7, dtype=torch.bool)
    touched[20 * 7 // 45 : -(-31 * 7 // 45), 10 * 7 // 67 : -(-19 * 7 // 67)] = True
    assert torch.equal(cells > 0, touched)
