"""Seeded sampling of tabletop scenes, in numpy alone: what stands where, under which camera and light.

World frame: metres, z up, the table top is z = 0 about the origin. The camera stands on the -y side, so that "left" in
the image is about -x and "back" about +y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabletop.camera import Camera, sample_camera
from tabletop.shapes import class_meshes
from tabletop.textures import Texture, sample_texture
from tabletop.vocabulary import COLOURS, HELD_OUT_PAIRS, SIZES, TRAINING_PAIRS

SPLIT_CODES: dict[str, int] = {"train": 101, "val": 102, "scenes": 201, "compositional": 202, "demo": 301}
"""First word of every seed: split, seed and scene index together seed a scene, so no two splits can share one."""

TABLE_HALF_M = (0.75, 0.60)
SIZE_JITTER = (0.95, 1.0, 1.05)
GLOSSES = 3
MIN_OBJECTS, MAX_OBJECTS = 4, 10
_EDGE_MARGIN = 0.015
_TRIES = 60


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        class_name: One of `CLASSES`.
        colour: A name in `COLOURS`.
        size: A name in `SIZES`.
        variant: Index into the class's meshes.
        size_step: Index into `SIZE_JITTER`.
        gloss: Index of the surface material, below `GLOSSES`.
        rgb: The object's own sRGB albedo in [0, 1].
        x: Position on the table, metres.
        y: Position on the table, metres.
        yaw: Turn about the vertical, radians.
    """

    class_name: str
    colour: str
    size: str
    variant: int
    size_step: int
    gloss: int
    rgb: tuple[float, float, float]
    x: float
    y: float
    yaw: float

    @property
    def scale(self) -> float:
        """Scale factor of the class's mesh."""
        return SIZES[self.size] * SIZE_JITTER[self.size_step]

    @property
    def radius(self) -> float:
        """Radius of the footprint's circle, metres."""
        return class_meshes()[self.class_name][self.variant].radius * self.scale

    @property
    def height(self) -> float:
        """Height above the table, metres."""
        return class_meshes()[self.class_name][self.variant].height * self.scale


@dataclass(frozen=True)
class Lighting:
    """A key light with shadows, a fill light without, and ambient light.

    Attributes:
        key_direction: Unit vector the key light shines along.
        key: sRGB strength of the key light.
        fill_direction: Unit vector the fill light shines along.
        fill: Strength of the fill light.
        ambient: Strength of the ambient light.
    """

    key_direction: tuple[float, float, float]
    key: tuple[float, float, float]
    fill_direction: tuple[float, float, float]
    fill: float
    ambient: float


@dataclass(frozen=True)
class Scene:
    """Everything a render needs.

    Attributes:
        split: A key of `SPLIT_CODES`.
        seed: The data set's seed.
        index: The scene's number in the data set.
        objects: The objects, none overlapping another.
        camera: The camera; every object is wholly inside its image.
        lighting: The lights.
        table: The table top.
        floor: sRGB colour of the floor under the table.
    """

    split: str
    seed: int
    index: int
    objects: tuple[SceneObject, ...]
    camera: Camera
    lighting: Lighting
    table: Texture
    floor: tuple[float, float, float]


def sample_scene(split: str, seed: int, index: int) -> Scene:
    """Sample one scene; the same arguments always give the same scene.

    Args:
        split: A key of `SPLIT_CODES`. Only "compositional" holds held-out (colour, class) pairs, at least three objects
            a scene.
        seed: The data set's seed, 0 or more.
        index: The scene's number, 0 or more.

    Returns:
        The scene.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SPLIT_CODES:
        raise ValueError(f"expected a split among {', '.join(SPLIT_CODES)}, got {split!r}; choose one of them")
    rng = np.random.default_rng([SPLIT_CODES[split], seed, index])
    objects: tuple[SceneObject, ...] = ()
    while len(objects) < MIN_OBJECTS or (split == "compositional" and _held_out_count(objects) < 3):
        camera = sample_camera(rng)
        objects = _place(rng, camera, _sample_kinds(rng, split == "compositional"))
    floor = rng.uniform(0.25, 0.7) + rng.normal(0, 0.02, 3)
    return Scene(split, seed, index, objects, camera, _sample_lighting(rng), sample_texture(rng), _rgb(floor))


def _held_out_count(objects: tuple[SceneObject, ...]) -> int:
    return sum((item.colour, item.class_name) in HELD_OUT_PAIRS for item in objects)


def _rgb(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = np.clip(values, 0, 1).tolist()
    return (red, green, blue)


def _sample_lighting(rng: np.random.Generator) -> Lighting:
    def direction(low: float, high: float) -> tuple[float, float, float]:
        turn, height = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(low, high))
        return (math.cos(turn) * math.cos(height), math.sin(turn) * math.cos(height), -math.sin(height))

    key = rng.uniform(0.50, 0.66) * (1 + rng.uniform(-0.05, 0.05) * np.array([1.0, 0.0, -1.0]))
    return Lighting(
        direction(42, 75), _rgb(key), direction(30, 60), float(rng.uniform(0.10, 0.2)), float(rng.uniform(0.3, 0.4))
    )


def _sample_kinds(rng: np.random.Generator, compositional: bool) -> list[tuple[str, str, str]]:
    """Draw (colour, class, size) of the objects; most share a colour or a class with an earlier one."""
    held_out = sorted(HELD_OUT_PAIRS)
    sizes = list(SIZES)
    kinds: list[tuple[str, str, str]] = []
    for number in range(int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))):
        wants_held_out = compositional and (number < 2 or rng.random() < 0.5)
        pairs = held_out if wants_held_out else list(TRAINING_PAIRS)
        size = str(rng.choice(sizes))
        if kinds and rng.random() < 0.62:
            colour, name, old_size = kinds[rng.integers(len(kinds))]
            share = rng.choice(("class", "colour", "both", "all"), p=(0.42, 0.26, 0.22, 0.1))
            if share == "class":
                pairs = [pair for pair in pairs if pair[1] == name and pair[0] != colour] or pairs
            elif share == "colour":
                pairs = [pair for pair in pairs if pair[0] == colour and pair[1] != name] or pairs
            else:
                pairs = [(colour, name)]
                size = old_size if share == "all" else str(rng.choice([s for s in sizes if s != old_size]))
        pair = pairs[rng.integers(len(pairs))]
        kinds.append((*pair, size))
    return [kinds[i] for i in rng.permutation(len(kinds))]


def _place(rng: np.random.Generator, camera: Camera, kinds: list[tuple[str, str, str]]) -> tuple[SceneObject, ...]:
    """Put the objects on the table one by one, dropping those that find no room."""
    placed: list[SceneObject] = []
    for colour, name, size in kinds:
        for _ in range(_TRIES):
            item = _sample_object(rng, camera, (colour, name, size), placed)
            if _fits(item, camera, placed):
                placed.append(item)
                break
    return tuple(placed)


def _sample_object(
    rng: np.random.Generator, camera: Camera, kind: tuple[str, str, str], placed: list[SceneObject]
) -> SceneObject:
    colour, name, size = kind
    variant = int(rng.integers(len(class_meshes()[name])))
    forward = camera.heading
    right = np.array([forward[1], -forward[0]])
    if placed and rng.random() < 0.3:
        # A close neighbour, often behind another: the source of occlusion and of "next to".
        other = placed[rng.integers(len(placed))]
        turn = rng.uniform(0, 2 * math.pi)
        reach = other.radius + rng.uniform(0.03, 0.09)
        position = np.array([other.x, other.y]) + reach * np.array([math.cos(turn), math.sin(turn)])
    else:
        position = np.array(camera.target) + right * rng.uniform(-0.42, 0.42) + forward * rng.uniform(-0.34, 0.36)
    # A standing ring or star seen edge-on is a bar: keep its face towards the camera.
    faces_camera = name in ("ring", "star") and variant == 1
    yaw = rng.uniform(-0.9, 0.9) - camera.azimuth if faces_camera else rng.uniform(0, 2 * math.pi)
    rgb = np.array(COLOURS[colour]) * rng.uniform(0.93, 1.04) + rng.normal(0, 0.014, 3)
    return SceneObject(
        name, colour, size, variant, int(rng.integers(len(SIZE_JITTER))), int(rng.integers(GLOSSES)), _rgb(rgb),
        float(position[0]), float(position[1]), float(yaw),
    )  # fmt: skip


def _fits(item: SceneObject, camera: Camera, placed: list[SceneObject]) -> bool:
    """Whether an object stands on the table, wholly in the image, clear of the others."""
    radius, height = item.radius, item.height
    if abs(item.x) + radius > TABLE_HALF_M[0] or abs(item.y) + radius > TABLE_HALF_M[1]:
        return False
    gap = 0.008
    if any(math.hypot(item.x - other.x, item.y - other.y) < radius + other.radius + gap for other in placed):
        return False
    signs = np.array([[sx, sy, sz] for sx in (-1, 1) for sy in (-1, 1) for sz in (0, 1)], dtype=np.float64)
    corners = np.array([item.x, item.y, 0.0]) + signs * np.array([radius, radius, height])
    seen = camera.project(corners)
    return bool((seen > _EDGE_MARGIN).all() and (seen < 1 - _EDGE_MARGIN).all())
