"""Data sets in REFER's format (Kazemzadeh et al., EMNLP 2014; Yu et al., ECCV 2016).

``<root>/<dataset>/refs(<split_by>).p`` holds the expressions, ``<root>/<dataset>/instances.json`` (COCO) the objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from risbench.data.plain_pickle import read_plain_pickle
from risengine.errors import InputError

__all__ = [
    "DATASETS",
    "Annotation",
    "DatasetSpec",
    "PolygonRule",
    "Ref",
    "ReferDataset",
    "ReferImage",
    "Sentence",
    "load_refer",
    "tabletop_root",
]

PolygonRule: TypeAlias = Literal["union", "once"]
"""An object's polygons as a mask: their ``union``, or the pixels covered exactly ``once``, as in the authors' code."""


@dataclass(frozen=True)
class DatasetSpec:
    """Where a data set's parts lie and how it is split.

    Attributes:
        splits: The splits evaluated unless told otherwise, by partition; the usual partition first.
        images: Folder of the images below the root.
    """

    splits: Mapping[str, tuple[str, ...]]
    images: str

    def default_splits(self, partition: str | None = None) -> tuple[str, ...]:
        """Returns the splits to evaluate of a partition; of the usual one when left out, none of an unknown one."""
        return self.splits.get(partition or next(iter(self.splits)), ())


_COCO = "images/mscoco/images/train2014"
_UNC = ("val", "testA", "testB")

DATASETS: Mapping[str, DatasetSpec] = {
    "refcoco": DatasetSpec({"unc": _UNC, "google": ("val", "test")}, _COCO),
    "refcoco+": DatasetSpec({"unc": _UNC}, _COCO),
    "refcocog": DatasetSpec({"umd": ("val", "test"), "google": ("val",)}, _COCO),  # google's test was never released
    "phrasecut": DatasetSpec({"phrasecut": ("val", "test")}, "images/phrasecut"),
    "tabletop": DatasetSpec({"tabletop": ("scenes", "compositional")}, "images/tabletop"),
}
"""The data sets that can be read."""


@dataclass(frozen=True)
class Sentence:
    """One expression.

    Attributes:
        sent_id: Its number.
        sent: Lower-cased and stripped of punctuation by the data set's makers.
        raw: As it was written; this is what is evaluated.
        tokens: Words of ``sent``.
        kind: Kind of expression, where the data set says.
        phrase: Its noun phrase, where the data set says.
        fits: Annotations of the objects that fit the noun phrase, where the data set says.
    """

    sent_id: int
    sent: str
    raw: str
    tokens: list[str]
    kind: str | None = None
    phrase: str | None = None
    fits: list[int] | None = None


@dataclass(frozen=True)
class Ref:
    """The expressions for one object. ``file_name`` names the annotation, not the image."""

    ref_id: int
    ann_id: int
    image_id: int
    category_id: int
    split: str
    sent_ids: list[int]
    sentences: list[Sentence]
    file_name: str = ""


@dataclass(frozen=True)
class ReferImage:
    """An image of ``instances.json``; its size in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Annotation:
    """An object of ``instances.json``: polygons as lists of x and y, or COCO run lengths."""

    id: int
    image_id: int
    category_id: int
    segmentation: list[list[float]] | dict[str, Any]
    iscrowd: int = 0


@dataclass(frozen=True)
class _Instances:
    images: list[ReferImage]
    annotations: list[Annotation]


@dataclass(frozen=True)
class ReferDataset:
    """A data set in memory; images and masks are read when asked for.

    Attributes:
        name: One of :data:`DATASETS`.
        split_by: Partition that was read.
        refs: All expressions.
        images: By image id.
        annotations: By annotation id.
        image_folder: Folder of the image files.
    """

    name: str
    split_by: str
    refs: tuple[Ref, ...]
    images: Mapping[int, ReferImage]
    annotations: Mapping[int, Annotation]
    image_folder: Path

    def split(self, name: str) -> tuple[Ref, ...]:
        """Returns the expressions of a split by REFER's rules.

        ``testA`` is any split with an A in its name, ``test`` any with "test" in it; all others are named exactly.

        Raises:
            InputError: The data set has no such split.
        """
        if name in ("testA", "testB", "testC"):
            chosen = tuple(ref for ref in self.refs if name[-1] in ref.split)
        elif name == "test":
            chosen = tuple(ref for ref in self.refs if "test" in ref.split)
        else:
            chosen = tuple(ref for ref in self.refs if ref.split == name)
        if not chosen:
            known = ", ".join(sorted({ref.split for ref in self.refs}))
            raise InputError(f"{self.name} ({self.split_by}) has no split {name!r}; expected one of {known}.")
        return chosen

    def image_path(self, image_id: int) -> Path:
        """Returns the path of an image file."""
        return self.image_folder / self.images[image_id].file_name

    def objects(self, image_id: int) -> list[Annotation]:
        """Returns the single objects of an image in the order of the file; crowds are left out."""
        return [annotation for annotation in self._by_image[image_id] if not annotation.iscrowd]

    @cached_property
    def _by_image(self) -> dict[int, list[Annotation]]:
        found: dict[int, list[Annotation]] = {image_id: [] for image_id in self.images}
        for annotation in self.annotations.values():
            found[annotation.image_id].append(annotation)
        return found

    def mask(self, ann_id: int, polygons: PolygonRule = "union") -> NDArray[np.bool_]:
        """Draws an object as COCO's own tools do.

        Args:
            ann_id: The annotation.
            polygons: What to do where polygons of the object overlap.

        Returns:
            (H, W) bool at the image's size.

        Raises:
            InputError: The segmentation is malformed.
        """
        from pycocotools import mask as coco

        annotation = self.annotations[ann_id]
        image = self.images[annotation.image_id]
        segmentation = annotation.segmentation
        try:
            if isinstance(segmentation, list):
                drawn = coco.decode(coco.frPyObjects(segmentation, image.height, image.width)).sum(axis=2)
            elif isinstance(segmentation["counts"], list):
                drawn = coco.decode(coco.frPyObjects(segmentation, image.height, image.width))
            else:
                drawn = coco.decode(segmentation)
        except Exception as error:  # pycocotools raises bare Exception
            raise InputError(f"annotation {ann_id} of {self.name} cannot be drawn: {error}. Check the file.") from error
        size = image.height, image.width
        if drawn.shape != size:
            raise InputError(f"annotation {ann_id} of {self.name} is {drawn.shape}; expected its image's size {size}.")
        mask: NDArray[np.bool_] = drawn == 1 if polygons == "once" else drawn > 0
        return mask


def load_refer(root: Path, dataset: str, split_by: str | None = None) -> ReferDataset:
    """Reads a data set.

    Args:
        root: REFER's data folder.
        dataset: One of :data:`DATASETS`.
        split_by: Partition; the data set's usual one when left out.

    Raises:
        InputError: The data set is unknown, a file is missing or malformed, the pickle holds anything but plain
            containers, numbers and strings, or an expression names an object or an image that is not there.
    """
    if dataset not in DATASETS:
        raise InputError(f"data set {dataset!r} is unknown; expected one of {', '.join(DATASETS)}.")
    spec = DATASETS[dataset]
    partition = split_by or next(iter(spec.splits))
    if partition not in spec.splits:
        raise InputError(f"{dataset} is not split by {partition!r}; expected one of {', '.join(spec.splits)}.")
    if dataset == "phrasecut":
        from risbench.data.phrasecut import load_phrasecut

        return load_phrasecut(root)
    refs_path = root / dataset / f"refs({partition}).p"
    instances_path = root / dataset / "instances.json"
    for path in (refs_path, instances_path):
        if not path.is_file():
            raise InputError(f"{path} does not exist; expected REFER's layout <root>/{dataset}/{path.name}.")
    try:
        refs = msgspec.convert(read_plain_pickle(refs_path), list[Ref])
    except msgspec.ValidationError as error:
        raise InputError(f"{refs_path} is not in REFER's format: {error}. Download it again.") from error
    try:
        instances = msgspec.json.decode(instances_path.read_bytes(), type=_Instances)
    except msgspec.DecodeError as error:
        raise InputError(f"{instances_path} is not in COCO's format: {error}. Download it again.") from error
    images = {image.id: image for image in instances.images}
    annotations = {a.id: a for a in instances.annotations if a.image_id in images}
    for ref in refs:
        annotation = annotations.get(ref.ann_id)
        if annotation is None or annotation.image_id != ref.image_id:
            raise InputError(
                f"ref {ref.ref_id} of {refs_path} names annotation {ref.ann_id} in image {ref.image_id}; "
                f"{instances_path} has none. The two files do not belong together."
            )
    return ReferDataset(dataset, partition, tuple(refs), images, annotations, root / spec.images)


def tabletop_root() -> Path:
    """Returns the folder of the tabletop sets that come with the repository.

    Raises:
        InputError: risbench does not run from a checkout of the repository.
    """
    root = Path(__file__).resolve().parents[3] / "models" / "tabletop" / "data"
    if not root.is_dir():
        raise InputError(
            f"the tabletop data is not at {root}: it comes with the repository, not with the wheel. "
            "Clone the repository and pass its models/tabletop/data as --refer."
        )
    return root
