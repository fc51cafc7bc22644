"""The strategies as pure functions, geometry against drawn masks, and what they cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import risengine
from risengine.config import StrategyName
from risengine.language.expression import Description, Ordinal, Place, Relation, RelationKind, Size, SizeKind
from risengine.language.parse import describe
from risengine.scoring.geometry import Geometry, measure_geometry
from risengine.scoring.spatial import OVERLAID, SHARPNESS, describe_masks, overlaid
from risengine.scoring.strategies import STRATEGIES
from risengine.types import Proposals

SIZE = (40, 60)
RNG = np.random.default_rng(7)


def boxes_geometry(boxes: list[tuple[int, int, int, int]]) -> Geometry:
    """Geometry of filled boxes, xyxy in pixels of a 40 x 60 image."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return measure_geometry(Proposals.from_masks(masks))


def chosen(description: Description, geometry: Geometry, cosines: dict[str, list[float]]) -> int:
    part = describe_masks(description, geometry, {name: np.array(values) for name, values in cosines.items()})
    return int(part.logits.argmax())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_geometry_is_that_of_the_drawn_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, *SIZE)) < rng.choice([0.02, 0.5, 0.98, 1.0])
    masks[:, 0, 0] = True
    geometry = measure_geometry(Proposals.from_masks(masks))
    for row, mask in enumerate(masks):
        y, x = np.nonzero(mask)
        np.testing.assert_allclose(geometry.centre[row] * SIZE[1], [x.mean() + 0.5, y.mean() + 0.5], rtol=1e-9)
        assert geometry.area[row] * SIZE[1] ** 2 == pytest.approx(mask.sum())
        assert geometry.base[row] * SIZE[1] == y.max() + 1
        for other, mask_beside in enumerate(masks):
            smaller = min(mask.sum(), mask_beside.sum())
            assert geometry.shared[row, other] == pytest.approx((mask & mask_beside).sum() / smaller)


def test_an_empty_mask_has_a_geometry() -> None:
    geometry = measure_geometry(Proposals.from_masks(np.zeros((1, *SIZE), bool)))
    assert geometry.area[0] == 0
    assert np.isfinite(geometry.centre).all()
    assert geometry.shared.tolist() == [[1.0]]


ROW = [(2, 20, 8, 26), (20, 18, 28, 26), (40, 16, 50, 26)]  # left to right, growing


@pytest.mark.parametrize(
    ("places", "index"), [(("left",), 0), (("right",), 2), (("middle",), 1), (("right", "bottom"), 2)]
)
def test_places_choose_among_equals(places: tuple[Place, ...], index: int) -> None:
    said = Description("mug", "mug", places=places)
    assert chosen(said, boxes_geometry(ROW), {"mug": [0.5, 0.5, 0.5]}) == index


@pytest.mark.parametrize(
    ("number", "side", "index"),
    [(1, "left", 0), (2, "left", 1), (3, "left", 2), (1, "right", 2), (-1, "left", 2), (-3, "left", 0)],
)
def test_ordinals_count(number: int, side: Place, index: int) -> None:
    said = Description("mug", "mug", ordinal=Ordinal(number, side))
    assert chosen(said, boxes_geometry(ROW), {"mug": [0.5, 0.5, 0.5]}) == index


@pytest.mark.parametrize(("number", "kind", "index"), [(1, "big", 2), (2, "big", 1), (3, "big", 0), (2, "small", 1)])
def test_ordinals_count_sizes(number: int, kind: SizeKind, index: int) -> None:
    said = Description("mug", "mug", ordinal=Ordinal(number, Size(kind, True)))
    assert chosen(said, boxes_geometry(ROW), {"mug": [0.5, 0.5, 0.5]}) == index


def test_nothing_is_between_itself_and_another() -> None:
    geometry = boxes_geometry([(30, 2, 32, 4), (32, 2, 34, 4), (31, 34, 33, 36)])  # the last is too far off for a share
    said = describe("the mug between the red mug and the blue mug")
    cosines = {"the mug": np.full(3, 0.5), "the red mug": np.array([0.5, 0.5, 0.9]), "the blue mug": np.full(3, 0.5)}
    ((_, pairs),) = describe_masks(said, geometry, cosines).references
    assert all(index not in pair for index, pair in enumerate(pairs))


@pytest.mark.parametrize(("kind", "index"), [("big", 2), ("small", 0), ("tall", 2), ("narrow", 0)])
def test_compared_sizes(kind: str, index: int) -> None:
    said = Description("mug", "mug", sizes=(Size(kind, True),))  # type: ignore[arg-type]
    assert chosen(said, boxes_geometry(ROW), {"mug": [0.5, 0.5, 0.5]}) == index


def of_parts() -> Geometry:
    """A row of three of which the middle one is proposed as a whole, best, and by its right half."""
    geometry = boxes_geometry([*ROW, (24, 18, 28, 26)])
    return replace(geometry, quality=np.array([0.9, 0.95, 0.9, 0.7]))


def test_a_part_of_a_better_mask_loses_and_the_whole_does_not() -> None:
    part = describe_masks(Description("mug", "mug"), of_parts(), {"mug": np.array([0.2, 0.5, 0.2, 0.5])})
    assert part.logits.argmax() == 1
    assert part.terms["overlaid by a better mask"].tolist() == [0, 0, 0, pytest.approx(-OVERLAID)]
    equals = replace(of_parts(), quality=np.ones(4))  # the caller's masks
    assert list(describe_masks(Description("mug", "mug"), equals, {"mug": np.zeros(4)}).terms) == ["looks"]


def test_masks_of_one_thing_count_once() -> None:
    said = Description("mug", "mug", ordinal=Ordinal(3, "left"))
    assert chosen(said, of_parts(), {"mug": [0.5, 0.5, 0.5, 0.5]}) == 2
    leftmost = Description("mug", "mug", places=("right",))
    cosines = {"mug": np.array([0.0, 0.5, 0.0, 0.5])}
    alone = describe_masks(leftmost, of_parts(), cosines).terms["right"]
    assert alone[1] == pytest.approx(alone[3], abs=0.05)  # its own half lies further right, and is no rival


def test_a_superlative_counts_only_what_fits() -> None:
    said = Description("mug", "mug", places=("left",))
    assert chosen(said, boxes_geometry(ROW), {"mug": [-0.5, 0.5, 0.5]}) == 1


@pytest.mark.parametrize(
    ("kind", "index"),
    [("left", 1), ("right", 2), ("behind", 3), ("above", 3), ("front", 4), ("below", 4)],
)
def test_directed_relations(kind: RelationKind, index: int) -> None:
    around = boxes_geometry([(26, 16, 34, 24), (8, 16, 16, 24), (44, 16, 52, 24), (26, 1, 34, 9), (26, 31, 34, 39)])
    said = Description("mug", "mug", relations=(Relation(kind, (Description("box", "box"),)),))
    cosines = {"mug": [0.0, 0.5, 0.5, 0.5, 0.5], "box": [0.9, 0.0, 0.0, 0.0, 0.0]}
    assert chosen(said, around, cosines) == index


@pytest.mark.parametrize(("kind", "index"), [("bigger than", 2), ("smaller than", 0), ("narrower than", 0)])
def test_things_are_compared_with_one_reference(kind: RelationKind, index: int) -> None:
    said = Description("mug", "mug", relations=(Relation(kind, (Description("box", "box"),)),))
    assert chosen(said, boxes_geometry(ROW), {"mug": [0.5, 0.0, 0.5], "box": [0.0, 0.9, 0.0]}) == index


def test_a_relation_can_be_denied() -> None:
    said = Description("mug", "mug", relations=(Relation("left", (Description("box", "box"),), negated=True),))
    cosines = {"mug": [0.5, 0.0, 0.5], "box": [0.0, 0.9, 0.0]}
    assert chosen(said, boxes_geometry(ROW), cosines) == 2
    assert said.to_dict()["relations"][0]["kind"] == "not left"


def test_two_relations_to_things_of_one_name_both_count() -> None:
    left, right = (Description("box", "box", places=(place,)) for place in ("left", "right"))
    said = Description("mug", "mug", relations=(Relation("next", (left,)), Relation("next", (right,))))
    boxes = [(16, 16, 22, 24), (2, 16, 10, 24), (25, 16, 31, 24), (46, 16, 54, 24), (34, 16, 40, 24)]
    cosines = {"mug": np.array([0.0, 0.5, 0.5, 0.5, 0.0]), "box": np.array([0.9, 0.0, 0.0, 0.0, 0.9])}
    part = describe_masks(said, boxes_geometry(boxes), cosines)
    assert {"next box", "next box (2)"} <= set(part.terms)
    assert part.logits.argmax() == 2
    assert [name for name, _ in part.references] == ["next box", "next box (2)"]


def test_what_is_denied_is_no_reference_and_needs_not_be_there(
    engine: risengine.Engine, encoded: risengine.EncodedImage
) -> None:
    plain, denied = (engine.segment(encoded, text).explanation for text in ("the mug", "the mug without a giraffe"))
    assert plain is not None
    assert denied is not None
    assert denied.references == ()
    assert denied.signs is not None
    assert denied.signs.worst_looks == denied.signs.looks


def test_next_to_inside_and_between() -> None:
    geometry = boxes_geometry([(2, 2, 22, 22), (8, 8, 12, 12), (24, 6, 30, 12), (50, 30, 58, 38)])
    box = Description("box", "box")
    cosines = {"mug": [0.0, 0.5, 0.5, 0.5], "box": [0.9, 0.0, 0.0, 0.0], "plate": [0.0, 0.0, 0.0, 0.9]}
    assert chosen(Description("mug", "mug", relations=(Relation("inside", (box,)),)), geometry, cosines) == 1
    assert chosen(Description("mug", "mug", relations=(Relation("far", (box,)),)), geometry, cosines) == 3
    between = Relation("between", (box, Description("plate", "plate")))
    row = boxes_geometry([(2, 15, 10, 25), (14, 2, 20, 8), (26, 15, 34, 25), (50, 15, 58, 25)])
    assert chosen(Description("mug", "mug", relations=(between,)), row, cosines) == 2


def test_a_chained_reference_is_resolved_first() -> None:
    geometry = boxes_geometry([(5, 2, 10, 8), (15, 2, 22, 8), (35, 24, 40, 30), (45, 24, 52, 30), (45, 12, 50, 18)])
    plate = Description("plate", "plate")
    box = Description("box", "box", relations=(Relation("front", (plate,)),))
    said = Description("mug", "mug", relations=(Relation("left", (box,)),))
    cosines = {"mug": [0.6, 0.0, 0.6, 0.0, 0.0], "box": [0.0, 0.6, 0.0, 0.6, 0.0], "plate": [0.0, 0.0, 0.0, 0.0, 0.9]}
    assert chosen(said, geometry, cosines) == 2


def test_exclusion_takes_what_is_left() -> None:
    said = Description("mug", "mug", excluded=("red object",))
    assert chosen(said, boxes_geometry(ROW), {"mug": [0.6, 0.55, 0.0], "red object": [0.7, 0.1, 0.1]}) == 1


DIRECTED: list[tuple[RelationKind, RelationKind]] = [
    ("left", "right"), ("front", "behind"), ("above", "below"), ("bigger than", "smaller than"),
    ("taller than", "shorter than"), ("wider than", "narrower than"),
]  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.sampled_from(DIRECTED))
@settings(max_examples=50, deadline=None)
def test_opposite_relations_mirror_each_other(seed: int, pair: tuple[RelationKind, RelationKind]) -> None:
    geometry = random_geometry(seed)
    forth, back = (geometry.related(kind) for kind in pair)
    np.testing.assert_allclose(forth, back.T, atol=1e-9)
    assert forth.min() >= 0
    assert forth.max() <= 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_terms_add_up_and_order_does_not_matter(seed: int) -> None:
    geometry = random_geometry(seed)
    rng = np.random.default_rng(seed)
    cosines = {name: rng.uniform(-0.2, 0.7, 5) for name in ("mug", "box", "red mug")}
    box = Description("box", "box", places=("back",))
    said = Description(
        "mug", "mug", places=("left",), sizes=(Size("big", True),), relations=(Relation("next", (box,)),),
        excluded=("red mug",), ordinal=Ordinal(2, "right"),
    )  # fmt: skip
    part = describe_masks(said, geometry, cosines)
    np.testing.assert_allclose(part.logits, np.sum(list(part.terms.values()), axis=0))
    assert np.isfinite(part.logits).all()
    order = rng.permutation(5)
    moved = Geometry(
        geometry.centre[order], geometry.base[order], geometry.box[order], geometry.area[order],
        geometry.shared[np.ix_(order, order)], geometry.quality[order],
    )  # fmt: skip
    again = describe_masks(said, moved, {name: values[order] for name, values in cosines.items()})
    np.testing.assert_allclose(again.logits, part.logits[order], atol=1e-9)


def random_geometry(seed: int, count: int = 5) -> Geometry:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.7, (count, 2))
    box = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (count, 2))], axis=1)
    shared = rng.choice([0.0, 0.4], (count, count))
    shared = np.maximum(np.maximum(shared, shared.T), np.eye(count))
    centre, area = (box[:, :2] + box[:, 2:]) / 2, np.prod(box[:, 2:] - box[:, :2], axis=1)
    return Geometry(centre, box[:, 3], box, area, shared, rng.uniform(0.5, 1, count))


def test_every_strategy_answers_and_says_why(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    for name in STRATEGIES:
        answer = engine.segment(encoded, "the mug behind the box", name)
        why = answer.explanation
        assert why is not None
        assert why.strategy == name
        assert sum(why.terms.values()) == pytest.approx(answer.score, abs=1e-5)
        assert answer.to_dict()["explanation"]["parse"]["relations"][0]["kind"] == "behind"
    spatial = engine.segment(encoded, "the mug behind the box").explanation
    assert spatial is not None
    assert spatial.strategy == "spatial"
    assert [item.words for item in spatial.references] == ["behind the box"]
    assert spatial.references[0].mask.any()


@pytest.mark.parametrize("text", ["the red mug", "a small green cube", "the bottle"])
def test_without_geometry_spatial_is_the_papers_score_less_what_better_masks_cover(
    engine: risengine.Engine, encoded: risengine.EncodedImage, text: str
) -> None:
    ours, paper = (engine.rank(encoded, text, 99, name) for name in ("spatial", "global_local"))
    taken = overlaid(encoded.geometry)["overlaid by a better mask"] / SHARPNESS
    scores = {answer.index: answer.score for answer in paper}
    assert {a.index: a.score - taken[a.index] for a in ours} == pytest.approx(scores, abs=1e-6)
    apart = engine.encode_image(encoded.image, masks=encoded.proposals.masks[taken == 0])  # none better than another
    assert [a.score for a in engine.rank(apart, text, 99)] == [
        a.score for a in engine.rank(apart, text, 99, "global_local")
    ]


def test_the_strategy_can_be_set_when_loading(encoded: risengine.EncodedImage, engine: risengine.Engine) -> None:
    text = "the leftmost cube"
    with risengine.load("tabletop", risengine.RuntimeConfig(threads=1, strategy="global_local")) as paper:
        answer = paper.segment(encoded, text)
    assert answer.explanation is not None
    assert answer.explanation.strategy == "global_local"
    assert answer.index == engine.segment(encoded, text, "global_local").index


@pytest.mark.parametrize("name", ["nearest", ""])
def test_an_unknown_strategy_is_refused(
    engine: risengine.Engine, encoded: risengine.EncodedImage, name: StrategyName
) -> None:
    if name:
        with pytest.raises(risengine.InputError, match="expected one of spatial, global_local"):
            engine.segment(encoded, "the mug", name)
    with pytest.raises(risengine.InputError, match="expected one of spatial, global_local"):
        risengine.RuntimeConfig(strategy=name)


def test_rejection(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    assert engine.segment(encoded, "the red mug", reject_below=0.0) is not None
    assert engine.segment(encoded, "the red mug", reject_below=1.0) is None
    with pytest.raises(risengine.InputError, match=r"expected a confidence in \[0, 1\]"):
        engine.segment(encoded, "the red mug", reject_below=1.5)
    with pytest.raises(risengine.InputError, match="calibrated confidence"):
        engine.segment(encoded, "the red mug", "contrast", reject_below=0.5)


def test_the_margin_is_to_the_next_in_the_ranking(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    answers = engine.rank(encoded, "the leftmost cube", top_k=99)
    for answer, following in itertools.pairwise(answers):
        assert answer.explanation is not None
        assert answer.explanation.margin == pytest.approx(answer.score - following.score, abs=1e-6)
    assert answers[-1].explanation is not None
    assert answers[-1].explanation.margin is None


def least_ms(*calls: Callable[[], object]) -> list[float]:
    """Processor time of the quickest of twenty turns of each call: other work on the machine only ever adds to it."""
    spent = []
    for _ in range(20):
        for call in calls:
            start = time.thread_time()
            call()
            spent.append(1e3 * (time.thread_time() - start))
    return [min(spent[first :: len(calls)]) for first in range(len(calls))]


def test_spatial_costs_little(engine: risengine.Engine, encoded: risengine.EncodedImage) -> None:
    text = "the second mug from the left behind the box between the cube and the ball that is not red"

    def ask(name: StrategyName) -> object:
        return engine.segment(replace(encoded), text, name)  # a copy's geometry is not measured yet

    ask("spatial"), ask("global_local")  # the texts are known from here on
    spatial_ms, global_local_ms = least_ms(lambda: ask("spatial"), lambda: ask("global_local"))
    assert spatial_ms - global_local_ms < 10, (spatial_ms, global_local_ms)


def test_a_hundred_masks_cost_little() -> None:
    geometry, rng = random_geometry(0, 100), np.random.default_rng(0)
    said = describe("the second mug from the left behind the box between the cube and the ball that is not red")
    cosines = {text: rng.random(100) for part in said.walk() for text in (part.phrase, *part.excluded)}
    (spent_ms,) = least_ms(lambda: describe_masks(said, geometry, cosines))
    assert spent_ms < 10
