"""How places, rows and sizes are read; every rule takes what it understands and says whether it did."""

from __future__ import annotations

from risengine.language.expression import COMPARISONS, Place, RelationKind, Size
from risengine.language.lexicon import EVERYTHING, FACING, ORDINALS, PLACES, SCENE, SIDES, SIZES, VIEWER
from risengine.language.reader import Reader

__all__ = ["PLACE_OF", "read_compared", "read_everything", "read_facing", "read_ordinal", "read_place", "read_size"]

PLACE_OF: dict[RelationKind, Place] = {
    "left": "left", "right": "right", "front": "front", "behind": "back", "above": "top", "below": "bottom",
    "between": "middle",
}  # fmt: skip
"""The place of what stands so to everything else."""

_DEPTHS: dict[str, Place] = {"far": "back", "near": "front"}
_DISTANCES = ("farthest", "furthest", "farther", "further", "closest", "nearest", "far")


def read_ordinal(reader: Reader) -> bool:
    """Reads "second", before its noun, and "from the left", before or after it."""
    number = 1 if reader.ahead() == "last" else ORDINALS.get(reader.ahead())
    late = bool(reader.draft.noun)
    if number is None or (late and not _counts_from_side(reader)):
        return _read_ordinal_side(reader)
    step = 1
    while reader.ahead(step) in ("to", "from", "the", "-") or reader.ahead() == reader.ahead(step) == "last":
        step += 1
    from_last = reader.ahead() == "last" or reader.ahead(step) == "last"  # "the second to last"
    reader.at += step + 1 if from_last and reader.ahead() != "last" else 1
    reader.draft.ordinal = -number if from_last else number
    return True


def _counts_from_side(reader: Reader) -> bool:
    """Whether a count follows its noun: "the mug that is third from the left"."""
    step = 2
    while reader.ahead(step) in ("the", "far"):
        step += 1
    return reader.draft.ordinal == 0 and reader.ahead(1) == "from" and reader.ahead(step) in PLACES


def _read_ordinal_side(reader: Reader) -> bool:
    if reader.draft.ordinal == 0 or reader.ahead() not in ("from", "to", "in", "on", "at", "counting"):
        return False
    step = 1
    while reader.ahead(step) in ("the", "from", "far"):
        step += 1
    if (side := PLACES.get(reader.ahead(step))) is None or reader.ahead(step + 1) == "of":
        return False
    reader.draft.ordinal_side = side
    reader.at += step + 1
    return True


def read_everything(reader: Reader) -> bool:
    """Reads "closest to me" and "in front of everything", which are places."""
    found = reader.cue()
    if found is None:
        return False
    kind, length = found
    step = length
    while reader.ahead(step) in ("the", "to", "from", "of", "all"):
        step += 1
    place = PLACE_OF.get(kind)
    if reader.ahead(step) in VIEWER and kind in ("next", "far", "front"):
        place = "back" if kind == "far" else "front"
    elif reader.ahead(step) not in EVERYTHING and not (reader.ahead(step - 1) == "all" and step > length):
        return False
    if kind in COMPARISONS:  # "bigger than the others"
        reader.draft.sizes.append(Size(COMPARISONS[kind], compared=True))
    elif place is None:
        return False
    else:
        reader.draft.places.append(place)
    reader.at += step + (reader.ahead(step) != "")
    return True


def read_place(reader: Reader) -> bool:
    """Reads "on the left", "bottom right", "at the back of the table"."""
    step = 0
    while reader.ahead(step) in ("on", "in", "at", "to", "toward", "towards", "from"):
        step += 1
    while reader.ahead(step) in ("the", "very", "extreme", "my", "our", "your"):
        step += 1
    start = step
    step += reader.ahead(step) == "far"
    if reader.ahead(step) == "left" and _is_participle(reader, step):
        reader.at += step + 1
        return True
    places: list[Place] = []
    while (place := PLACES.get(reader.ahead(step))) is not None and not _intensifies(reader, step):
        if _begins_relation(reader, step):
            break
        places.append(place)
        step += 1
        step = _after_joint(reader, step)
    if not places:
        return _read_depth(reader, start)
    if len(places) > 1 and reader.ahead(start) in _DISTANCES:
        places = places[1:] if places[0] in ("back", "front") else places
    while (reader.draft.noun and reader.ahead(step) in SIDES) or reader.ahead(step) in ("side", "edge"):
        step += 1
    if reader.ahead(step) in ("of", "in", "on") and _is_scene(reader, step + 1):
        step += 2 + (reader.ahead(step + 1) in ("the", "this"))
    reader.draft.places.extend(places)
    reader.at += step
    return True


def _read_depth(reader: Reader, step: int) -> bool:
    """Reads "the far mug" and "at the near end of the table"."""
    place = _DEPTHS.get(reader.ahead(step))
    thing = reader.ahead(step + 1) in SIDES or reader.is_noun(step + 1)
    if place is None or not thing or reader.ahead(step - 1) not in ("the", "my", "your"):
        return False
    reader.draft.places.append(place)
    reader.at += step + 1
    if reader.ahead() in SIDES and reader.draft.noun:
        reader.at += 1
        if reader.ahead() == "of" and _is_scene(reader, 1):
            reader.at += 2 + (reader.ahead(1) in ("the", "this"))
    return True


def read_facing(reader: Reader) -> bool:
    """Takes in "facing left", a direction that the object looks in, which no score measures: it counts as unread."""
    if reader.ahead() not in FACING:
        return False
    step = 1
    while reader.ahead(step) in ("to", "toward", "towards", "at", "the", "away", "from"):
        step += 1
    if reader.ahead(step) not in PLACES and reader.ahead(step) not in VIEWER and reader.ahead(step - 1) != "away":
        return False
    step += reader.ahead(step) != ""
    reader.draft.unread += reader.words[reader.at : reader.at + step]
    reader.at += step
    return True


def _is_participle(reader: Reader, step: int) -> bool:
    """Whether "left" is no direction: "has been left on the table", "left behind the box"."""
    return reader.ahead(step - 1) in ("been", "being") or reader.ahead(step + 1) == "behind"


def _after_joint(reader: Reader, step: int) -> int:
    """Returns where a further place begins, as in "bottom and to the left"; the step itself where none does."""
    step += 2 * (reader.ahead(step) == "-" and reader.ahead(step + 1) == "most") + (reader.ahead(step) == "most")
    ahead = step
    while reader.ahead(ahead) in ("-", "and", "to", "the"):
        ahead += 1
    relations = (reader.cue(index) for index in range(step, ahead + 1))
    begins_relation = any(found is not None and found[1] > 1 for found in relations)
    return step if begins_relation or reader.ahead(ahead) not in PLACES else ahead


def _is_scene(reader: Reader, step: int) -> bool:
    return reader.ahead(step + (reader.ahead(step) in ("the", "this"))) in SCENE


def _begins_relation(reader: Reader, step: int) -> bool:
    """Whether "closest" is to a thing, as in "that is the closest to the ball"."""
    found = reader.cue(step)
    if found is None or found[0] != "next" or found[1] < 2 or reader.ahead(step + 2) in PLACES:
        return False
    step += 2 + (reader.ahead(step + 2) in ("the", "a"))
    return reader.ahead(step) not in ("", *VIEWER, *EVERYTHING, *SCENE, *PLACES)


def _intensifies(reader: Reader, step: int) -> bool:
    """Whether "right" only strengthens a relation: "right behind the box"."""
    if reader.ahead(step) != "right" or reader.ahead(step + 1) in ("in", "on", "with", "of"):
        return False
    return reader.cue(step + 1) is not None


def read_compared(reader: Reader) -> bool:
    """Reads "smallest", after "the" too, but not "small"."""
    step = int(reader.ahead() == "the")
    _, compared = SIZES.get(reader.ahead(step), ("", False))
    reader.at += compared * step
    return compared and read_size(reader)


def read_size(reader: Reader) -> bool:
    """Reads "small" and "smallest"."""
    size = SIZES.get(reader.ahead())
    if size is None:
        return False
    kind, compared = size
    if reader.ahead() == "little" and reader.ahead(-1) == "a" and reader.draft.noun:
        reader.at += 1  # "the box a little to the right"
        return True
    reader.draft.sizes.append(Size(kind, compared))
    if not compared:
        reader.draft.words.append(reader.ahead())
    reader.at += 1
    return True
