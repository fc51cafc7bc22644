"""The tabletop's scenes, expressions and files, without a renderer; the shipped held-out sets among them."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from tabletop.expressions import HELD_OUT_PAIRS, Expression, make_expressions
from tabletop.facts import Fact, scene_facts
from tabletop.generate import HELD_OUT_COUNTS, HELD_OUT_SCENES, TRAIN_COUNTS, describe_scene, main
from tabletop.refer import ReferWriter
from tabletop.render import Rendering
from tabletop.scenes import SPLIT_CODES, Scene, sample_scene
from tabletop.shapes import class_meshes
from tabletop.vocabulary import ANY_NOUNS, CLASSES, COLOUR_WORDS, COLOURS, NOUNS, SIZE_WORDS, SIZES, TRAINING_PAIRS

DATA = Path(__file__).parents[2] / "models" / "tabletop" / "data"
SIZE = (360, 480)


def flat_rendering(scene: Scene) -> Rendering:
    """Draws each object as a rectangle about its projected centre, the nearest on top."""
    instances = np.zeros(SIZE, np.uint8)
    order = np.argsort([-np.dot((item.x, item.y), scene.camera.heading) for item in scene.objects])
    for index in order:
        item = scene.objects[index]
        x, y = scene.camera.project(np.array([[item.x, item.y, item.height / 2]]))[0] * (SIZE[1], SIZE[0])
        half = max(8, round(220 * item.radius))
        instances[max(0, int(y) - half) : int(y) + half, max(0, int(x) - half) : int(x) + half] = index + 1
    visible = np.bincount(instances.ravel(), minlength=len(scene.objects) + 1)[1:]
    image = np.zeros((*SIZE, 3), np.uint8)
    return Rendering(image, instances, visible, np.where(visible > 0, 1.0, 0.0))


# --- vocabulary, shapes, scenes ---------------------------------------------------------------------------------------


def test_a_fifth_of_the_pairs_is_held_out_evenly() -> None:
    assert len(HELD_OUT_PAIRS) == 26
    assert len(TRAINING_PAIRS) == len(CLASSES) * len(COLOURS) - 26
    for colour in COLOURS:
        assert sum(pair[0] == colour for pair in HELD_OUT_PAIRS) in (2, 3)
    for name in CLASSES:
        assert sum(pair[1] == name for pair in HELD_OUT_PAIRS) in (2, 3)


@pytest.mark.parametrize("name", CLASSES)
def test_meshes_stand_on_the_table_and_face_outwards(name: str) -> None:
    for mesh in class_meshes()[name]:
        assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=3e-4)  # metres; a ring is a polygon in section
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
        a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
        volume = float((a * np.cross(b, c)).sum()) / 6
        assert volume > 1e-6  # cubic metres; negative if the faces were inside out
        facing = (np.cross(b - a, c - a) * mesh.normals[mesh.faces].sum(axis=1)).sum(axis=1)
        assert (facing > 0).all()


def test_a_box_is_clearly_not_a_cube() -> None:
    for mesh in class_meshes()["box"]:
        sides = np.sort(np.ptp(mesh.vertices, axis=0))
        assert sides[2] > 1.5 * sides[1] or sides[1] > 1.5 * sides[0]


def test_a_scene_depends_on_split_seed_and_index_alone() -> None:
    assert sample_scene("train", 3, 5) == sample_scene("train", 3, 5)
    others = [sample_scene(split, 3, 5) for split in SPLIT_CODES] + [sample_scene("train", 4, 5)]
    assert len({scene.camera for scene in others}) == len(others)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a split among train.*got 'tset'"):
        sample_scene("tset", 0, 0)


@pytest.mark.parametrize("split", SPLIT_CODES)
def test_objects_are_in_view_and_apart(split: str) -> None:
    for index in range(40):
        scene = sample_scene(split, 1, index)
        assert 4 <= len(scene.objects) <= 10
        points = np.array([[item.x, item.y, z] for item in scene.objects for z in (0.0, item.height)])
        seen = scene.camera.project(points)
        assert (seen > 0).all()
        assert (seen < 1).all()
        for i, first in enumerate(scene.objects):
            for second in scene.objects[:i]:
                gap = np.hypot(first.x - second.x, first.y - second.y) - first.radius - second.radius
                assert gap > 0


def test_only_compositional_scenes_hold_held_out_pairs() -> None:
    for index in range(60):
        counts = {
            split: sum((o.colour, o.class_name) in HELD_OUT_PAIRS for o in sample_scene(split, 2, index).objects)
            for split in SPLIT_CODES
        }
        assert counts.pop("compositional") >= 3
        assert set(counts.values()) == {0}


def test_distractors_share_classes_and_colours() -> None:
    shared = 0
    for index in range(60):
        names = [item.class_name for item in sample_scene("train", 0, index).objects]
        shared += len(set(names)) < len(names)
    assert shared > 40


# --- expressions: read back by a grammar of the test's own ------------------------------------------------------------

ADJECTIVES = {word: ("colour", name) for name, words in COLOUR_WORDS.items() for word in words} | {
    word: ("size", name) for name, words in SIZE_WORDS.items() for word in words
}
PLACES = [
    (r"leftmost|on the (?:far )?left$|furthest to the left$", "left"),
    (r"rightmost|on the (?:far )?right$|furthest to the right$", "right"),
    (r"at the back$|farthest|rearmost|\bback\b|farthest away$", "back"),
    (r"at the front$|closest|nearest|frontmost|\bfront\b", "front"),
    (r"in the middle$|\bmiddle\b", "middle"),
]
RELATIONS = [
    (r" (?:to the |on the )?left of ", "left"),
    (r" (?:to the |on the )?right of ", "right"),
    (r" behind ", "behind"),
    (r" in front of ", "front"),
    (r" (?:next to|beside|near|by) ", "next"),
]


def fitting(noun_phrase: str, facts: list[Fact]) -> set[int]:
    """Returns the objects that a bare noun phrase admits; every word of it must be known."""
    found = facts
    for word in re.sub(r"^(the|a|an|that) ", "", noun_phrase).split():
        if word in ADJECTIVES:
            attribute, value = ADJECTIVES[word]
            found = [fact for fact in found if getattr(fact, attribute) == value]
        elif word in NOUNS:
            found = [fact for fact in found if fact.class_name in NOUNS[word]]
        else:
            assert word in ANY_NOUNS, word
    return {fact.index for fact in found}


def meant(expression: Expression, facts: list[Fact]) -> set[int]:
    """Returns the objects that an expression can mean, by plain comparisons without the generator's margins."""
    by_index = {fact.index: fact for fact in facts}
    text = expression.text
    if expression.kind == "attribute":
        words = text.split(" that is ")
        head = words[0] + "".join(f" {word}" for word in words[1:])
        return fitting(head, facts)
    if expression.kind == "relation":
        pattern, relation = next((p, name) for p, name in RELATIONS if re.search(p, text))
        left, right = re.split(pattern, text)
        (other,) = (by_index[index] for index in fitting(right, facts))
        candidates = [by_index[index] for index in fitting(left, facts)]
        gaps = {
            f.index: np.hypot(*np.subtract(f.ground_m, other.ground_m)) - f.radius_m - other.radius_m
            for f in candidates
        }
        holds = {
            "left": lambda f: f.x < other.x,
            "right": lambda f: f.x > other.x,
            "behind": lambda f: f.depth_m > other.depth_m and abs(f.x - other.x) < 0.25,
            "front": lambda f: f.depth_m < other.depth_m and abs(f.x - other.x) < 0.25,
            "next": lambda f: gaps[f.index] < 0.1,
        }[relation]
        return {f.index for f in candidates if holds(f)}
    pattern, place = next((p, name) for p, name in PLACES if re.search(p, text))
    rest = re.sub(rf" ?(?:{pattern})", "", text).replace(" away", "").strip()
    candidates = [by_index[index] for index in fitting(rest, facts)]
    key = {"left": "x", "right": "x", "middle": "x", "back": "depth_m", "front": "depth_m"}[place]
    ranked = sorted(candidates, key=lambda f: float(getattr(f, key)))
    assert len(ranked) > 1
    values = [float(getattr(f, key)) for f in ranked]
    at = {"left": 0, "front": 0, "right": -1, "back": -1, "middle": len(ranked) // 2}[place]
    assert min(np.diff(values)[[at if at <= 0 else at - 1]]) > 0.05
    assert place != "middle" or len(ranked) == 3
    return {ranked[at].index}


@pytest.mark.parametrize("split", ["train", "compositional"])
def test_expressions_mean_one_object(split: str) -> None:
    kinds = set()
    for index in range(80):
        scene = sample_scene(split, 0, index)
        facts, expressions = describe_scene(scene, flat_rendering(scene), TRAIN_COUNTS)
        targets = {fact.index for fact in facts if fact.is_target}
        for expression in expressions:
            assert meant(expression, facts) == {expression.target}, expression
            assert expression.target in targets
            assert expression.target in expression.fits
            assert expression.phrase in expression.text
            assert (expression.spec is not None) == (expression.kind == "attribute")
            if split == "compositional":
                item = scene.objects[expression.target]
                assert (item.colour, item.class_name) in HELD_OUT_PAIRS
            kinds.add(expression.kind)
        assert len({e.text for e in expressions}) == len(expressions)
    assert kinds == set(TRAIN_COUNTS)


def test_fits_follow_the_words_of_the_phrase() -> None:
    place_words = "leftmost|rightmost|farthest|rearmost|back|closest|nearest|frontmost|front|middle"
    for index in range(40):
        scene = sample_scene("train", 0, index)
        facts, expressions = describe_scene(scene, flat_rendering(scene), TRAIN_COUNTS)
        for expression in expressions:
            assert set(expression.fits) == fitting(re.sub(rf"\b({place_words}) ", "", expression.phrase), facts)


def test_spec_of_attribute_expressions_admits_the_target_alone() -> None:
    for index in range(40):
        scene = sample_scene("train", 0, index)
        facts, expressions = describe_scene(scene, flat_rendering(scene), {"attribute": 8})
        for expression in expressions:
            assert expression.spec is not None
            found = [
                fact.index
                for fact in facts
                if (not expression.spec["classes"] or fact.class_name in expression.spec["classes"])
                and expression.spec["colour"] in (None, fact.colour)
                and expression.spec["size"] in (None, fact.size)
            ]
            assert found == [expression.target]


def test_size_words_need_a_contrast_that_shows() -> None:
    order = list(SIZES)
    seen = 0
    for index in range(150):
        scene = sample_scene("train", 0, index)
        facts, expressions = describe_scene(scene, flat_rendering(scene), {"attribute": 8})
        for expression in expressions:
            assert expression.spec is not None
            if expression.spec["size"] is None:
                continue
            seen += 1
            target = next(fact for fact in facts if fact.index == expression.target)
            sizes = "|".join(word for words in SIZE_WORDS.values() for word in words)
            rest = fitting(re.sub(rf"\b({sizes}) ", "", expression.text).replace(" that is ", " "), facts)
            others = [fact for fact in facts if fact.index in rest - {target.index}]
            assert others
            for other in others:
                step = order.index(target.size) - order.index(other.size)
                assert step * (target.extent - other.extent) > 0
    assert seen > 20


def test_hidden_objects_are_no_targets() -> None:
    scene = sample_scene("train", 0, 0)
    rendering = flat_rendering(scene)
    fraction = rendering.visible_fraction.copy()
    fraction[1] = 0.3
    hidden = scene_facts(scene, np.where(rendering.instances == 1, 0, rendering.instances).astype(np.uint8), fraction)
    assert 0 not in {fact.index for fact in hidden}
    assert not next(fact for fact in hidden if fact.index == 1).is_target
    expressions = make_expressions(hidden, {"attribute": 30}, np.random.default_rng(0))
    assert {0, 1}.isdisjoint(expression.target for expression in expressions)


# --- REFER ------------------------------------------------------------------------------------------------------------


class PlainUnpickler(pickle.Unpickler):
    """Admits plain containers, numbers and strings only."""

    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"the pickle holds {module}.{name}")


def read_set(root: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with (root / "tabletop" / "refs(tabletop).p").open("rb") as file:
        assert file.read(2) == b"\x80\x02"  # protocol 2
        file.seek(0)
        refs = PlainUnpickler(file).load()
    return refs, json.loads((root / "tabletop" / "instances.json").read_text())


def test_refer_files_read_back(tmp_path: Path) -> None:
    writer = ReferWriter(tmp_path)
    scenes = [sample_scene("scenes", 0, 0), sample_scene("compositional", 0, 0)]
    renderings = [flat_rendering(scene) for scene in scenes]
    said = []
    for scene, rendering in zip(scenes, renderings, strict=True):
        facts, expressions = describe_scene(scene, rendering, HELD_OUT_COUNTS)
        writer.add(scene, rendering, facts, expressions)
        said += expressions
    writer.close()
    refs, instances = read_set(tmp_path)
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    assert [image["file_name"] for image in instances["images"]] == ["scenes_0000.jpg", "compositional_0000.jpg"]
    masks = {a["image_id"]: [] for a in annotations.values()}  # type: dict[int, list[np.ndarray]]
    for annotation in annotations.values():
        mask = coco.decode(annotation["segmentation"]).astype(bool)
        left, top, width, height = annotation["bbox"]
        assert mask.sum() == annotation["area"] == mask[top : top + height, left : left + width].sum()
        masks[annotation["image_id"]].append(mask)
    for image_id, rendering in enumerate(renderings, 1):
        np.testing.assert_array_equal(np.any(masks[image_id], axis=0), rendering.instances > 0)
    texts = [sentence["raw"] for ref in refs for sentence in ref["sentences"]]
    assert sorted(texts) == sorted(expression.text for expression in said)
    for ref in refs:
        assert annotations[ref["ann_id"]]["image_id"] == ref["image_id"]
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert all(ref["ann_id"] in sentence["fits"] for sentence in ref["sentences"])


def test_refer_keeps_no_image_of_an_earlier_set(tmp_path: Path) -> None:
    for indexes in ((0, 1), (1,)):
        writer = ReferWriter(tmp_path)
        for index in indexes:
            scene = sample_scene("scenes", 0, index)
            rendering = flat_rendering(scene)
            writer.add(scene, rendering, *describe_scene(scene, rendering, HELD_OUT_COUNTS))
        writer.close()
    assert [path.name for path in (tmp_path / "images" / "tabletop").iterdir()] == ["scenes_0001.jpg"]
    assert {path.name for path in (tmp_path / "tabletop").iterdir()} == {"instances.json", "refs(tabletop).p"}


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "word"), [("--scenes", "0"), ("--workers", "-1"), ("--scenes", "many")])
def test_generate_asks_for_at_least_one(
    option: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(tmp_path), "--scenes", "1", option, word])
    assert stopped.value.code == 2
    assert f"argument {option}: expected a whole number of at least 1, got '{word}'" in capsys.readouterr().err


def test_generate_does_not_mix_shards_of_two_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shard-0003").mkdir()
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "--scenes", "1"])
    assert "found 1 (shard-0003 ...); remove them or choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0003"]


# --- the shipped sets -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return read_set(DATA)


def test_the_shipped_sets_are_whole_and_small(shipped: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    refs, instances = shipped
    files = {path.name for path in (DATA / "images" / "tabletop").iterdir()}
    assert files == {image["file_name"] for image in instances["images"]}
    assert all((image["height"], image["width"]) == SIZE for image in instances["images"])
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 8e6
    for split in ("scenes", "compositional"):
        assert len({ref["image_id"] for ref in refs if ref["split"] == split}) == HELD_OUT_SCENES >= 60


def test_shipped_pairs_are_held_out_where_they_should_be(
    shipped: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    refs, instances = shipped
    names = {category["id"]: category["name"] for category in instances["categories"]}
    pairs = {a["id"]: (a["attributes"]["colour"], names[a["category_id"]]) for a in instances["annotations"]}
    splits = {ref["image_id"]: ref["split"] for ref in refs}
    for ref in refs:
        assert (pairs[ref["ann_id"]] in HELD_OUT_PAIRS) == (ref["split"] == "compositional")
    for annotation in instances["annotations"]:
        if splits[annotation["image_id"]] == "scenes":
            assert pairs[annotation["id"]] not in HELD_OUT_PAIRS


def test_the_shipped_expressions_are_what_the_code_writes(
    shipped: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    refs, instances = shipped
    for number, image in enumerate(instances["images"]):
        split, index = image["file_name"].removesuffix(".jpg").rsplit("_", 1)
        scene = sample_scene(split, 0, int(index))
        found = [a for a in instances["annotations"] if a["image_id"] == number + 1]
        instance_map, fraction = np.zeros(SIZE, np.uint8), np.zeros(len(scene.objects))
        kinds = [(o.class_name, o.colour, o.size) for o in scene.objects]
        position = -1
        for a in found:  # in the scene's order, those out of sight left out
            kind = (CLASSES[a["category_id"] - 1], a["attributes"]["colour"], a["attributes"]["size"])
            position = kinds.index(kind, position + 1)
            instance_map[coco.decode(a["segmentation"]).astype(bool)] = position + 1
            fraction[position] = a["attributes"]["visible_fraction"]
        rendering = Rendering(np.zeros((*SIZE, 3), np.uint8), instance_map, fraction, fraction)
        _, expressions = describe_scene(scene, rendering, HELD_OUT_COUNTS)
        shipped_texts = [s["raw"] for ref in refs if ref["image_id"] == image["id"] for s in ref["sentences"]]
        assert sorted(shipped_texts) == sorted(expression.text for expression in expressions), (
            f"{image['file_name']}: other expressions than shipped. Scenes and words are drawn from NumPy's Generator, "
            f"whose stream may change between releases (here {np.__version__}); if the code is unchanged, compare "
            "with an older NumPy, otherwise make the sets again with python -m tabletop.generate heldout"
        )
