"""Training shards in memory: images and instance maps on the training device, facts as flat tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

KINDS = ("attribute", "place", "relation")
"""Kinds of expression; their position here is the `kind` of `Expressions`."""

MIN_VISIBLE_PX = 40
"""An object with fewer visible pixels is no candidate: not even its colour can be told."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objects:
    """The candidate objects of all scenes, ordered by scene; O is their number.

    Attributes:
        scene: (O,) int64, scene row.
        label: (O,) int64, the object's value in the instance map, 1 to 255.
        classes: (O,) int64, class id.
        colours: (O,) int64, colour id.
        sizes: (O,) int64, size id.
        visible_fraction: (O,) float64, share of the object that is not occluded, 0 to 1.
        start: (S + 1,) int64, the candidates of scene s are rows `start[s]` to `start[s + 1] - 1`.
    """

    scene: Ints
    label: Ints
    classes: Ints
    colours: Ints
    sizes: Ints
    visible_fraction: Floats
    start: Ints


@dataclass(frozen=True)
class Expressions:
    """The expressions of all scenes, ordered by scene and kind; T is their number.

    Attributes:
        text: (T,) int64, row of the sentence in `SceneData.texts`.
        phrase: (T,) int64, row of the noun phrase in `SceneData.texts`.
        kind: (T,) int64, position in `KINDS`.
        target: (T,) int64, row in `Objects`.
        spec_classes: (T, C) bool, the classes the noun admits; all true when the expression names none.
        spec_colour: (T,) int64, colour id, -1 for any.
        spec_size: (T,) int64, size id, -1 for any.
        start: (3 * S + 1,) int64, expressions of scene s and kind k are rows `start[3 * s + k]` and on.
    """

    text: Ints
    phrase: Ints
    kind: Ints
    target: Ints
    spec_classes: NDArray[np.bool_]
    spec_colour: Ints
    spec_size: Ints
    start: Ints


def rows_in(start: Ints, scenes: Ints) -> tuple[Ints, Ints]:
    """Lists the rows of some scenes in a table that is ordered by scene.

    Args:
        start: (S + 1,) int64, the rows of scene s are `start[s]` to `start[s + 1] - 1`.
        scenes: (B,) int64 scene rows.

    Returns:
        Rows of the table, (N,) int64, and for each the position of its scene in `scenes`, (N,) int64.
    """
    count = start[scenes + 1] - start[scenes]
    owner = np.repeat(np.arange(len(scenes)), count)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    return np.arange(count.sum()) - first[owner] + start[scenes][owner], owner


class SceneData:
    """All shards below a directory.

    On a GPU the pixels are copied to its memory once (0.7 MB a scene); on the CPU they stay memory-mapped.
    """

    objects: Objects
    expressions: Expressions
    texts: tuple[str, ...]
    size: tuple[int, int]

    def __init__(self, root: Path, device: torch.device) -> None:
        """Reads the facts and places the pixels.

        Args:
            root: Directory with `shard-0000`, `shard-0001`, ... .
            device: Where batches are wanted.

        Raises:
            ValueError: No shard is there, or a shard's files disagree.
        """
        shards = sorted(path for path in root.glob("shard-*") if path.is_dir())
        if not shards:
            raise ValueError(
                f"expected training shards named shard-0000 and on in {root}, found none; "
                "make them with python -m tabletop.generate"
            )
        self.device = device
        self._images: list[Tensor] = []
        self._instances: list[Tensor] = []
        scenes: list[dict[str, Any]] = []
        for shard in tqdm(shards, desc=f"loading {root.name}", unit="shard"):
            scenes += self._add_shard(shard)
        sizes = {tuple(pixels.shape[1:3]) for pixels in self._images}
        if len(sizes) != 1:
            raise ValueError(f"expected images of one size in {root}, found {sorted(sizes)}; generate them together")
        height, width = sizes.pop()
        self.size = height, width
        if device.type != "cpu":
            self._images, self._instances = [self._moved(self._images)], [self._moved(self._instances)]
        counts = [len(pixels) for pixels in self._images]
        self._shard_start = np.concatenate([[0], np.cumsum(counts)])
        self._read_facts(scenes)

    def __len__(self) -> int:
        """Counts the scenes."""
        return int(self._shard_start[-1])

    def images(self, rows: Ints) -> Tensor:
        """Gathers images.

        Args:
            rows: (B,) int64 scene rows.

        Returns:
            (B, 3, H, W) uint8 RGB on the device.
        """
        return self._gather(self._images, rows).permute(0, 3, 1, 2)

    def instances(self, rows: Ints) -> Tensor:
        """Gathers instance maps.

        Args:
            rows: (B,) int64 scene rows.

        Returns:
            (B, H, W) uint8 on the device: 0 background, otherwise `Objects.label`.
        """
        return self._gather(self._instances, rows)

    def rows_of(self, scenes: Ints) -> tuple[Ints, Ints]:
        """Lists the candidate objects of some scenes.

        Args:
            scenes: (B,) int64 scene rows.

        Returns:
            Rows in `objects`, (N,) int64, and for each the position of its scene in `scenes`, (N,) int64.
        """
        return rows_in(self.objects.start, scenes)

    def _add_shard(self, shard: Path) -> list[dict[str, Any]]:
        images = np.load(shard / "images.npy", mmap_mode="c")
        instances = np.load(shard / "instances.npy", mmap_mode="c")
        with (shard / "scenes.jsonl").open(encoding="utf-8") as lines:
            scenes: list[dict[str, Any]] = [json.loads(line) for line in lines]
        if not len(images) == len(instances) == len(scenes):
            raise ValueError(
                f"expected one image, instance map and JSON line a scene in {shard}, found {len(images)}, "
                f"{len(instances)} and {len(scenes)}; the shard was cut off, generate it again"
            )
        self._images.append(torch.from_numpy(images))
        self._instances.append(torch.from_numpy(instances))
        return scenes

    def _moved(self, shards: list[Tensor]) -> Tensor:
        """Copies memory-mapped shards into one tensor on the device."""
        total = sum(map(len, shards))
        out = torch.empty((total, *shards[0].shape[1:]), dtype=torch.uint8, device=self.device)
        parts = torch.split(out, [len(shard) for shard in shards])
        for part, shard in zip(parts, tqdm(shards, desc="copying"), strict=True):
            part.copy_(shard)
        return out

    def _gather(self, shards: list[Tensor], rows: Ints) -> Tensor:
        out = torch.empty((len(rows), *shards[0].shape[1:]), dtype=torch.uint8, device=self.device)
        shard_of = np.searchsorted(self._shard_start, rows, side="right") - 1
        for shard in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == shard)
            local = torch.from_numpy(rows[chosen] - self._shard_start[shard]).to(self.device)
            out[torch.from_numpy(chosen).to(self.device)] = shards[shard][local]
        return out

    def _read_facts(self, scenes: list[dict[str, Any]]) -> None:
        names = {
            key: {name: i for i, name in enumerate(sorted({o[key] for s in scenes for o in s["objects"]}))}
            for key in ("class", "colour", "size")
        }
        row_of: dict[tuple[int, int], int] = {}
        found: list[tuple[int, int, int, int, int, float]] = []
        for scene, facts in enumerate(scenes):
            for index, item in enumerate(facts["objects"]):
                if item["visible_px"] >= MIN_VISIBLE_PX:
                    row_of[scene, index] = len(found)
                    ids = (names["class"][item["class"]], names["colour"][item["colour"]], names["size"][item["size"]])
                    found.append((scene, index + 1, *ids, float(item["visible_fraction"])))
        columns = np.array(found, dtype=np.float64).reshape(-1, 6).T
        scene_rows, label, classes, colours, sizes = columns[:5].astype(np.int64)
        start = np.searchsorted(scene_rows, np.arange(len(scenes) + 1))
        self.objects = Objects(scene_rows, label, classes, colours, sizes, columns[5], start)
        self._read_expressions(scenes, names, row_of)

    def _read_expressions(
        self, scenes: list[dict[str, Any]], names: dict[str, dict[str, int]], row_of: dict[tuple[int, int], int]
    ) -> None:
        texts: dict[str, int] = {}
        groups: list[int] = []
        found: list[tuple[int, int, int, int, int, int]] = []
        admitted: list[NDArray[np.bool_]] = []
        for scene, facts in enumerate(scenes):
            for item in facts["expressions"]:
                target = row_of.get((scene, item["target"]))
                if target is None:
                    continue
                kind = KINDS.index(item["kind"])
                spec = item.get("spec") or {}
                groups.append(scene * len(KINDS) + kind)
                found.append(
                    (
                        texts.setdefault(item["text"].lower(), len(texts)),
                        texts.setdefault(item["phrase"].lower(), len(texts)),
                        kind,
                        target,
                        names["colour"].get(spec.get("colour") or "", -1),
                        names["size"].get(spec.get("size") or "", -1),
                    )
                )
                classes = spec.get("classes")
                admitted.append(np.array([classes is None or name in classes for name in names["class"]]))
        order = np.argsort(np.array(groups, dtype=np.int64), kind="stable")
        columns = np.array(found, dtype=np.int64).reshape(-1, 6)[order].T
        spec_classes = np.array(admitted, dtype=np.bool_).reshape(-1, len(names["class"]))[order]
        start = np.searchsorted(np.array(groups, dtype=np.int64)[order], np.arange(len(KINDS) * len(scenes) + 1))
        text, phrase, kind_column, target_column, colour, size = columns
        self.expressions = Expressions(text, phrase, kind_column, target_column, spec_classes, colour, size, start)
        self.texts = tuple(texts)
