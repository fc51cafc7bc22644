"""What the graphs should compute: random inputs of real size, and the libraries' own outputs for them.

The reference of each graph is segment-anything's predictor, open_clip's ``encode_text``, or the method written plainly
in :mod:`.plain`; never the module that is exported. It is computed once: :mod:`.parity` measures the graphs against it,
and :mod:`.vectors` keeps a part for the bundle. That part includes the image, so the image is made to compress well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import CLIP
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor

from risengine.method import Method
from risengine.vectors import Description, expand_blocks
from risexport.checks.plain import plain_features
from risexport.tokenizer import VOCABULARY_SIZE

__all__ = [
    "ClipReference",
    "Decoding",
    "SamReference",
    "clip_reference",
    "random_image",
    "random_masks",
    "sam_reference",
]

IMAGE_SIZE = (375, 530)
"""Not the size of the exporter's examples, so that a size which became part of a graph is seen."""

SMALL_SIZE = (90, 61)
"""Another size, upright and smaller than what CLIP sees, so that the resize enlarges."""

PROMPTS = 6
MASKS = 24
SMALL_MASKS = 3
TEXTS = 128

_BLOCKS = 6  # at most, along each side of the embedding made of blocks
_PATCH_PX = 40
_WIDEST_PX = 7  # of a chequer's fields
_SPECKLES = 1 / 128  # share of pixels; the image takes 14 kB compressed, with noise in every pixel 600

Array = NDArray[Any]


@dataclass(frozen=True)
class Decoding:
    """P prompts and what segment-anything decodes from an embedding of the image.

    Attributes:
        embedding: (1, C, h, w) float32.
        points: (P, K, 2) float32 xy px.
        labels: (P, K) int64, as ``point_decoder`` takes them.
        iou_predictions: (P, 3) float32.
        logits: (3P, 4h, 4w) float32.
    """

    embedding: NDArray[np.float32]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    iou_predictions: NDArray[np.float32]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class SamReference:
    """Inputs and outputs of SAM.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        embedding: (1, C, h, w) float32, of the image.
        decodings: Of that embedding: points, and points with boxes.
        blocks: (C, a, b) float16, values of the embedding in coarse steps.
        projections: What the decoder's first block makes of the embedding in these steps, (1, h * w, D) float32 by the
            names of ``image_projector``'s outputs.
        block_decodings: Of that embedding, a third of the prompts.
    """

    image: NDArray[np.uint8]
    embedding: NDArray[np.float32]
    decodings: tuple[Decoding, ...]
    blocks: NDArray[np.float16]
    projections: dict[str, NDArray[np.float32]]
    block_decodings: tuple[Decoding, ...]


@dataclass(frozen=True)
class ClipReference:
    """Inputs and outputs of CLIP.

    Attributes:
        descriptions: Masks and their features, in the image of :class:`SamReference` and one of :data:`SMALL_SIZE`.
        tokens: (T, context_length) int64.
        text_features: (T, E) float32.
    """

    descriptions: tuple[Description, ...]
    tokens: NDArray[np.int64]
    text_features: NDArray[np.float32]


def sam_reference(sam: Sam) -> SamReference:
    """Computes with ``SamPredictor`` on a random image and random prompts."""
    rng = np.random.default_rng(0)
    image = random_image(IMAGE_SIZE)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    embedding = predictor.get_image_embedding().numpy()
    size = (embedding.shape[2], embedding.shape[3])
    rows, columns = (-(-length // _BLOCKS) for length in size)
    blocks = embedding[0, :, ::rows, ::columns].astype(np.float16)
    coarse = expand_blocks(blocks, size)
    prompts = [_random_prompts(rng, boxes) for boxes in (False, True)]
    few = [(points[: PROMPTS // 3], labels[: PROMPTS // 3]) for points, labels in prompts]
    return SamReference(
        image=image,
        embedding=embedding,
        decodings=tuple(_decode(predictor, embedding, *given) for given in prompts),
        blocks=blocks,
        projections=_project(sam, coarse),
        block_decodings=tuple(_decode(predictor, coarse, *given) for given in few),
    )


def clip_reference(clip: CLIP, method: Method) -> ClipReference:
    """Computes with open_clip on random images, masks and tokens.

    Args:
        clip: open_clip's ``CLIP`` or ``CustomTextCLIP``.
        method: Values of the method.
    """
    rng = np.random.default_rng(1)
    descriptions = []
    for size, count in ((IMAGE_SIZE, MASKS), (SMALL_SIZE, SMALL_MASKS)):
        image, masks = random_image(size), random_masks(rng, size, count)
        descriptions.append(_describe(clip, method, image, masks))
    tokens = _random_tokens(rng, clip)
    with torch.inference_mode():
        texts = clip.encode_text(torch.from_numpy(tokens), normalize=method.similarity == "dot").numpy()
    return ClipReference(tuple(descriptions), tokens, texts)


def _describe(clip: CLIP, method: Method, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Description:
    pair = plain_features(clip.visual, method, torch.from_numpy(image), torch.from_numpy(masks))
    features = method.global_weight * pair[0] + (1 - method.global_weight) * pair[1]
    if method.similarity == "cosine":
        features = features / features.norm(dim=1, keepdim=True)
    return Description(image, masks, pair[0].numpy(), pair[1].numpy(), features.numpy())


def _project(sam: Sam, embedding: Array) -> dict[str, NDArray[np.float32]]:
    first = sam.mask_decoder.transformer.layers[0]
    with torch.inference_mode():
        image = torch.from_numpy(embedding) + sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        cells = image.flatten(2).transpose(1, 2)
        located = (image + sam.prompt_encoder.get_dense_pe()).flatten(2).transpose(1, 2)
        projections = {
            "image_cells": cells,
            "image_keys": first.cross_attn_token_to_image.k_proj(located),
            "image_values": first.cross_attn_token_to_image.v_proj(cells),
            "image_queries": first.cross_attn_image_to_token.q_proj(located),
        }
    return {name: value.numpy() for name, value in projections.items()}


def _decode(predictor: SamPredictor, embedding: Array, points: Array, labels: Array) -> Decoding:
    """Decodes prompts with segment-anything; where they hold no box it is given no padding point, and adds its own."""
    boxes = labels[0, -1] == 3
    moved = torch.from_numpy(predictor.transform.apply_coords(points, IMAGE_SIZE).astype(np.float32))
    end = -2 if boxes else -1
    corners: Tensor | None = moved[:, -2:].flatten(1) if boxes else None
    predictor.features = torch.from_numpy(embedding)
    _, scores, logits = predictor.predict_torch(
        moved[:, :end], torch.from_numpy(labels[:, :end]), corners, return_logits=True
    )
    return Decoding(embedding, points, labels, scores.numpy(), logits.flatten(0, 1).numpy())


def _random_prompts(rng: np.random.Generator, boxes: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Makes a foreground point and the padding point a prompt, or a point of each kind and the corners of a box."""
    height, width = IMAGE_SIZE
    points = rng.random((PROMPTS, 2 if boxes else 1, 2)) * (width, height)
    last = np.sort(rng.random((PROMPTS, 2, 2)), axis=1) * (width, height) if boxes else np.zeros_like(points)
    labels = np.tile(np.array([1, 0, 2, 3] if boxes else [1, -1], np.int64), (PROMPTS, 1))
    return np.concatenate([points, last], axis=1).astype(np.float32), labels


def random_image(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Makes chequered patches with speckles, so that no two regions look alike and no resize is trivial.

    It is the same for SAM and for CLIP.
    """
    rng = np.random.default_rng(size)
    height, width = size
    rows, columns = (-(-length // _PATCH_PX) for length in size)
    colours = rng.integers(0, 256, (3, rows, columns, 3), np.uint8)
    ground, field, speckle = colours.repeat(_PATCH_PX, 1).repeat(_PATCH_PX, 2)[:, :height, :width]
    heights_px = rng.integers(1, _WIDEST_PX + 1, rows).repeat(_PATCH_PX)[:height, None]
    widths_px = rng.integers(1, _WIDEST_PX + 1, columns).repeat(_PATCH_PX)[:width]
    y, x = np.mgrid[:height, :width]
    chequered = np.where((y // heights_px + x // widths_px)[..., None] % 2, field, ground)
    image: NDArray[np.uint8] = np.where(rng.random((height, width, 1)) < _SPECKLES, speckle, chequered)
    return image


def random_masks(rng: np.random.Generator, size: tuple[int, int], count: int) -> NDArray[np.bool_]:
    """Makes ellipses of all sizes, one mask of a single pixel and one that covers the image."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    centres = rng.random((count, 2)) * (height, width)
    radii = 3 + rng.random((count, 2)) ** 3 * (height / 2, width / 2)
    masks = np.stack(
        [((y - a) / r) ** 2 + ((x - b) / s) ** 2 <= 1 for (a, b), (r, s) in zip(centres, radii, strict=True)]
    )
    masks[0] = True
    masks[1] = False
    masks[1, height // 3, width // 3] = True
    return masks


def _random_tokens(rng: np.random.Generator, clip: CLIP) -> NDArray[np.int64]:
    """Makes texts of 1 token to the context's end: start of text, words, end of text (the highest id), zeros.

    Half of the words are drawn from those that no other word's embedding equals. A model trained on few words leaves
    the others alike, and a graph that mixed up the trained ones would hardly show among them.
    """
    start, end = VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1
    table = getattr(clip, "text", clip).token_embedding.weight.detach().numpy()
    rows = [row.tobytes() for row in table[:start]]
    count = Counter(rows)
    words = np.arange(1, start)
    single = np.array([word for word in words if count[rows[word]] == 1])
    tokens = np.zeros((TEXTS, clip.context_length), np.int64)
    for row, length in zip(tokens, np.linspace(1, clip.context_length - 2, TEXTS).astype(int), strict=True):
        drawn = rng.choice(words, length)
        if len(single):
            drawn = np.where(rng.random(length) < 0.5, rng.choice(single, length), drawn)
        row[: length + 2] = [start, *drawn, end]
    return tokens
