"""A contact sheet of the best and the worst answers of an accuracy run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from risbench.data.refer import PolygonRule, ReferDataset
from risbench.quality.accuracy import encode_image
from risbench.quality.answer_log import SentenceRecord
from risengine.engine import Engine
from risengine.masks import mask_boxes
from risengine.overlay import contact_sheet, draw_segmentation
from risengine.types import EncodedImage

__all__ = ["draw_extremes", "pick_extremes"]

_CELL_WIDTH_PX = 480


def pick_extremes(records: Sequence[SentenceRecord], count: int) -> tuple[list[SentenceRecord], list[SentenceRecord]]:
    """Picks the best and the worst answers, at most one about an object of either; a record is never both.

    Of the worst, those come first whose object was best proposed: there the choice was wrong, not the proposals.

    Args:
        records: All answers; those of variants and refused ones are left out.
        count: Most of either.
    """
    own = [record for record in records if record.ablation is None and not record.answer.refused]
    ordered = sorted(own, key=lambda record: (-record.iou, record.answer.oracle.iou))
    half = (len(ordered) + 1) // 2
    return _one_a_ref(ordered[:half])[:count], _one_a_ref(ordered[half:][::-1])[:count]


def _one_a_ref(records: Sequence[SentenceRecord]) -> list[SentenceRecord]:
    first: dict[tuple[str, int], SentenceRecord] = {}
    for record in records:
        first.setdefault((record.split, record.ref_id), record)
    return list(first.values())


def draw_extremes(
    engine: Engine, dataset: ReferDataset, records: Sequence[SentenceRecord], polygons: PolygonRule, count: int = 6
) -> Image.Image:
    """Draws the best answers, then the worst, each beside the object that was meant; the figure is the IoU.

    Args:
        engine: What answered; it answers these again.
        dataset: What it was asked.
        records: All answers, at least one.
        polygons: How an object's polygons become a mask.
        count: Most of either.
    """
    best, worst = pick_extremes(records, count)
    encoded: dict[int, EncodedImage] = {}
    pictures: list[Image.Image] = []
    for record in (*best, *worst):
        if record.image_id not in encoded:
            encoded[record.image_id] = encode_image(engine, dataset, record.image_id)
        pictures += _pair(engine, encoded[record.image_id], dataset.mask(record.ann_id, polygons), record)
    return contact_sheet(pictures, columns=4, cell_width_px=_CELL_WIDTH_PX)


def _pair(
    engine: Engine, encoded: EncodedImage, truth: NDArray[np.bool_], record: SentenceRecord
) -> tuple[Image.Image, Image.Image]:
    """Draws an answer and the truth; where nothing was proposed the answer is the bare image."""
    meant = mask_boxes(truth[None])[0]
    ranked = engine.rank(encoded, record.text, top_k=1)
    if not ranked:
        nothing = Image.fromarray(encoded.image)
        return nothing, nothing
    answer = dataclasses.replace(ranked[0], score=record.iou)
    return draw_segmentation(answer), draw_segmentation(
        dataclasses.replace(answer, mask=truth, box=meant, text="what was meant", score=1.0)
    )
