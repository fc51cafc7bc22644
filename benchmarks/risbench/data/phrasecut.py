"""PhraseCut (Wu et al., CVPR 2020) in the form that its makers publish, as a data set like REFER's.

``<root>/phrasecut/image_data_split.json`` lists the images, ``<root>/phrasecut/refer_<split>.json`` a phrase each with
the polygons of all its instances; the image files are ``<root>/images/phrasecut/<image_id>.jpg``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from risbench.data.refer import Annotation, PolygonRule, Ref, ReferDataset, ReferImage, Sentence
from risengine.errors import InputError

__all__ = ["PHRASECUT", "PhraseCutDataset", "load_phrasecut"]

PHRASECUT = "phrasecut"

_SPLITS = ("miniv", "val", "test", "train")
_DRAWN_POINTS = 2  # fewest of a polygon that the data set's own code draws
_Parsed = TypeVar("_Parsed")


class _Task(msgspec.Struct):
    """A phrase, and the polygons of each of its instances as lists of x and y."""

    image_id: int
    task_id: str
    phrase: str
    instances: list[list[list[tuple[float, float]]]] = msgspec.field(name="Polygons")


class _ImageEntry(msgspec.Struct):
    image_id: int
    width: int
    height: int


class PhraseCutDataset(ReferDataset):
    """A phrase means the union of all its instances, which count as one object."""

    def mask(self, ann_id: int, polygons: PolygonRule = "union") -> NDArray[np.bool_]:
        """Draws a phrase's instances as the data set's own code does: corners truncated to pixels, outlines included.

        Args:
            ann_id: Number of the phrase.
            polygons: What to do where polygons overlap.

        Returns:
            (H, W) bool at the image's size.
        """
        annotation = self.annotations[ann_id]
        image = self.images[annotation.image_id]
        covered = np.zeros((image.height, image.width), np.uint8)
        assert isinstance(annotation.segmentation, list)
        for flat in annotation.segmentation:
            canvas = Image.new("L", (image.width, image.height))
            corners = [(int(x), int(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)]
            ImageDraw.Draw(canvas).polygon(corners, outline=1, fill=1)
            covered += np.asarray(canvas)
        return covered == 1 if polygons == "once" else covered > 0


def load_phrasecut(root: Path) -> PhraseCutDataset:
    """Reads the splits whose files are there.

    Args:
        root: Folder of data sets, as REFER's.

    Raises:
        InputError: A file is missing or malformed, or a phrase is about an image that is not listed.
    """
    folder = root / PHRASECUT
    paths = {split: path for split in _SPLITS if (path := folder / f"refer_{split}.json").is_file()}
    if not paths:
        raise InputError(f"{folder} has no refer_<split>.json; expected PhraseCut's files there, one of a split each.")
    entries = _read(folder / "image_data_split.json", list[_ImageEntry])
    images = {e.image_id: ReferImage(e.image_id, f"{e.image_id}.jpg", e.height, e.width) for e in entries}
    refs: list[Ref] = []
    annotations: dict[int, Annotation] = {}
    for split, path in paths.items():
        for task in _read(path, list[_Task]):
            if task.image_id not in images:
                raise InputError(
                    f"task {task.task_id} of {path} is about image {task.image_id}, which image_data_split.json does "
                    "not list. The two files do not belong together."
                )
            number = len(refs)
            annotations[number] = _annotation(number, task)
            refs.append(_ref(number, task, split))
    return PhraseCutDataset(PHRASECUT, PHRASECUT, tuple(refs), images, annotations, root / "images" / PHRASECUT)


def _annotation(number: int, task: _Task) -> Annotation:
    polygons = [polygon for instance in task.instances for polygon in instance if len(polygon) >= _DRAWN_POINTS]
    flat = [[value for point in polygon for value in point] for polygon in polygons]
    return Annotation(number, task.image_id, category_id=0, segmentation=flat)


def _ref(number: int, task: _Task, split: str) -> Ref:
    sentence = Sentence(number, task.phrase, task.phrase, task.phrase.split())
    return Ref(number, number, task.image_id, 0, split, [number], [sentence], task.task_id)


def _read(path: Path, kind: type[_Parsed]) -> _Parsed:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); expected PhraseCut's file of that name."
        ) from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is not in PhraseCut's format: {error}. Download it again.") from error
