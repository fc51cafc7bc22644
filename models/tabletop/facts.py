"""What can be said of the objects of a rendered scene, measured once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabletop.scenes import Scene

MIN_TARGET_PX = 150
MIN_TARGET_FRACTION = 0.35
MIN_SEEN_PX = 12
"""An object with fewer visible pixels is taken for absent."""


@dataclass(frozen=True)
class Fact:
    """What an expression may say of an object.

    Attributes:
        index: Position in the scene.
        class_name: One of `CLASSES`.
        colour: A name in `COLOURS`.
        size: A name in `SIZES`.
        x: Centre of the visible pixels, in image widths from the left.
        depth_m: Distance along the table away from the camera, metres.
        ground_m: Position on the table, metres.
        radius_m: Radius of the footprint, metres.
        extent: Larger of width and height over the distance to the camera: about the angle it fills, radians.
        is_target: Whether enough of it is seen to ask for it.
    """

    index: int
    class_name: str
    colour: str
    size: str
    x: float
    depth_m: float
    ground_m: tuple[float, float]
    radius_m: float
    extent: float
    is_target: bool


def scene_facts(scene: Scene, instances: NDArray[np.uint8], visible_fraction: NDArray[np.float64]) -> list[Fact]:
    """Collects the facts of the objects that can be seen.

    Args:
        scene: The scene.
        instances: uint8 (H, W), i + 1 where object i is seen.
        visible_fraction: float64 (N,), share of each object that is not hidden, in [0, 1].

    Returns:
        One fact for every object of at least `MIN_SEEN_PX` pixels, in the scene's order.
    """
    facts = []
    for index, item in enumerate(scene.objects):
        columns = np.nonzero(instances == index + 1)[1]
        if len(columns) < MIN_SEEN_PX:
            continue
        ground = (item.x, item.y)
        distance = float(np.linalg.norm(scene.camera.position - np.array([*ground, item.height / 2])))
        facts.append(
            Fact(
                index,
                item.class_name,
                item.colour,
                item.size,
                float((columns.mean() + 0.5) / instances.shape[1]),
                float(np.dot(ground, scene.camera.heading)),
                ground,
                item.radius,
                max(2 * item.radius, item.height) / distance,
                len(columns) >= MIN_TARGET_PX and bool(visible_fraction[index] >= MIN_TARGET_FRACTION),
            )
        )
    return facts
