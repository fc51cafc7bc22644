"""The shipped held-out sets, and the embedded bundle measured on a few of their scenes."""

from __future__ import annotations

import pytest

import risengine
from risbench.data.refer import DATASETS, ReferDataset, load_refer, tabletop_root
from risbench.quality.accuracy import AccuracyConfig, measure_accuracy
from risbench.quality.answers import read_truth
from risengine.images import load_image
from risengine.language.phrase import noun_phrase

SPLITS = DATASETS["tabletop"].default_splits()


@pytest.fixture(scope="module")
def dataset() -> ReferDataset:
    return load_refer(tabletop_root(), "tabletop")


@pytest.mark.parametrize("split", SPLITS)
def test_shipped_sets(dataset: ReferDataset, split: str) -> None:
    refs = dataset.split(split)
    image_ids = sorted({ref.image_id for ref in refs})
    assert len(image_ids) >= 60
    assert {sentence.kind for ref in refs for sentence in ref.sentences} == {"attribute", "place", "relation"}
    for ref in refs:
        objects = {item.id for item in dataset.objects(ref.image_id)}
        assert objects >= {ref.ann_id, *(fit for sentence in ref.sentences for fit in sentence.fits or [])}
        assert all(ref.ann_id in (sentence.fits or []) for sentence in ref.sentences)
        assert all(sentence.phrase and sentence.phrase in sentence.raw for sentence in ref.sentences)
    for image_id in image_ids[:5]:
        truth = read_truth(dataset, image_id, "union")
        assert load_image(dataset.image_path(image_id)).shape[:2] == truth.masks.shape[1:] == (360, 480)
        assert truth.masks.sum(axis=0).max() == 1  # no pixel belongs to two objects


def test_noun_phrases_are_found(dataset: ReferDataset) -> None:
    sentences = [sentence for ref in dataset.split("scenes") for sentence in ref.sentences]
    attribute = [sentence for sentence in sentences if sentence.kind == "attribute"]
    found = [noun_phrase(sentence.raw.lower()) == sentence.phrase for sentence in attribute]
    assert sum(found) >= 0.95 * len(found)  # spaCy takes the noun of "the brown can" for a verb


def test_the_embedded_bundle_beats_guessing() -> None:
    config = AccuracyConfig(tabletop_root(), "tabletop", SPLITS, limit=3)
    with risengine.load("tabletop") as engine:
        report = measure_accuracy(engine, config)
    for result in report.splits.values():
        everything, attribute = result.kinds["all"], result.kinds["attribute"]
        assert result.point_iou > 0.6
        assert everything.oracle.miou > 0.5
        assert everything.random_proposal < everything.answers.miou <= everything.oracle.miou
        assert attribute.right_object > 2 * attribute.random_object
        assert everything.refused == 0
