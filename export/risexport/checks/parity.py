"""Exported graphs against the libraries' own computation of :mod:`risexport.checks.references`.

A graph past its tolerance fails the build.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import Session
from risengine.errors import RisError
from risengine.manifest import Measure, Parity, Role
from risengine.measures import lowest_cosine, lowest_mask_iou, relative_error
from risengine.method import Method
from risexport.checks.references import ClipReference, SamReference
from risexport.config import Precision

__all__ = ["TOLERANCES", "ParityError", "Tolerances", "judge", "measure_clip", "measure_sam", "selection_agreement"]

_logger = logging.getLogger(__name__)

Array = NDArray[Any]


class ParityError(RisError, RuntimeError):
    """An exported graph differs from the PyTorch reference by more than its tolerance.

    Attributes:
        row: The figure past its tolerance.
    """

    def __init__(self, row: Parity) -> None:
        super().__init__(f"{row}. No bundle was written; build with another precision, or report this model.")
        self.row = row


@dataclass(frozen=True)
class Tolerances:
    """Bounds at one precision, each for the worst row (mask, text or prompt) of a tensor.

    Attributes:
        feature_error: Highest relative error of CLIP's features.
        embedding_error: Highest relative error of SAM's image embedding. The widest, because the resize stores 8-bit
            values: halves that it rounds the other way than Pillow move a few pixels by one grey level.
        decoder_error: Highest relative error of SAM's predicted IoUs and logits, given the same embedding.
        cosine: Lowest cosine of CLIP's features.
        mask_iou: Lowest IoU of the masks at logit 0, where one pixel is 3 % of a mask of 30.
        selection_agreement: Lowest share of texts for which both choose the same mask, or one that ties with it; see
            :func:`selection_agreement`.
    """

    feature_error: float
    embedding_error: float
    decoder_error: float
    cosine: float
    mask_iou: float
    selection_agreement: float


# Half precision's hold with every result rounded too; they are about twice what ViT-B/32 and vit_b with random weights
# come to then. At a decoder_error of 5e-3, 1.2 % of the tabletop bundle's answers change.
TOLERANCES: dict[Precision, Tolerances] = {
    "fp32": Tolerances(
        feature_error=1e-4,
        embedding_error=5e-3,
        decoder_error=1e-3,
        cosine=0.99999,
        mask_iou=0.99,
        selection_agreement=0.99,
    ),
    "fp16": Tolerances(
        feature_error=5e-3,
        embedding_error=1e-2,
        decoder_error=3e-3,
        cosine=0.9999,
        mask_iou=0.95,
        selection_agreement=0.99,
    ),
}


def measure_sam(sessions: Mapping[Role, Session], reference: SamReference, tolerances: Tolerances) -> list[Parity]:
    """Compares the four SAM graphs with ``SamPredictor``.

    Args:
        sessions: Sessions of ``image_encoder``, ``image_projector``, ``point_decoder`` and ``mask_decoder``.
        reference: From :func:`risexport.checks.references.sam_reference`.
        tolerances: Bounds of the precision that was built.

    Returns:
        Measured figures, all within the tolerances.

    Raises:
        ParityError: A figure is past its tolerance.
    """
    embedding = sessions["image_encoder"].run({"image": reference.image})["image_embedding"]
    figure = relative_error(embedding, reference.embedding)
    rows = [judge("image_encoder", "image_embedding", "relative_error", figure, tolerances.embedding_error)]
    bound = tolerances.decoder_error
    coarse = reference.block_decodings[0].embedding
    projections = sessions["image_projector"].run({"image_embedding": coarse})
    for name, expected in reference.projections.items():
        figure = relative_error(projections[name], expected)
        rows.append(judge("image_projector", name, "relative_error", figure, bound))

    exact = sessions["image_projector"].run({"image_embedding": reference.decodings[0].embedding})
    runs = [(exact, decoding) for decoding in reference.decodings]
    runs += [(projections, decoding) for decoding in reference.block_decodings]
    ious, logits = [], []
    for projected, decoding in runs:
        decoded = sessions["point_decoder"].run(
            {
                **projected,
                "image_size": np.array(reference.image.shape[:2], np.int64),
                "points": decoding.points,
                "labels": decoding.labels,
            }
        )
        prompts = len(decoding.points)
        feeds = {
            "image_features": decoded["image_features"],
            "mask_tokens": decoded["mask_tokens"].reshape(3 * prompts, -1),
            "prompt_index": np.arange(prompts, dtype=np.int64).repeat(3),
        }
        ious.append(decoded["iou_predictions"])
        logits.append(sessions["mask_decoder"].run(feeds)["logits"])
    figure = relative_error(np.concatenate(ious), np.concatenate([decoding.iou_predictions for _, decoding in runs]))
    rows.append(judge("point_decoder", "iou_predictions", "relative_error", figure, bound))
    actual, expected = np.concatenate(logits), np.concatenate([decoding.logits for _, decoding in runs])
    rows.append(judge("mask_decoder", "logits", "relative_error", relative_error(actual, expected), bound))
    overlap = lowest_mask_iou(actual > 0, expected > 0)
    rows.append(judge("mask_decoder", "logits", "mask_iou", overlap, tolerances.mask_iou))
    return rows


def measure_clip(
    sessions: Mapping[Role, Session], reference: ClipReference, method: Method, tolerances: Tolerances
) -> list[Parity]:
    """Compares the two CLIP graphs with open_clip.

    Args:
        sessions: Sessions of ``proposal_encoder`` and ``text_encoder``.
        reference: From :func:`risexport.checks.references.clip_reference`.
        method: Values of the method.
        tolerances: Bounds of the precision that was built.

    Returns:
        Measured figures, all within the tolerances.

    Raises:
        ParityError: A figure is past its tolerance.
    """
    weight = np.array(method.global_weight, np.float32)
    described = [
        sessions["proposal_encoder"].run({"image": given.image, "masks": given.masks, "global_weight": weight})
        for given in reference.descriptions
    ]
    rows = []
    for name in ("global_features", "local_features", "features"):
        actual = np.concatenate([outputs[name] for outputs in described])
        expected = np.concatenate([getattr(given, name) for given in reference.descriptions])
        rows += _judge_features("proposal_encoder", name, actual, expected, tolerances)
    texts = sessions["text_encoder"].run({"tokens": reference.tokens})["features"]
    rows += _judge_features("text_encoder", "features", texts, reference.text_features, tolerances)
    chosen = (texts @ described[0]["features"].T).argmax(1)
    expected = reference.descriptions[0].features
    agreement = selection_agreement(chosen, reference.text_features, expected, tolerances.feature_error)
    bound = tolerances.selection_agreement
    return [*rows, judge("proposal_encoder", "features", "selection_agreement", agreement, bound)]


def selection_agreement(chosen: Array, texts: Array, features: Array, feature_error: float) -> float:
    """Returns the share of texts whose chosen mask is the reference's choice, or ties with it.

    Masks tie where their reference scores differ by no more than an error of the tolerated length would typically make
    of it. An error that points anywhere in E dimensions changes a product by its length over sqrt(E), as a standard
    deviation; the score of a mask has a part of its feature's and of the text's. Masks that look alike to a model, as
    to one with random weights, are therefore no choice at all. An error that is within the tolerance but points from
    the right mask to a wrong one moves scores by sqrt(E) times as much, and is seen here alone.

    Args:
        chosen: (T,) int, the mask chosen for each text.
        texts: (T, E) float32 of the reference.
        features: (N, E) float32 of the reference.
        feature_error: Highest relative error of a feature that is tolerated.
    """
    t, f = texts.astype(np.float64), features.astype(np.float64)
    scores, rows = t @ f.T, np.arange(len(t))
    best = scores.argmax(1)
    squares = (f[best] ** 2 + f[chosen] ** 2 + (f[best] - f[chosen]) ** 2).sum(1)
    margin = feature_error * np.linalg.norm(t, axis=1) * np.sqrt(squares / t.shape[1])
    same = (chosen == best) | (scores[rows, best] - scores[rows, chosen] <= margin)
    return float(same.mean())


def judge(role: Role, tensor: str, measure: Measure, value: float, tolerance: float) -> Parity:
    """Returns a figure that is within its tolerance.

    Raises:
        ParityError: It is not.
    """
    row = Parity(role, tensor, measure, value, tolerance)
    _logger.info("%s %s: %s %.3g (tolerance %g)", role, tensor, measure, value, tolerance)
    if not row.passed:
        raise ParityError(row)
    return row


def _judge_features(role: Role, tensor: str, actual: Array, expected: Array, tolerances: Tolerances) -> list[Parity]:
    error, cosine = relative_error(actual, expected), lowest_cosine(actual, expected)
    return [
        judge(role, tensor, "relative_error", error, tolerances.feature_error),
        judge(role, tensor, "cosine", cosine, tolerances.cosine),
    ]
