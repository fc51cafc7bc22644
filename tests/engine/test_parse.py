"""What is read in an expression, in a short notation that was checked by hand sentence by sentence.

``phrase | @place | %compared size | ~size | #ordinal side | !excluded | relation(reference) | ?unread``
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risengine.expression import Description
from risengine.lexicon import CUES, NEGATIONS, ORDINALS, PLACES, SIZES
from risengine.parse import describe

READINGS = [
    ("the man with a red shirt and blue hat", "the man | with(a red shirt) | with(blue hat)"),
    ("the man with a red shirt and a blue hat", "the man | with(a red shirt) | with(a blue hat)"),
    ("the man with a red and white shirt", "the man | with(a red white shirt)"),
    ("the mug between the red and the blue box", "the mug | between(the red box, the blue box)"),
    ("the mug between the red and blue boxes", "the mug | between(the red box, blue box)"),
    ("the closest mug to the box", "mug | next(the box)"),
    ("the nearest red mug to the small plate", "red mug | next(the small plate | ~small)"),
    ("the closest mug to the camera", "mug | @front"),
    ("the farthest cup from the bowl", "cup | far(the bowl)"),
    ("the mug with no handle behind the box", "the mug | not with(handle) | behind(the box)"),
    ("the plate without a lid next to the mug", "the plate | not with(a lid) | next(the mug)"),
    ("the bowl that doesn't contain a ball", "the bowl | not with(a ball)"),
    ("the bowl that does not have a lid", "the bowl | not with(a lid)"),
    ("the mugs that don't touch the box", "the mug | not next(the box)"),
    ("the mug that touches the box", "the mug | next(the box)"),
    ("the bowl that contains a ball", "the bowl | with(a ball)"),
    ("the woman's red bag", "the red bag | next(the woman)"),
    ("man's hat on the left", "the hat | @left | next(man)"),
    ("the boy's red ball next to the dog", "the red ball | next(the boy) | next(the dog)"),
    ("the mug that's red", "the red mug"),
    ("the cup that has been left on the table", "the cup"),
    ("the mug left behind the box", "the mug | behind(the box)"),
    ("the mug left, behind the box", "the mug | @left | behind(the box)"),
    ("the block next to the mug", "the block | next(the mug)"),
    ("the mug that doesn't block the box", "the mug | not front(the box)"),
    ("upper left-hand bowl", "bowl | @top | @left"),
    ("the left-hand bowl", "bowl | @left"),
    ("the 2nd to last mug", "the mug | #-2left"),
    ("the second from last mug", "the mug | #-2left"),
    ("the second last mug from the left", "the mug | #-2left"),
    ("the last mug", "the mug | #-1left"),
    ("the mug farther left", "the mug | @left"),
    ("a box to the right of and behind the mug", "a box | right(the mug) | behind(the mug)"),
    ("the box behind and to the left of the mug", "the box | behind(the mug) | left(the mug)"),
    ("every mug but the red one", "mug | !red object"),
    ("all but the blue one", "object | !blue object"),
    ("not red but blue mug", "blue mug | !red object"),
    ("the ring around the bottle", "the ring | with(the bottle)"),
    ("whichever mug is nearest the bowl", "mug | next(the bowl)"),
    ("anything blue", "blue object"),
    ("the mug that stands left of the box", "the mug | left(the box)"),
    ("could you hand me the green one by the plate", "the green object | next(the plate)"),
    ("of the three boxes, the middle one", "the box | @middle"),
    ("the rightmost of the two mugs", "the mug | @right"),
    ("the mug the furthest from the plate", "the mug | far(the plate)"),
    ("the object behind the second mug from the left", "the object | behind(the mug | #2left)"),
    ("the leftmost of the red mugs", "the red mug | @left"),
    ("the mug on the right of the right bowl", "the mug | right(bowl | @right)"),
    ("girl with the pink hat and white shoes", "girl | with(the pink hat) | with(white shoe)"),
    ("guy in red left", "red guy | @left"),
    ("bottom right pizza slice", "pizza slice | @bottom | @right"),
    ("2nd cow from left", "cow | #2left"),
    ("the red mug", "the red mug"),
    ("small green cube", "small green cube | ~small"),
    ("the mug smaller than the box", "the mug | smaller than(the box)"),
    ("the bottle that is taller than the can", "the bottle | taller than(the can)"),
    ("the box that the mug is bigger than", "the box | smaller than(the mug)"),
    ("the cube bigger than the others", "the cube | %big"),
    ("the mug to the far left of the bowl", "the mug | left(the bowl)"),
    ("the cone on the far right of the table", "the cone | @right"),
    ("the plate without a mug on it", "the plate | not below(a mug)"),
    ("the pot without a lid", "the pot | not with(a lid)"),
    ("the mug with no spoon", "the mug | not with(spoon)"),
    ("the plate with nothing on it", "the plate | not below(object)"),
    ("the red mug and the blue box", "the red mug | ?the | ?blue | ?box"),
    ("the red and white ball", "the red white ball"),
    ("the mug without", "the mug"),
    ("mug not on the left", "mug | ?not | ?on | ?the | ?left"),
    ("the mug that is not closest to the camera", "the mug | ?not | ?closest | ?to | ?the | ?camera"),
    ("the mug that is not the biggest", "the mug | ?not | ?the | ?biggest"),
    ("the mug not on the right side of the table", "the mug | ?right"),
    ("the mug neither behind the box nor next to the bowl", "the mug | not behind(the box) | not next(the bowl)"),
    ("the mug not left of the box and not behind the bowl", "the mug | not left(the box) | not behind(the bowl)"),
    ("the mug the box isn't behind", "the mug | not front(the box)"),
    ("the box the mug is not in", "the box | not with(the mug)"),
    ("the mug with a box not behind it", "the mug | not front(a box)"),
    ("the bowl that is not holding anything", "the bowl | not with(object)"),
    ("the mug in the middle of the table", "the mug | @middle"),
    ("the mug on your left", "the mug | @left"),
    ("the cup to the bottom and left", "the cup | @bottom | @left"),
    ("the mug next to the box on the left and behind the bowl", "the mug | next(the box | @left) | behind(the bowl)"),
    ("a tiny blue ball", "a tiny blue ball | ~small"),
    ("the bottle", "the bottle"),
    ("leftmost mug", "mug | @left"),
    ("the rightmost plate", "plate | @right"),
    ("the mug on the far left", "the mug | @left"),
    ("the box on the left", "the box | @left"),
    ("the box to the left", "the box | @left"),
    ("the box furthest to the left", "the box | @left"),
    ("the bowl on the right side", "the bowl | @right"),
    ("the star on the right side of the table", "the star | @right"),
    ("the farthest cube", "cube | @back"),
    ("the cube farthest away", "the cube | @back"),
    ("the cube at the back", "the cube | @back"),
    ("the rearmost cube", "cube | @back"),
    ("the front bowl", "bowl | @front"),
    ("the bowl at the front", "the bowl | @front"),
    ("the nearest cone", "cone | @front"),
    ("the cone closest to the camera", "the cone | @front"),
    ("the mug closest to me", "the mug | @front"),
    ("the plate nearest to us", "the plate | @front"),
    ("bowl farthest from me", "bowl | @back"),
    ("the middle ring", "ring | @middle"),
    ("the ring in the middle", "the ring | @middle"),
    ("the ring in the center of the picture", "the ring | @middle"),
    ("top left star", "star | @top | @left"),
    ("the star in the top left", "the star | @top | @left"),
    ("upper right box", "box | @top | @right"),
    ("the star in the bottom left corner", "the star | @bottom | @left | @corner"),
    ("the lower plate", "plate | @bottom"),
    ("the plate in the foreground", "the plate | @front"),
    ("left one", "object | @left"),
    ("the one on the right", "the object | @right"),
    ("blue one on the left", "blue object | @left"),
    ("biggest bowl", "bowl | %big"),
    ("the smallest brown cup", "the brown cup | %small"),
    ("the larger of the two boxes", "the box | %big"),
    ("the smaller of the two plates", "the plate | %small"),
    ("taller bottle", "bottle | %tall"),
    ("the tallest man", "the man | %tall"),
    ("shortest woman", "woman | %short"),
    ("the widest plate", "the plate | %wide"),
    ("thinner book", "book | %narrow"),
    ("second bottle from the right", "bottle | #2right"),
    ("the third cup from the left", "the cup | #3left"),
    ("first car on the left", "car | #1left"),
    ("2nd zebra from right", "zebra | #2right"),
    ("last cube on the right", "cube | #-1right"),
    ("the fourth person from left", "the person | #4left"),
    ("the mug left of the box", "the mug | left(the box)"),
    ("the mug to the left of the box", "the mug | left(the box)"),
    ("the mug on the left of the box", "the mug | left(the box)"),
    ("the mug on the left side of the box", "the mug | left(the box)"),
    ("the mug right of the box", "the mug | right(the box)"),
    ("mug to the right of the plate", "mug | right(the plate)"),
    ("the mug in front of the box", "the mug | front(the box)"),
    ("the mug behind the box", "the mug | behind(the box)"),
    ("mug above the plate", "mug | above(the plate)"),
    ("the lamp over the table", "the lamp | above(the table)"),
    ("cat under the chair", "cat | below(the chair)"),
    ("cat below the shelf", "cat | below(the shelf)"),
    ("cup on the plate", "cup | on(the plate)"),
    ("the book on top of the box", "the book | on(the box)"),
    ("mug next to the bowl", "mug | next(the bowl)"),
    ("mug beside the bowl", "mug | next(the bowl)"),
    ("mug near the bowl", "mug | next(the bowl)"),
    ("mug by the bowl", "mug | next(the bowl)"),
    ("mug close to the bowl", "mug | next(the bowl)"),
    ("the cylinder nearest the pyramid", "the cylinder | next(the pyramid)"),
    ("the cone closest to the red ball", "the cone | next(the red ball)"),
    ("the ball far from the box", "the ball | far(the box)"),
    ("ball inside the bowl", "ball | inside(the bowl)"),
    ("ball in the bowl", "ball | inside(the bowl)"),
    ("man with hat", "man | with(hat)"),
    ("man with a red hat", "man | with(a red hat)"),
    ("the bowl between the mug and the box", "the bowl | between(the mug, the box)"),
    ("the bowl in between the red mug and the blue box", "the bowl | between(the red mug, the blue box)"),
    ("the bowl between the two plates", "the bowl | between(the plate)"),
    ("cup that is to the left of the box", "cup | left(the box)"),
    ("the cup that is behind the plate", "the cup | behind(the plate)"),
    ("the mug which is next to the bowl", "the mug | next(the bowl)"),
    ("the ball that sits in front of the cube", "the ball | front(the cube)"),
    ("the horse that is hidden by the tree", "the horse | behind(the tree)"),
    ("the mug that's standing right behind the bowl", "the mug | behind(the bowl)"),
    ("the pyramid right next to the black one", "the pyramid | next(the black pyramid)"),
    ("the cone right behind the mug", "the cone | behind(the mug)"),
    ("box with a mug behind it", "box | front(a mug)"),
    ("cup with a ball in front of it", "cup | behind(a ball)"),
    ("plate that has a mug to the left of it", "plate | right(a mug)"),
    ("cube which has a cone next to it", "cube | next(a cone)"),
    ("the mug left of the bowl behind the plate", "the mug | left(the bowl | behind(the plate))"),
    ("the ring in front of the box right of the star", "the ring | front(the box | right(the star))"),
    ("pyramid behind the can left of the blue cube", "pyramid | behind(the can | left(the blue cube))"),
    ("the mug next to the box and behind the plate", "the mug | next(the box) | behind(the plate)"),
    ("grab me the mug, the one next to the brown one", "the mug | next(the brown mug)"),
    ("can you hand me that blue cup please", "the blue cup"),
    ("give me the red ball", "the red ball"),
    ("pick up the leftmost cube", "cube | @left"),
    ("i want the bowl behind the bottle", "the bowl | behind(the bottle)"),
    ("bring me the plate", "the plate"),
    ("not the red one", "object | !red object"),
    ("the mug that is not blue", "the mug | !blue object"),
    ("the red thing that is not a star", "the red thing | !star"),
    ("the ball, not the green one", "the ball | !green object"),
    ("the cone that's neither pink nor purple", "the cone | !pink object | !purple object"),
    ("the one that isn't a ring", "the object | !ring"),
    ("any mug except the red one", "mug | !red object"),
    ("the black mug in front of everything", "the black mug | @front"),
    ("the mug left of all the others", "the mug | @left"),
    ("the leftmost cube behind the bowl", "cube | @left | behind(the bowl)"),
    ("the biggest mug next to the red plate", "the mug | %big | next(the red plate)"),
    ("the small red cube on the left", "the small red cube | @left | ~small"),
    ("the ball left of the smallest box", "the ball | left(the box | %small)"),
    ("the mug behind the leftmost bowl", "the mug | behind(bowl | @left)"),
    ("the mug behind the second bowl from the left", "the mug | behind(the bowl | #2left)"),
    ("the leftmost can", "can | @left"),
    ("orange can", "orange can"),
    ("the can behind the box", "the can | behind(the box)"),
    ("thing on the left", "thing | @left"),
    ("the object at the back", "the object | @back"),
    ("woman right of the guy in blue", "woman | right(the blue guy)"),
    ("black dog bottom left", "black dog | @bottom | @left"),
    ("bigger elephant", "elephant | %big"),
    ("the box on the table", "the box"),
    ("the mug on the left of the table", "the mug | @left"),
    ("uh get me the green cup", "the green cup"),
    ("could you find the ball behind the second box from the right", "the ball | behind(the box | #2right)"),
    ("the tall black thing", "the tall black thing | ~tall"),
    ("the bowl that has a ball inside it", "the bowl | with(a ball)"),
    ("the woman in the white shirt standing next to the man", "the woman | inside(the white shirt) | next(the man)"),
    ("the man with the hat who is left of the tree", "the man | with(the hat) | left(the tree)"),
    ("the mug left of the bowl that is behind the plate", "the mug | left(the bowl | behind(the plate))"),
    ("the mug that the box is in front of", "the mug | behind(the box)"),
    ("the cup that the ball is next to", "the cup | next(the ball)"),
    ("the ball the cube is behind", "the ball | front(the cube)"),
    ("the bowl the mug is standing in", "the bowl | with(the mug)"),
    ("the plate on which the cup stands", "the plate | below(the cup)"),
    ("the mug blocking the box", "the mug | front(the box)"),
    ("the cone that has been put between the mug and the box", "the cone | between(the mug, the box)"),
    ("behind the box there is a mug", "a mug | behind(the box)"),
    ("to the left of the bowl is a mug", "a mug | left(the bowl)"),
    ("the mug that has the box to its left", "the mug | right(the box)"),
    ("the cube with a ball on its right", "the cube | left(a ball)"),
    ("the bowl between the plates and behind the box", "the bowl | between(the plate) | behind(the box)"),
    ("the mug left of the bowl and the plate", "the mug | left(the bowl) | left(the plate)"),
    ("the mug that is next to the box and is red", "the red mug | next(the box)"),
    ("the cube that is the closest to the ball", "the cube | next(the ball)"),
    ("cup that's not behind the box", "cup | not behind(the box)"),
    ("the cup not next to the bowl", "the cup | not next(the bowl)"),
]


def short(said: Description) -> str:
    parts = [said.phrase, *(f"@{place}" for place in said.places)]
    parts += [("%" if size.compared else "~") + size.kind for size in said.sizes]
    parts += [f"#{said.ordinal.words.replace(' from ', '')}"] if said.ordinal else []
    parts += [f"!{phrase}" for phrase in said.excluded]
    parts += [
        f"{'not ' * item.negated}{item.kind}({', '.join(map(short, item.references))})" for item in said.relations
    ]
    return " | ".join([*parts, *(f"?{word}" for word in said.unread)])


@pytest.mark.parametrize(("text", "reading"), READINGS)
def test_reading(text: str, reading: str) -> None:
    assert short(describe(text)) == reading


def test_there_are_enough_sentences() -> None:
    assert len({text for text, _ in READINGS}) >= 120


def test_a_plural_reference_is_marked() -> None:
    (between,) = describe("the bowl between the two plates").relations
    assert between.references[0].plural
    assert between.references[0].noun == "plate"


def test_walk_follows_the_text_and_to_dict_leaves_out_what_was_not_said() -> None:
    said = describe("the mug left of the bowl behind the plate")
    assert [part.noun for part in said.walk()] == ["mug", "bowl", "plate"]
    assert said.to_dict()["relations"][0]["references"][0]["relations"][0]["kind"] == "behind"
    assert describe("the mug").to_dict() == {"phrase": "the mug", "noun": "mug"}


@pytest.mark.parametrize(("text", "needs"), [("the small red mug", False), ("the smallest mug", True)])
def test_needs_geometry(text: str, needs: bool) -> None:
    assert describe(text).needs_geometry is needs


WORDS = sorted(
    {"mug", "box", "the", "a", "red", "of", "it", "one", "and", ",", "not", "is", "that", "two", "all", "me", "table"}
    | {word for cue in CUES for word in cue} | set(PLACES) | set(SIZES) | set(ORDINALS) | NEGATIONS | {"no", "nothing"}
)  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=14))
@settings(max_examples=400, deadline=None)
def test_any_words_are_read(words: list[str]) -> None:
    said = describe(" ".join(words))
    assert all(part.phrase and part.noun for part in said.walk())
    assert all(len(relation.references) in (1, 2) for part in said.walk() for relation in part.relations)
