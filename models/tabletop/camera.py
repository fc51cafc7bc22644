"""The pinhole camera that looks at the table.

World frame: metres, z up, the table top is z = 0. The camera stands on the -y side, so that "left" in the image is
about -x and "back" about +y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ASPECT = 4 / 3
"""Width of every image over its height."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll, its image 4:3.

    Attributes:
        target: Point on the table at the image's centre, metres.
        distance: From target to camera, metres.
        azimuth: Heading from the +y axis, radians; positive turns the view to +x.
        elevation: Angle above the table, radians.
        fovy: Vertical field of view, radians.
    """

    target: tuple[float, float]
    distance: float
    azimuth: float
    elevation: float
    fovy: float

    @property
    def axes(self) -> NDArray[np.float64]:
        """float64 (3, 3), rows right, up and backward: the camera's frame in the world."""
        sin_a, cos_a = math.sin(self.azimuth), math.cos(self.azimuth)
        sin_e, cos_e = math.sin(self.elevation), math.cos(self.elevation)
        right = (cos_a, -sin_a, 0.0)
        up = (sin_a * sin_e, cos_a * sin_e, cos_e)
        back = (-sin_a * cos_e, -cos_a * cos_e, sin_e)
        return np.array([right, up, back])

    @property
    def position(self) -> NDArray[np.float64]:
        """float64 (3,), metres."""
        offset: NDArray[np.float64] = self.distance * self.axes[2]
        return np.array([*self.target, 0.0]) + offset

    @property
    def heading(self) -> NDArray[np.float64]:
        """float64 (2,), unit vector along the table away from the camera."""
        return np.array([math.sin(self.azimuth), math.cos(self.azimuth)])

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project points into the image.

        Args:
            points: float64 (P, 3), world metres, in front of the camera.

        Returns:
            float64 (P, 2), x and y as fractions of the image's width and height, y downwards.
        """
        local = (points - self.position) @ self.axes.T
        half_y = math.tan(self.fovy / 2)
        x = local[:, 0] / (-local[:, 2] * half_y * ASPECT)
        y = local[:, 1] / (-local[:, 2] * half_y)
        return np.stack([(1 + x) / 2, (1 - y) / 2], axis=1)


def sample_camera(rng: np.random.Generator) -> Camera:
    """Draws a camera that looks at the middle of the table from its -y side.

    Args:
        rng: Source of randomness.
    """
    fovy = math.radians(rng.uniform(32, 48))
    view_width = rng.uniform(0.62, 0.88)
    return Camera(
        target=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.05, 0.05))),
        distance=float(view_width / 2 / (math.tan(fovy / 2) * ASPECT)),
        azimuth=math.radians(rng.uniform(-25, 25)),
        elevation=math.radians(rng.uniform(25, 60)),
        fovy=fovy,
    )
