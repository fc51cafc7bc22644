"""Asking every expression of one image, and comparing the answers with the ground truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from risbench.data.refer import PolygonRule, Ref, ReferDataset, Sentence
from risbench.quality.baselines import guess_fitting_object, guess_fitting_proposal, guess_proposal
from risbench.quality.metrics import Overlap, mask_overlaps
from risengine.errors import InputError
from risengine.types import EncodedImage, Segmentation

__all__ = ["Answer", "ImageTruth", "Segmenter", "answer_image", "read_truth"]

_logger = logging.getLogger(__name__)


class Segmenter(Protocol):
    """What can be asked: the engine, or the PyTorch reference."""

    def encode_image(self, image: Path | NDArray[np.uint8], masks: NDArray[np.bool_] | None = None) -> EncodedImage:
        """Computes what depends on the image alone."""
        ...

    def rank(self, image: EncodedImage, text: str, top_k: int) -> list[Segmentation]:
        """Returns the best masks, best first; none where nothing is proposed."""
        ...


@dataclass(frozen=True)
class ImageTruth:
    """The visible objects of an image.

    Attributes:
        ann_ids: Annotation ids of G objects.
        masks: (G, H, W) bool, none empty.
    """

    ann_ids: tuple[int, ...]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Answer:
    """What was answered to one expression, and what guessing would have been worth.

    Attributes:
        kind: Kind of the expression, where the data set says.
        overlap: The chosen proposal over the target.
        oracle: The best proposal over the target.
        right_object: Whether the target was chosen among the ground-truth masks.
        right_phrase: Whether the noun phrase is the data set's; None where the data set does not say.
        refused: Whether the text could not be asked; it then counts as an empty answer.
        random_proposal: Expected IoU of a random proposal.
        random_object: Expected share of right choices among all ground-truth masks.
        fitting_proposal: Expected IoU of the best proposal of a random object that fits the noun phrase.
        fitting_object: Expected share of right choices among the objects that fit the noun phrase.
    """

    kind: str | None
    overlap: Overlap
    oracle: Overlap
    right_object: bool
    right_phrase: bool | None
    refused: bool
    random_proposal: float
    random_object: float
    fitting_proposal: float | None
    fitting_object: float | None


def read_truth(dataset: ReferDataset, image_id: int, polygons: PolygonRule) -> ImageTruth:
    """Draws the objects of an image; those without a pixel are left out.

    Raises:
        InputError: A segmentation is malformed.
    """
    drawn = {item.id: dataset.mask(item.id, polygons) for item in dataset.objects(image_id)}
    visible = {ann_id: mask for ann_id, mask in drawn.items() if mask.any()}
    image = dataset.images[image_id]
    masks = np.array(list(visible.values()), np.bool_).reshape(-1, image.height, image.width)
    return ImageTruth(tuple(visible), masks)


def answer_image(segmenter: Segmenter, encoded: EncodedImage, truth: ImageTruth, refs: Sequence[Ref]) -> list[Answer]:
    """Asks every expression about one image, of its proposals and of its ground-truth masks.

    Args:
        segmenter: What is measured.
        encoded: The image with the proposals that ``segmenter`` made.
        truth: The image's objects, at least one.
        refs: Expressions about this image. Those whose object has no pixel, or is a crowd, are left out.
    """
    among_objects = segmenter.encode_image(encoded.image, masks=truth.masks)
    overlaps = mask_overlaps(encoded.proposals.masks, truth.masks)
    columns = {ann_id: column for column, ann_id in enumerate(truth.ann_ids)}
    answers = []
    for ref in refs:
        if ref.ann_id not in columns:
            _logger.warning("ref %d is left out: its object has no visible pixel or is a crowd", ref.ref_id)
            continue
        target = columns[ref.ann_id]
        for sentence in ref.sentences:
            try:
                chosen = _best(segmenter.rank(encoded, sentence.raw, top_k=1))
                chosen_object = _best(segmenter.rank(among_objects, sentence.raw, top_k=1))
                refused = False
            except InputError as error:  # one unreadable text must not end the evaluation of thousands
                _logger.warning("expression %d counts as unanswered: %s", sentence.sent_id, error)
                chosen, chosen_object, refused = None, None, True
            fits = None if sentence.fits is None else [columns[fit] for fit in sentence.fits if fit in columns]
            answers.append(
                Answer(
                    kind=sentence.kind,
                    overlap=overlaps.at(None if chosen is None else chosen.index, target),
                    oracle=overlaps.at(overlaps.best(target), target),
                    right_object=chosen_object is not None and chosen_object.index == target,
                    right_phrase=_is_phrase(chosen_object, sentence),
                    refused=refused,
                    random_proposal=guess_proposal(overlaps, target),
                    random_object=1 / len(columns),
                    fitting_proposal=None if fits is None else guess_fitting_proposal(overlaps, fits, target),
                    fitting_object=None if fits is None else guess_fitting_object(fits, target),
                )
            )
    return answers


def _best(ranked: list[Segmentation]) -> Segmentation | None:
    return ranked[0] if ranked else None


def _is_phrase(answer: Segmentation | None, sentence: Sentence) -> bool | None:
    if sentence.phrase is None:
        return None
    return answer is not None and answer.phrase == sentence.phrase.lower()
