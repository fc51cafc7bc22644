"""Renders data sets: training shards, the shipped held-out sets in REFER's format, and candidates for demo pictures.

Run ``python -m tabletop.generate train OUT --scenes 20000 --workers 2``, ``... heldout models/tabletop/data`` or
``... demo OUT``. A scene depends on its split, the seed and its number alone, not on the workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from risengine.masks import encode_rle
from risengine.output import write_atomically
from tabletop.expressions import Expression, Kind, make_expressions
from tabletop.facts import Fact, scene_facts
from tabletop.refer import ReferWriter
from tabletop.render import Rendering, SceneRenderer
from tabletop.scenes import SPLIT_CODES, Scene, sample_scene

IMAGE_SIZE_PX = (360, 480)
TRAIN_COUNTS: dict[Kind, int] = {"attribute": 10, "place": 5, "relation": 3}
HELD_OUT_COUNTS: dict[Kind, int] = {"attribute": 6, "place": 3, "relation": 3}
HELD_OUT_SCENES = 70
VALIDATION_SCENES = 120
DEMO_SCENES = 12
DEMO_SIZE_PX = (480, 640)
_EXPRESSION_STREAM = 1  # separates a scene's words from its shapes in the seed


def describe_scene(scene: Scene, rendering: Rendering, counts: dict[Kind, int]) -> tuple[list[Fact], list[Expression]]:
    """Collects a scene's facts and writes its expressions; the same scene always gets the same ones.

    Args:
        scene: The scene.
        rendering: Its picture.
        counts: Most expressions of each kind.

    Returns:
        The objects in sight, and what is said of them.
    """
    rng = np.random.default_rng([SPLIT_CODES[scene.split], scene.seed, scene.index, _EXPRESSION_STREAM])
    facts = scene_facts(scene, rendering.instances, rendering.visible_fraction)
    return facts, make_expressions(facts, counts, rng, held_out_only=scene.split == "compositional")


def scene_record(
    scene: Scene, rendering: Rendering, facts: list[Fact], expressions: list[Expression]
) -> dict[str, Any]:
    """Returns a scene as JSON-ready values, one line of a shard's ``scenes.jsonl``."""
    targets = {fact.index for fact in facts if fact.is_target}
    return {
        "split": scene.split,
        "seed": scene.seed,
        "index": scene.index,
        "objects": [
            {
                "class": item.class_name,
                "colour": item.colour,
                "size": item.size,
                "visible_px": int(visible),
                "visible_fraction": round(float(fraction), 4),
                "is_target": index in targets,
            }
            for index, (item, visible, fraction) in enumerate(
                zip(scene.objects, rendering.visible_px, rendering.visible_fraction, strict=True)
            )
        ],
        "expressions": [dataclasses.asdict(expression) for expression in expressions],
    }


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """The scenes of one shard: indexes ``first`` to ``last - 1`` of a split and seed, written to ``folder``."""

    folder: Path
    split: str
    seed: int
    first: int
    last: int


def write_shard(job: ShardJob) -> int:
    """Renders one shard.

    Returns:
        The number of scenes written.

    Raises:
        RenderError: There is no offscreen OpenGL here.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    rows = job.last - job.first
    open_memmap = np.lib.format.open_memmap
    images = open_memmap(job.folder / "images.npy", mode="w+", dtype=np.uint8, shape=(rows, *IMAGE_SIZE_PX, 3))
    instances = open_memmap(job.folder / "instances.npy", mode="w+", dtype=np.uint8, shape=(rows, *IMAGE_SIZE_PX))
    height, width = IMAGE_SIZE_PX
    with SceneRenderer(width, height) as renderer, (job.folder / "scenes.jsonl").open("w", encoding="utf-8") as lines:
        for row, index in enumerate(tqdm(range(job.first, job.last), desc=job.folder.name, mininterval=5)):
            scene = sample_scene(job.split, job.seed, index)
            rendering = renderer.render(scene)
            images[row], instances[row] = rendering.image, rendering.instances
            facts, expressions = describe_scene(scene, rendering, TRAIN_COUNTS)
            lines.write(json.dumps(scene_record(scene, rendering, facts, expressions)) + "\n")
    images.flush()
    instances.flush()
    return rows


def write_training_set(out: Path, split: str, seed: int, scenes: int, workers: int) -> None:
    """Renders training shards, one a worker; a scene depends on split, seed and index alone.

    Args:
        out: Folder for the shards.
        split: ``train`` or ``val``.
        seed: Data set's seed.
        scenes: Scenes in all, at least 1.
        workers: Processes, at least 1.

    Raises:
        FileExistsError: `out` holds shards already; of a longer run, some would stay among the new ones.
        RenderError: There is no offscreen OpenGL here.
    """
    existing = sorted(path.name for path in out.glob("shard-*"))
    if existing:
        raise FileExistsError(
            f"expected no shards in {out}, found {len(existing)} ({existing[0]} ...); "
            "remove them or choose another folder"
        )
    edges = np.linspace(0, scenes, workers + 1).astype(int)
    jobs = [
        ShardJob(out / f"shard-{i:04d}", split, seed, int(first), int(last))
        for i, (first, last) in enumerate(pairwise(edges))
        if last > first
    ]
    if len(jobs) == 1:
        write_shard(jobs[0])
        return
    with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
        pool.map(write_shard, jobs, chunksize=1)


def write_refer_sets(out: Path, scenes: int, splits: tuple[str, ...] = ("scenes", "compositional")) -> None:
    """Renders sets in REFER's format; the two held-out ones unless told otherwise.

    Args:
        out: REFER's data folder.
        scenes: Scenes of each set.
        splits: The sets, by the code of their scenes.

    Raises:
        RenderError: There is no offscreen OpenGL here.
    """
    writer = ReferWriter(out)
    height, width = IMAGE_SIZE_PX
    with SceneRenderer(width, height) as renderer:
        for split in splits:
            for index in tqdm(range(scenes), desc=split):
                scene = sample_scene(split, 0, index)
                rendering = renderer.render(scene)
                writer.add(scene, rendering, *describe_scene(scene, rendering, HELD_OUT_COUNTS))
    writer.close()


def _is_varied(scene: Scene) -> bool:
    colours, classes = ({getattr(item, key) for item in scene.objects} for key in ("colour", "class_name"))
    return len(scene.objects) >= 7 and len(colours) >= 5 and len(classes) >= 5


def write_demo_candidates(out: Path, scenes: int = DEMO_SCENES) -> None:
    """Renders varied pictures to choose the demo from: images and ``demo.json`` with expressions and true masks.

    Args:
        out: Folder to write to.
        scenes: Number of pictures.

    Raises:
        RenderError: There is no offscreen OpenGL here.
    """
    out.mkdir(parents=True, exist_ok=True)
    height, width = DEMO_SIZE_PX
    pictures = []
    with SceneRenderer(width, height) as renderer:
        varied = filter(_is_varied, (sample_scene("demo", 0, index) for index in count()))
        for scene in tqdm(islice(varied, scenes), total=scenes, desc="demo"):
            rendering = renderer.render(scene)
            name = f"table_{scene.index:03d}.jpg"
            Image.fromarray(rendering.image).save(out / name, quality=92, optimize=True)
            questions = [
                {
                    "text": expression.text,
                    "kind": expression.kind,
                    "mask_rle": encode_rle(rendering.instances == expression.target + 1),
                }
                for expression in describe_scene(scene, rendering, HELD_OUT_COUNTS)[1]
            ]
            pictures.append({"file": name, "questions": questions})
    text = json.dumps(pictures, indent=1)
    write_atomically(out / "demo.json", lambda file: file.write(text.encode()))


def _at_least_one(word: str) -> int:
    try:
        number = int(word)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {word!r}")
    return number


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: Command-line words; None takes the process'.
    """
    parser = argparse.ArgumentParser(prog="tabletop.generate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="training shards")
    train.add_argument("out", type=Path)
    train.add_argument("--scenes", type=_at_least_one, required=True)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--workers", type=_at_least_one, default=1)
    train.add_argument("--split", choices=("train", "val"), default="train")
    for name, text in (
        ("heldout", "both held-out sets, in REFER's format"),
        ("demo", "candidates for demo pictures"),
        ("validation", "scenes to tune on, in REFER's format"),
    ):
        commands.add_parser(name, help=text).add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "heldout":
        write_refer_sets(options.out, HELD_OUT_SCENES)
        return
    if options.command == "validation":
        write_refer_sets(options.out, VALIDATION_SCENES, ("val",))
        return
    if options.command == "demo":
        write_demo_candidates(options.out)
        return
    try:
        write_training_set(options.out, options.split, options.seed, options.scenes, options.workers)
    except FileExistsError as error:
        train.error(str(error))


if __name__ == "__main__":
    main()
