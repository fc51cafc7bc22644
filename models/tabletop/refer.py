"""Writes rendered scenes as a data set in REFER's format: a pickle of expressions beside COCO annotations and images.

Layout below the root: ``tabletop/refs(tabletop).p``, ``tabletop/instances.json``, ``images/tabletop/*.jpg``.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from risengine.masks import encode_rle
from risengine.output import write_atomically
from tabletop.expressions import Expression
from tabletop.facts import Fact
from tabletop.render import Rendering
from tabletop.scenes import Scene
from tabletop.vocabulary import CLASSES

JPEG_QUALITY = 90


class ReferWriter:
    """Collects scenes, writing each image at once, and writes the two lists at the end.

    Every object in sight becomes an annotation; every object that is asked for becomes a ref with its sentences.
    Beside REFER's own keys a sentence has ``kind``, ``phrase`` and ``fits`` (annotation ids), and an annotation has
    ``attributes``.
    """

    def __init__(self, root: Path) -> None:
        """Make the folders.

        Args:
            root: REFER's data folder.
        """
        self._images_folder = root / "images" / "tabletop"
        self._folder = root / "tabletop"
        for folder in (self._images_folder, self._folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._refs: list[dict[str, Any]] = []
        self._sentences = 0

    def add(self, scene: Scene, rendering: Rendering, facts: list[Fact], expressions: list[Expression]) -> None:
        """Add one scene; its split becomes the split of its refs.

        Args:
            scene: The scene.
            rendering: Its picture and masks.
            facts: Its objects in sight.
            expressions: What is said of them.
        """
        image_id = len(self._images) + 1
        stem = f"{scene.split}_{scene.index:04d}"
        height, width = rendering.instances.shape
        Image.fromarray(rendering.image).save(self._images_folder / f"{stem}.jpg", quality=JPEG_QUALITY, optimize=True)
        self._images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width})
        annotation_of = {}
        for fact in facts:
            annotation = self._annotation(image_id, fact, rendering)
            annotation_of[fact.index] = annotation
            self._annotations.append(annotation)
        for index, annotation in annotation_of.items():
            said = [expression for expression in expressions if expression.target == index]
            if said:
                ids = {i: a["id"] for i, a in annotation_of.items()}
                self._add_ref(annotation, [self._sentence(expression, ids) for expression in said], scene.split, stem)

    def close(self) -> None:
        """Write the lists of expressions and of annotations, and remove images of an earlier, larger set."""
        categories = [{"id": i + 1, "name": name, "supercategory": "object"} for i, name in enumerate(CLASSES)]
        instances = {"images": self._images, "annotations": self._annotations, "categories": categories}
        text = json.dumps(instances, separators=(",", ":"))
        write_atomically(self._folder / "instances.json", lambda file: file.write(text.encode()))
        write_atomically(self._folder / "refs(tabletop).p", lambda file: pickle.dump(self._refs, file, protocol=2))
        for stale in set(self._images_folder.glob("*.jpg")) - {
            self._images_folder / image["file_name"] for image in self._images
        }:
            stale.unlink()

    def _annotation(self, image_id: int, fact: Fact, rendering: Rendering) -> dict[str, Any]:
        mask = rendering.instances == fact.index + 1
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        left, top = int(columns[0]), int(rows[0])
        return {
            "id": len(self._annotations) + 1,
            "image_id": image_id,
            "category_id": CLASSES.index(fact.class_name) + 1,
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": encode_rle(mask),
            "attributes": {
                "colour": fact.colour,
                "size": fact.size,
                "visible_fraction": round(float(rendering.visible_fraction[fact.index]), 4),
                "is_target": fact.is_target,
            },
        }

    def _sentence(self, expression: Expression, annotation_ids: dict[int, int]) -> dict[str, Any]:
        self._sentences += 1
        return {
            "sent_id": self._sentences,
            "raw": expression.text,
            "sent": expression.text,  # already lower-case and without punctuation
            "tokens": expression.text.split(),
            "kind": expression.kind,
            "phrase": expression.phrase,
            "fits": [annotation_ids[index] for index in expression.fits],
        }

    def _add_ref(self, annotation: dict[str, Any], sentences: list[dict[str, Any]], split: str, stem: str) -> None:
        self._refs.append(
            {
                "ref_id": len(self._refs) + 1,
                "ann_id": annotation["id"],
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "split": split,
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "sentences": sentences,
                "file_name": f"{stem}_{annotation['id']}.jpg",
            }
        )
