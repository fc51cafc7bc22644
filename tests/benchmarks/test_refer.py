"""The REFER reader, field by field, on a synthetic data set with every trap of the real ones."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from refer_data import python2_pickle, rectangle, write_refer

from risbench.data import refer
from risbench.data.refer import DATASETS, Sentence, load_refer, tabletop_root
from risengine.errors import InputError
from risengine.masks import encode_rle

WIDE, TALL = (30, 50), (40, 20)  # (H, W)
SPLITS = ["train", "val", "testA", "testB", "testAB"]


def _rle_mask() -> np.ndarray:
    mask = np.zeros(TALL, np.bool_)
    mask[5:9, 3:17] = mask[20:31, 8:12] = True
    return mask


def _sentence(number: int, raw: str) -> dict[str, Any]:
    sent = raw.lower().replace(".", "").strip()
    return {"sent_id": number, "raw": raw, "sent": sent, "tokens": sent.split()}


def _ref(number: int, ann_id: int, image_id: int, split: str, raws: list[str]) -> dict[str, Any]:
    sentences = [_sentence(100 * number + i, raw) for i, raw in enumerate(raws)]
    return {
        "ref_id": number,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 3,
        "split": split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",  # names the annotation
    }


def _refs() -> list[dict[str, Any]]:
    raws = ["The LEFT Guy. ", "man's hat", "caf\xe9"]
    return [_ref(i, 11 + i % 3, 7 if i % 3 < 2 else 8, split, raws) for i, split in enumerate(SPLITS)]


def _instances() -> dict[str, Any]:
    mask = _rle_mask()
    uncompressed = {"size": list(TALL), "counts": [0]}
    flat = mask.ravel(order="F")
    runs = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
    uncompressed["counts"] = np.diff(np.concatenate([[0], runs])).tolist()
    compressed = encode_rle(mask)
    two_polygons = [rectangle(2, 3, 12, 10), rectangle(8, 6, 20, 25)]
    return {
        "info": {"year": 2014},
        "images": [
            {"id": 7, "file_name": "COCO_train2014_wide.png", "height": WIDE[0], "width": WIDE[1], "license": 1},
            {"id": 8, "file_name": "COCO_train2014_tall.png", "height": TALL[0], "width": TALL[1]},
        ],
        "annotations": [
            {"id": 11, "image_id": 7, "category_id": 3, "segmentation": two_polygons, "iscrowd": 0, "area": 1.0},
            {"id": 12, "image_id": 7, "category_id": 3, "segmentation": [rectangle(30, 0, 50, 30)], "iscrowd": 0},
            {"id": 13, "image_id": 8, "category_id": 3, "segmentation": compressed, "iscrowd": 0},
            {"id": 14, "image_id": 8, "category_id": 3, "segmentation": uncompressed, "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "person"}],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_refer(tmp_path, "refcoco", "unc", _refs(), _instances(), "images/mscoco/images/train2014")
    return tmp_path


def test_every_field(root: Path) -> None:
    dataset = load_refer(root, "refcoco")
    assert (dataset.name, dataset.split_by) == ("refcoco", "unc")
    assert [dataclasses.asdict(ref) for ref in dataset.refs] == [
        {**ref, "sentences": [{**s, "kind": None, "phrase": None, "fits": None} for s in ref["sentences"]]}
        for ref in _refs()
    ]
    first = dataset.refs[0].sentences
    assert [sentence.raw for sentence in first] == ["The LEFT Guy. ", "man's hat", "caf\xe9"]
    assert first[0] == Sentence(0, "the left guy", "The LEFT Guy. ", ["the", "left", "guy"])


def test_every_field_of_images_and_objects(root: Path) -> None:
    dataset = load_refer(root, "refcoco")
    instances = _instances()
    for kind, found in (("images", dataset.images), ("annotations", dataset.annotations)):
        assert list(found) == [item["id"] for item in instances[kind]]
        for item in instances[kind]:
            read = dataclasses.asdict(found[item["id"]])
            assert read == {name: item[name] for name in read}
    assert all(ref.file_name != dataset.images[ref.image_id].file_name for ref in dataset.refs)
    assert all(len(ref.sentences) == len(ref.sent_ids) == 3 for ref in dataset.refs)


def test_splits_evaluated_follow_the_partition() -> None:
    assert DATASETS["refcocog"].default_splits() == ("val", "test")
    assert DATASETS["refcocog"].default_splits("google") == ("val",)
    assert DATASETS["refcoco"].default_splits("google") == ("val", "test")


def test_image_path_comes_from_the_instances(root: Path) -> None:
    dataset = load_refer(root, "refcoco")
    assert dataset.image_path(7) == root / "images/mscoco/images/train2014/COCO_train2014_wide.png"
    assert dataset.image_path(7).is_file()
    assert (dataset.images[8].height, dataset.images[8].width) == TALL


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ["train"]),
        ("val", ["val"]),
        ("testA", ["testA", "testAB"]),
        ("testB", ["testB", "testAB"]),
        ("test", ["testA", "testB", "testAB"]),
        ("testAB", ["testAB"]),
    ],
)
def test_splits(root: Path, split: str, expected: list[str]) -> None:
    assert [ref.split for ref in load_refer(root, "refcoco").split(split)] == expected


def test_unknown_split_names_the_known_ones(root: Path) -> None:
    with pytest.raises(InputError, match="no split 'minival'; expected one of testA, testAB, testB, train, val"):
        load_refer(root, "refcoco").split("minival")


def test_polygons_are_united_or_counted_once(root: Path) -> None:
    dataset = load_refer(root, "refcoco")
    first, second = np.zeros((2, *WIDE), np.bool_)
    first[3:10, 2:12] = True
    second[6:25, 8:20] = True
    assert np.array_equal(dataset.mask(11), first | second)
    assert np.array_equal(dataset.mask(11, "once"), first ^ second)
    polygons = dataset.annotations[11].segmentation
    assert np.array_equal(dataset.mask(11), coco.decode(coco.merge(coco.frPyObjects(polygons, *WIDE))))


@pytest.mark.parametrize("ann_id", [13, 14])
@pytest.mark.parametrize("polygons", ["union", "once"])
def test_run_lengths(root: Path, ann_id: int, polygons: refer.PolygonRule) -> None:
    assert np.array_equal(load_refer(root, "refcoco").mask(ann_id, polygons), _rle_mask())


def test_objects_leave_crowds_out(root: Path) -> None:
    dataset = load_refer(root, "refcoco")
    assert [item.id for item in dataset.objects(7)] == [11, 12]
    assert [item.id for item in dataset.objects(8)] == [13]


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Path(os.environ["RISBENCH_TEST_DIRECTORY"]) / "harm"),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickle_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.setenv("RISBENCH_TEST_DIRECTORY", str(root))
    data = pickle.dumps([_Hostile()], protocol)
    path = root / "refcoco" / "refs(unc).p"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"was refused: it asks for \w+\.mkdir"):
        load_refer(root, "refcoco")
    assert not (root / "harm").exists()
    pickle.loads(data)  # the same bytes do harm where they are trusted
    assert (root / "harm").exists()


def test_python_3_pickles_are_read_too(root: Path) -> None:
    path = root / "refcoco" / "refs(unc).p"
    before = load_refer(root, "refcoco").refs
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(_refs(), protocol))
        assert load_refer(root, "refcoco").refs == before


def test_utf8_bytes_are_decoded(root: Path) -> None:
    refs = _refs()
    refs[0]["sentences"][0]["raw"] = "caf\xe9".encode().decode("latin-1")  # the pickler writes these as UTF-8 bytes
    (root / "refcoco" / "refs(unc).p").write_bytes(python2_pickle(refs))
    assert load_refer(root, "refcoco").refs[0].sentences[0].raw == "caf\xe9"


@pytest.mark.parametrize("size", [0, 1, 200])
def test_truncated_pickle_is_refused(root: Path, size: int) -> None:
    path = root / "refcoco" / "refs(unc).p"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="was refused"):
        load_refer(root, "refcoco")


def test_malformed_contents_are_named(root: Path) -> None:
    path = root / "refcoco" / "refs(unc).p"
    refs = _refs()
    refs[2]["ann_id"] = "eleven"
    path.write_bytes(python2_pickle(refs))
    with pytest.raises(InputError, match=r"Expected `int`, got `str` - at `\$\[2\]\.ann_id`"):
        load_refer(root, "refcoco")
    refs[2]["ann_id"] = 11  # an object of the other image
    path.write_bytes(python2_pickle(refs))
    with pytest.raises(InputError, match=r"ref 2 .* names annotation 11 in image 8; .* do not belong together"):
        load_refer(root, "refcoco")
    path.write_bytes(python2_pickle(_refs()))
    (root / "refcoco" / "instances.json").write_text('{"images": []')
    with pytest.raises(InputError, match="not in COCO's format"):
        load_refer(root, "refcoco")


@pytest.mark.parametrize("segmentation", [{"size": [3, 3], "counts": [9]}, {"size": [30, 50]}, []])
def test_segmentation_that_cannot_be_drawn(root: Path, segmentation: Any) -> None:
    path = root / "refcoco" / "instances.json"
    instances = _instances()
    instances["annotations"][0]["segmentation"] = segmentation
    path.write_text(json.dumps(instances))
    with pytest.raises(InputError, match="annotation 11 of refcoco"):
        load_refer(root, "refcoco").mask(11)


def test_missing_files_and_unknown_names(root: Path) -> None:
    with pytest.raises(InputError, match="'flickr' is unknown; expected one of refcoco, "):
        load_refer(root, "flickr")
    with pytest.raises(InputError, match=r"refs\(google\)\.p does not exist"):
        load_refer(root, "refcoco", "google")
    with pytest.raises(InputError, match="not split by 'umd'; expected one of unc, google"):
        load_refer(root, "refcoco", "umd")
    (root / "refcoco" / "instances.json").unlink()
    with pytest.raises(InputError, match=r"instances\.json does not exist"):
        load_refer(root, "refcoco")


def test_tabletop_data_is_not_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refer, "__file__", str(tmp_path / "site-packages" / "risbench" / "refer.py"))
    with pytest.raises(InputError, match="comes with the repository, not with the wheel"):
        tabletop_root()
