"""Exported graphs against the libraries' own computation, on random inputs of real size.

The reference of each graph is segment-anything's predictor, open_clip's ``encode_text``, or the method written plainly
in :mod:`risexport.plain`; never the module that was exported. A graph past its tolerance fails the build.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import CLIP
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor

from risengine.errors import RisError
from risengine.manifest import Method, Parity, Role
from risengine.session import Session
from risexport.plain import plain_features
from risexport.tokenizer import VOCABULARY_SIZE

__all__ = ["TOLERANCES", "ParityError", "Tolerances", "measure_clip", "measure_sam"]

IMAGE_SIZE = (375, 530)
"""Not the size of the exporter's examples, so that a size which became part of a graph is seen."""

PROMPTS = 6
MASKS = 24
TEXTS = 128

_logger = logging.getLogger(__name__)

Array = NDArray[Any]


class ParityError(RisError, RuntimeError):
    """An exported graph differs from the PyTorch reference by more than its tolerance."""


@dataclass(frozen=True)
class Tolerances:
    """Bounds at one precision, each for the worst row (mask, text or prompt) of a tensor.

    Attributes:
        feature_error: Highest relative error of CLIP's features.
        embedding_error: Highest relative error of SAM's image embedding. The widest, because the resize stores 8-bit
            values: halves that it rounds the other way than Pillow move a few pixels by one grey level.
        decoder_error: Highest relative error of SAM's predicted IoUs and logits, given the same embedding.
        cosine: Lowest cosine of CLIP's features.
        mask_iou: Lowest IoU of the masks at logit 0.
        selection_agreement: Lowest share of texts for which both choose the same mask.
    """

    feature_error: float
    embedding_error: float
    decoder_error: float
    cosine: float
    mask_iou: float
    selection_agreement: float


TOLERANCES: dict[str, Tolerances] = {
    "fp32": Tolerances(
        feature_error=1e-4,
        embedding_error=5e-3,
        decoder_error=1e-3,
        cosine=0.99999,
        mask_iou=0.99,
        selection_agreement=0.99,
    ),
}


def measure_sam(sessions: Mapping[Role, Session], sam: Sam, tolerances: Tolerances) -> list[Parity]:
    """Compares the three SAM graphs with ``SamPredictor`` on a random image and random prompts.

    Args:
        sessions: Sessions of ``image_encoder``, ``point_decoder`` and ``mask_decoder``.
        sam: The model that was exported.
        tolerances: Bounds of the precision that was built.

    Returns:
        Measured figures, all within the tolerances.

    Raises:
        ParityError: A figure is past its tolerance.
    """
    rng = np.random.default_rng(0)
    image = _random_image(rng)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    expected = predictor.get_image_embedding()
    embedding = sessions["image_encoder"].run({"image": image})["image_embedding"]
    figure = _error(embedding, expected.numpy())
    rows = [_judge("image_encoder", "image_embedding", "relative_error", figure, tolerances.embedding_error)]

    ious, expected_ious, logits, expected_logits = [], [], [], []
    for boxes in (False, True):
        points, labels = _random_prompts(rng, boxes)
        masks, scores = _stock_masks(predictor, points, labels, boxes)
        if not boxes:
            points = np.concatenate([points, np.zeros_like(points[:, :1])], axis=1)
            labels = np.concatenate([labels, np.full_like(labels[:, :1], -1)], axis=1)
        decoded = sessions["point_decoder"].run(
            {
                "image_embedding": expected.numpy(),
                "image_size": np.array(IMAGE_SIZE, np.int64),
                "points": points,
                "labels": labels,
            }
        )
        feeds = {
            "image_features": decoded["image_features"],
            "mask_tokens": decoded["mask_tokens"].reshape(3 * PROMPTS, -1),
            "prompt_index": np.arange(PROMPTS, dtype=np.int64).repeat(3),
        }
        ious.append(decoded["iou_predictions"])
        expected_ious.append(scores)
        logits.append(sessions["mask_decoder"].run(feeds)["logits"])
        expected_logits.append(masks.reshape(logits[-1].shape))
    bound = tolerances.decoder_error
    figure = _error(np.concatenate(ious), np.concatenate(expected_ious))
    rows.append(_judge("point_decoder", "iou_predictions", "relative_error", figure, bound))
    actual_masks, expected_masks = np.concatenate(logits), np.concatenate(expected_logits)
    rows.append(_judge("mask_decoder", "logits", "relative_error", _error(actual_masks, expected_masks), bound))
    overlap = _lowest_iou(actual_masks > 0, expected_masks > 0)
    rows.append(_judge("mask_decoder", "logits", "mask_iou", overlap, tolerances.mask_iou))
    return rows


def measure_clip(sessions: Mapping[Role, Session], clip: CLIP, method: Method, tolerances: Tolerances) -> list[Parity]:
    """Compares the two CLIP graphs with open_clip on a random image, random masks and random tokens.

    Args:
        sessions: Sessions of ``proposal_encoder`` and ``text_encoder``.
        clip: The open_clip model that was exported.
        method: Values of the method.
        tolerances: Bounds of the precision that was built.

    Returns:
        Measured figures, all within the tolerances.

    Raises:
        ParityError: A figure is past its tolerance.
    """
    rng = np.random.default_rng(1)
    image, masks = _random_image(rng), _random_masks(rng)
    reference = plain_features(clip.visual, method, torch.from_numpy(image), torch.from_numpy(masks))
    expected_global, expected_local = (features.numpy() for features in reference)
    share = method.global_weight
    mixed = share * expected_global + (1 - share) * expected_local
    if method.similarity == "cosine":
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    expected = {"global_features": expected_global, "local_features": expected_local, "features": mixed}
    described = sessions["proposal_encoder"].run(
        {"image": image, "masks": masks, "global_weight": np.array(share, np.float32)}
    )
    rows = []
    for name, value in expected.items():
        rows += _judge_features("proposal_encoder", name, described[name], value, tolerances)

    tokens = _random_tokens(rng, clip)
    with torch.inference_mode():
        expected_texts = clip.encode_text(torch.from_numpy(tokens)).numpy()
    texts = sessions["text_encoder"].run({"tokens": tokens})["features"]
    rows += _judge_features("text_encoder", "features", texts, expected_texts, tolerances)
    chosen = (texts @ described["features"].T).argmax(1)
    agreement = float((chosen == (expected_texts @ expected["features"].T).argmax(1)).mean())
    bound = tolerances.selection_agreement
    return [*rows, _judge("proposal_encoder", "features", "selection_agreement", agreement, bound)]


Measure = Literal["relative_error", "cosine", "mask_iou", "selection_agreement"]


def _judge(role: Role, tensor: str, measure: Measure, value: float, tolerance: float) -> Parity:
    within = value <= tolerance if measure == "relative_error" else value >= tolerance  # NaN is never within
    _logger.info("%s %s: %s %.3g (tolerance %g)", role, tensor, measure, value, tolerance)
    if not within:
        side = "at most" if measure == "relative_error" else "at least"
        raise ParityError(
            f"{role}: {measure} of {tensor} against the PyTorch reference is {value:.3g}; expected {side} "
            f"{tolerance:g}. No bundle was written; build with another precision, or report this model."
        )
    return Parity(role, tensor, measure, value, tolerance)


def _judge_features(role: Role, tensor: str, actual: Array, expected: Array, tolerances: Tolerances) -> list[Parity]:
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    cosine = (a * e).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(e, axis=1))
    return [
        _judge(role, tensor, "relative_error", _error(actual, expected), tolerances.feature_error),
        _judge(role, tensor, "cosine", float(cosine.min()), tolerances.cosine),
    ]


def _error(actual: Array, expected: Array) -> float:
    """Returns the greatest relative error of a row, |a - e| / |e| in Euclidean norm."""
    a, e = (value.astype(np.float64).reshape(len(value), -1) for value in (actual, expected))
    return float((np.linalg.norm(a - e, axis=1) / np.linalg.norm(e, axis=1)).max())


def _lowest_iou(actual: Array, expected: Array) -> float:
    intersection = (actual & expected).sum((1, 2))
    union = (actual | expected).sum((1, 2))
    return float(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)).min())


def _stock_masks(predictor: SamPredictor, points: Array, labels: Array, boxes: bool) -> tuple[Array, Array]:
    """Decodes with segment-anything: low-resolution logits (P, 3, 4h, 4w) and predicted IoUs (P, 3), float32."""
    moved = torch.from_numpy(predictor.transform.apply_coords(points, IMAGE_SIZE).astype(np.float32))
    corners: Tensor | None = None
    if boxes:
        moved, corners = moved[:, :-2], moved[:, -2:].flatten(1)
        labels = labels[:, :-2]
    _, scores, logits = predictor.predict_torch(moved, torch.from_numpy(labels), corners, return_logits=True)
    return logits.numpy(), scores.numpy()


def _random_prompts(rng: np.random.Generator, boxes: bool) -> tuple[Array, Array]:
    """Makes a foreground point a prompt, or one of each kind and the two corners of a box."""
    height, width = IMAGE_SIZE
    points = rng.random((PROMPTS, 2 if boxes else 1, 2)) * (width, height)
    if not boxes:
        return points.astype(np.float32), np.ones((PROMPTS, 1), np.int64)
    corners = np.sort(rng.random((PROMPTS, 2, 2)), axis=1) * (width, height)
    labels = np.tile(np.array([1, 0, 2, 3], np.int64), (PROMPTS, 1))
    return np.concatenate([points, corners], axis=1).astype(np.float32), labels


def _random_image(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Makes patches of colour with noise, so that no two regions look alike and no resize is trivial."""
    height, width = IMAGE_SIZE
    coarse = rng.integers(0, 256, (-(-height // 40), -(-width // 40), 3))
    fine = coarse.repeat(40, 0).repeat(40, 1)[:height, :width] + rng.integers(-30, 31, (height, width, 3))
    return fine.clip(0, 255).astype(np.uint8)


def _random_masks(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Makes ellipses of all sizes, one mask of a single pixel and one that covers the image."""
    height, width = IMAGE_SIZE
    y, x = np.mgrid[:height, :width]
    centres = rng.random((MASKS, 2)) * (height, width)
    radii = 3 + rng.random((MASKS, 2)) ** 3 * (height / 2, width / 2)
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
