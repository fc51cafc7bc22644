from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risbench.data.phrasecut import load_phrasecut
from risbench.data.refer import DATASETS, load_refer
from risengine.errors import InputError

SQUARE = [[2, 1], [6.9, 1], [6.9, 4], [2, 4]]
OTHER = [[5, 3], [8, 3], [8, 6], [5, 6]]


def write(root: Path, tasks: dict[str, Any], images: Any = None) -> None:
    folder = root / "phrasecut"
    folder.mkdir(parents=True, exist_ok=True)
    listed = images or [{"image_id": 7, "width": 12, "height": 8, "split": "val", "ann_ids": [1]}]
    (folder / "image_data_split.json").write_text(json.dumps(listed))
    for split, content in tasks.items():
        (folder / f"refer_{split}.json").write_text(json.dumps(content))


def task(name: str, polygons: Any, image_id: int = 7) -> dict[str, Any]:
    return {
        "task_id": name,
        "image_id": image_id,
        "phrase": "Two  cups",
        "Polygons": polygons,
        "instance_boxes": [[0, 0, 1, 1]],
        "phrase_structure": {"name": "cup", "attributes": ["two"]},
        "ann_ids": [1],
    }


def test_a_phrase_means_all_its_instances(tmp_path: Path) -> None:
    write(tmp_path, {"val": [task("7__1", [[SQUARE], [OTHER, [[0, 0]]]])], "test": [task("7__2", [[OTHER]])]})
    dataset = load_refer(tmp_path, "phrasecut")
    (ref,) = dataset.split("val")
    (sentence,) = ref.sentences
    assert (sentence.raw, sentence.tokens, ref.image_id, ref.file_name) == ("Two  cups", ["Two", "cups"], 7, "7__1")
    first, second = np.zeros((2, 8, 12), np.bool_)
    first[1:5, 2:7] = True  # corners cut to whole pixels, the outline included
    second[3:7, 5:9] = True
    assert np.array_equal(dataset.mask(ref.ann_id), first | second)
    assert np.array_equal(dataset.mask(ref.ann_id, "once"), first ^ second)
    (other,) = dataset.split("test")
    assert np.array_equal(dataset.mask(other.ann_id), second)
    assert [item.id for item in dataset.objects(7)] == [ref.ann_id, other.ann_id]
    assert dataset.image_path(7) == tmp_path / "images" / "phrasecut" / "7.jpg"
    assert (dataset.images[7].height, dataset.images[7].width) == (8, 12)
    assert DATASETS["phrasecut"].default_splits() == ("val", "test")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no refer_<split>\.json"):
        load_phrasecut(tmp_path)
    write(tmp_path, {"val": [task("7__1", [[SQUARE]], image_id=9)]})
    with pytest.raises(InputError, match=r"task 7__1 .* is about image 9, which image_data_split\.json does not"):
        load_phrasecut(tmp_path)
    write(tmp_path, {"val": [{"image_id": 7}]})
    with pytest.raises(InputError, match="is not in PhraseCut's format"):
        load_phrasecut(tmp_path)
    (tmp_path / "phrasecut" / "image_data_split.json").unlink()
    with pytest.raises(InputError, match=r"image_data_split\.json cannot be read"):
        load_phrasecut(tmp_path)
    with pytest.raises(InputError, match="phrasecut is not split by 'unc'"):
        load_refer(tmp_path, "phrasecut", "unc")
