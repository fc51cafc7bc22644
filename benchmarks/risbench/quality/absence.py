"""Objects that are asked for and are not there: how well an engine's confidence tells them from those that are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from risbench.data.refer import ReferDataset
from risbench.quality.accuracy import encode_image, group_by_image
from risbench.quality.answers import read_truth
from risbench.quality.metrics import mask_overlaps
from risengine.engine import Engine
from risengine.types import EncodedImage, Segmentation

__all__ = ["Observation", "absent_phrases", "area_under_curve", "calibration_error", "observe"]

RIGHT_IOU = 0.5


@dataclass(frozen=True)
class Observation:
    """One question to one image.

    Attributes:
        text: The expression.
        present: Whether its object is in the image.
        right: Whether the answer overlaps it by an IoU of more than one half.
        answer: What was answered; None where nothing is proposed.
    """

    text: str
    present: bool
    right: bool
    answer: Segmentation | None

    @property
    def confidence(self) -> float:
        """In [0, 1]; 0 where nothing is proposed or the bundle has no calibration."""
        why = None if self.answer is None else self.answer.explanation
        return 0.0 if why is None or why.confidence is None else why.confidence


def absent_phrases(root: Path, seed: int, count: int) -> dict[int, list[str]]:
    """Writes, for every image of the tabletop set, phrases of a colour and a class that stand in no object of it.

    Args:
        root: REFER's data folder.
        seed: Of the draw.
        count: Phrases an image.

    Returns:
        By image id; pairs are taken from the other images.
    """
    instances = json.loads((root / "tabletop" / "instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in instances["categories"]}
    seen: dict[int, set[tuple[str, str]]] = {image["id"]: set() for image in instances["images"]}
    for item in instances["annotations"]:
        seen[item["image_id"]].add((item["attributes"]["colour"], names[item["category_id"]]))
    pairs = sorted(set.union(*seen.values()))
    phrases = {}
    for image_id, own in seen.items():
        rng = np.random.default_rng([seed, image_id])
        others = [pair for pair in pairs if pair not in own]
        drawn = rng.choice(len(others), size=min(count, len(others)), replace=False)
        phrases[image_id] = [f"the {others[i][0]} {others[i][1]}" for i in drawn]
    return phrases


def observe(
    engine: Engine, dataset: ReferDataset, split: str, absent: dict[int, list[str]], limit: int | None = None
) -> list[Observation]:
    """Asks an engine, image and text to mask, every expression of a split and the absent phrases of its images."""
    found = []
    for image_id, refs in group_by_image(dataset.split(split), limit).items():
        encoded = encode_image(engine, dataset, image_id)
        truth = read_truth(dataset, image_id, "union")
        columns = {ann_id: column for column, ann_id in enumerate(truth.ann_ids)}
        ious = mask_overlaps(encoded.proposals.masks, truth.masks).ious
        for ref in refs:
            for sentence in ref.sentences:
                answer = _ask(engine, encoded, sentence.raw)
                right = (
                    answer is not None
                    and ref.ann_id in columns
                    and bool(ious[answer.index, columns[ref.ann_id]] > RIGHT_IOU)
                )
                found.append(Observation(sentence.raw, True, right, answer))
        found += [Observation(text, False, False, _ask(engine, encoded, text)) for text in absent[image_id]]
    return found


def _ask(engine: Engine, encoded: EncodedImage, text: str) -> Segmentation | None:
    ranked = engine.rank(encoded, text, top_k=1, strategy="spatial")
    return ranked[0] if ranked else None


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Returns the area under the ROC curve: the share of pairs in which the positive is higher; ties count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).mean() / 2 / len(negative))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Returns the expected calibration error (Guo et al., 2017) over bins of equal width."""
    slot = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (slot == i).mean() * abs(confidence[slot == i].mean() - right[slot == i].mean())
        for i in range(bins)
        if (slot == i).any()
    ]
    return float(np.sum(gaps))
