"""The SAM graphs against segment-anything's own predictor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from risengine.backends.onnx_session import OnnxSession
from risengine.manifest import Role
from risexport.sam.decoders import MaskDecoder, PointDecoder
from risexport.sam.image import ImageEncoder, ImageProjector, fitted_size

SIZES = [(480, 640), (123, 211), (37, 500), (719, 1081), (64, 64), (1, 90), (1200, 31)]


def relative(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    a, e = torch.as_tensor(actual).double(), torch.as_tensor(expected).double()
    return float((a - e).norm() / e.norm())


def random_image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("side_px", "size"),
    [*((side_px, size) for side_px in (64, 320) for size in SIZES), (1024, (480, 640)), (1024, (1200, 31))],
)
def test_resize_is_pillows(make_sam: Callable[..., Sam], side_px: int, size: tuple[int, int]) -> None:
    sam = make_sam(size_px=side_px)
    image = random_image(size)
    height, width = (max(1, side) for side in ResizeLongestSide.get_preprocess_shape(*size, side_px))
    with torch.inference_mode():
        actual = ImageEncoder(sam).preprocess(torch.from_numpy(image)) * sam.pixel_std + sam.pixel_mean
    actual = actual.permute(1, 2, 0)[:height, :width].numpy()

    squeezed = Image.fromarray(image).resize((width, size[0]), Image.Resampling.BILINEAR)
    expected = np.asarray(squeezed.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    difference = np.abs(actual - expected)
    assert difference.max() < 1.01
    assert (difference > 0.5).mean() < 0.01  # halves that float32 and Pillow's fixed point round differently

    if side_px * min(size) >= max(size):  # else segment-anything fails, for nothing is left of the short side
        difference = np.abs(actual - ResizeLongestSide(side_px).apply_image(image))
        assert difference.max() < 1.01
        # Pillow 13 resizes images more than twice as tall as wide along y first: other pixels are rounded.
        assert size[0] > 2 * size[1] or (difference > 0.5).mean() < 0.01


@pytest.mark.parametrize("size", SIZES[:4])
def test_padding_is_zero_after_normalisation(tiny_sam: Sam, size: tuple[int, int]) -> None:
    height, width = ResizeLongestSide.get_preprocess_shape(*size, 64)
    with torch.inference_mode():
        pixels = ImageEncoder(tiny_sam).preprocess(torch.from_numpy(random_image(size)))
    assert pixels.shape == (3, 64, 64)
    assert not pixels[:, height:].any()
    assert not pixels[:, :, width:].any()
    assert pixels[:, :height, :width].abs().sum() > 0


def test_fitted_size_is_segment_anythings() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 8193, (2000, 2))
    for target in (1024, 320):
        expected = [ResizeLongestSide.get_preprocess_shape(*size, target) for size in sizes.tolist()]
        actual = [tuple(fitted_size(torch.from_numpy(size), target).tolist()) for size in sizes]
        assert actual == expected


def stock_decode(
    sam: Sam, embedding: Tensor, size: tuple[int, int], points: np.ndarray, labels: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Logits (P, 3, 4h, 4w) and IoUs (P, 3) of SamPredictor; trailing labels 2, 3 are a box, -1 stands for none."""
    predictor = SamPredictor(sam)
    predictor.features, predictor.is_image_set = embedding, True
    predictor.original_size = predictor.input_size = size
    moved = torch.from_numpy(predictor.transform.apply_coords(points, size)).float()
    boxes = None
    if labels[0, -1] == 3:
        moved, labels, boxes = moved[:, :-2], labels[:, :-2], moved[:, -2:].flatten(1)
    else:
        moved, labels = moved[:, :-1], labels[:, :-1]
    given = (moved, torch.from_numpy(labels)) if moved.shape[1] else (None, None)
    _, scores, logits = predictor.predict_torch(*given, boxes)
    return logits, scores


PROMPTS = {
    "point": [1, -1],
    "background": [1, 0, -1],
    "box": [2, 3],
    "box and points": [1, 0, 1, 2, 3],
    "many points": [1] * 11 + [-1],
}


def random_prompts(kind: str, count: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.tile(np.array(PROMPTS[kind], np.int64), (count, 1))
    points = np.random.default_rng(count).random((*labels.shape, 2)) * size[::-1]
    return points.astype(np.float32), labels


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("size", [(480, 640), (53, 37)])
def test_decoder_equals_stock(
    tiny_sam: Sam, sessions: dict[Role, OnnxSession], kind: str, count: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(count)
    embedding = torch.randn(1, 32, 8, 8)
    points, labels = random_prompts(kind, count, size)
    expected, scores = stock_decode(tiny_sam, embedding, size, points, labels)
    index = torch.arange(count).repeat_interleave(3)
    with torch.inference_mode():
        ious, tokens, features = PointDecoder(tiny_sam)(
            *ImageProjector(tiny_sam)(embedding),
            torch.tensor(size),
            torch.from_numpy(points),
            torch.from_numpy(labels),
        )
        logits = MaskDecoder(tiny_sam)(features, tokens.flatten(0, 1), index)
    assert relative(ious, scores) <= 1e-4
    assert relative(logits, expected.flatten(0, 1)) <= 1e-4

    decoded = sessions["point_decoder"].run(
        {
            **sessions["image_projector"].run({"image_embedding": embedding.numpy()}),
            "image_size": np.array(size, np.int64),
            "points": points,
            "labels": labels,
        }
    )
    rows = {"image_features": decoded["image_features"], "prompt_index": index.numpy()}
    tokens = decoded["mask_tokens"].reshape(3 * count, -1)
    logits = sessions["mask_decoder"].run({**rows, "mask_tokens": tokens})["logits"]
    assert relative(decoded["iou_predictions"], scores) <= 1e-3
    assert relative(logits, expected.flatten(0, 1)) <= 1e-3


def test_mask_decoder_takes_any_selection(sessions: dict[Role, OnnxSession]) -> None:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((4, 64, 32)).astype(np.float32)
    tokens = rng.standard_normal((5, 4)).astype(np.float32)
    index = np.array([3, 0, 3, 1, 1])
    session = sessions["mask_decoder"]
    together = session.run({"image_features": features, "mask_tokens": tokens, "prompt_index": index})["logits"]
    assert together.shape == (5, 32, 32)
    for mask, row in enumerate(index):
        feeds = {
            "image_features": features[[row]],
            "mask_tokens": tokens[[mask]],
            "prompt_index": np.zeros(1, np.int64),
        }
        np.testing.assert_allclose(session.run(feeds)["logits"][0], together[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES[:5])
def test_image_encoder_equals_predictor(
    tiny_sam: Sam, sessions: dict[Role, OnnxSession], size: tuple[int, int]
) -> None:
    image = random_image(size)
    predictor = SamPredictor(tiny_sam)
    predictor.set_image(image)
    embedding = sessions["image_encoder"].run({"image": image})["image_embedding"]
    assert relative(embedding, predictor.get_image_embedding()) <= 5e-3  # a pixel rounded the other way shows in 64 px
    with torch.inference_mode():
        expected = ImageEncoder(tiny_sam)(torch.from_numpy(image))
    assert relative(embedding, expected) <= 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_image_encoder_survives_extreme_sizes(sessions: dict[Role, OnnxSession], size: tuple[int, int]) -> None:
    embedding = sessions["image_encoder"].run({"image": random_image(size)})["image_embedding"]
    assert np.isfinite(embedding).all()


def test_decoder_needs_a_third_of_the_arithmetic(make_sam: Callable[..., Sam]) -> None:
    """At segment-anything's true width and 16 points of a grid."""
    sam = make_sam(size_px=512, channels=256, mlp=2048)
    embedding, size = torch.randn(1, 256, 64, 64), (480, 640)
    points, labels = random_prompts("point", 4, size)
    with torch.inference_mode(), FlopCounterMode(display=False) as stock:
        stock_decode(sam, embedding, size, points, labels)
    projections = ImageProjector(sam)(embedding)  # once an image
    inputs = (*projections, torch.tensor(size), torch.from_numpy(points), torch.from_numpy(labels))
    with torch.inference_mode(), FlopCounterMode(display=False) as ours:
        PointDecoder(sam)(*inputs)
    upscaling = 4 * 2 * 4096 * (256 * 256 + 4 * 64 * 128)  # of the mask branch, which ours leaves to the mask decoder
    assert ours.get_total_flops() < 0.3 * (stock.get_total_flops() - upscaling)
