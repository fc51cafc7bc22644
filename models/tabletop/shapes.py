"""Procedural triangle meshes of the twelve classes, at medium size, standing on z = 0 and centred on the z axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_SEGMENTS = 40
_Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with one normal a vertex; sharp edges have their vertices repeated.

    Attributes:
        vertices: float32 (V, 3), metres.
        normals: float32 (V, 3), unit length, pointing outwards.
        faces: int32 (F, 3), vertex indices, counter-clockwise seen from outside.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    faces: NDArray[np.int32]

    @property
    def radius(self) -> float:
        """Largest distance of a vertex from the z axis, metres."""
        return float(np.linalg.norm(self.vertices[:, :2], axis=1).max())

    @property
    def height(self) -> float:
        """Largest z, metres."""
        return float(self.vertices[:, 2].max())


@cache
def class_meshes() -> dict[str, tuple[Mesh, ...]]:
    """Build every class's shape variants (proportions or resting poses).

    Returns:
        Class name to its meshes; an object's `variant` indexes the tuple.
    """
    return {
        "cube": (_cuboid(0.056, 0.056, 0.056),),
        "box": (_cuboid(0.105, 0.062, 0.036), _cuboid(0.105, 0.036, 0.062), _cuboid(0.058, 0.040, 0.108)),
        "ball": (_lathe([_arc(0.0, 0.034, 0.034, 0.034, -90, 90, 20)]),),
        "cylinder": (_cylinder(0.027, 0.072), _cylinder(0.032, 0.056)),
        "cone": (_cone(0.036, 0.088), _cone(0.042, 0.072)),
        "pyramid": (_pyramid(0.074, 0.066), _pyramid(0.068, 0.084)),
        "bowl": (_bowl(0.056, 0.042), _bowl(0.050, 0.046)),
        "mug": (_mug(0.032, 0.072), _mug(0.036, 0.062)),
        "bottle": (_bottle(0.026, 0.150), _bottle(0.031, 0.128)),
        "plate": (_plate(0.074, 0.014),),
        "ring": (_flat_ring(0.041, 0.0125), _standing(_flat_ring(0.041, 0.0115))),
        "star": (_star(0.052, 0.022, 0.024), _standing(_star(0.050, 0.021, 0.024))),
    }


def _mesh(vertices: NDArray[np.float64], normals: NDArray[np.float64], faces: NDArray[np.int64]) -> Mesh:
    """Drop degenerate faces, turn each face to its normals' side, and fix the dtypes."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    geometric = np.cross(b - a, c - a)
    keep = np.linalg.norm(geometric, axis=1) > 1e-10
    faces, geometric = faces[keep], geometric[keep]
    inwards = (geometric * normals[faces].sum(axis=1)).sum(axis=1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    return Mesh(vertices.astype(np.float32), normals.astype(np.float32), faces.astype(np.int32))


def _join(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]).astype(np.int32),
    )


def _grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Two triangles for each cell of a (rows, columns) vertex grid."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def _polygon(corners: NDArray[np.float64]) -> Mesh:
    """One flat face; corners (K, 3) in order around a point that sees all of them (their mean)."""
    centre = corners.mean(axis=0)
    normal = np.cross(corners[1] - centre, corners[2] - centre)
    normal = normal / np.linalg.norm(normal)
    vertices = np.vstack([corners, centre])
    k = len(corners)
    faces = np.array([[i, (i + 1) % k, k] for i in range(k)])
    return _mesh(vertices, np.tile(normal, (k + 1, 1)), faces)


def _prism(outline: NDArray[np.float64], height: float, bevel: float) -> Mesh:
    """Extrude a counter-clockwise star-shaped outline (K, 2), with a bevel so that its edges catch the light."""
    inner = outline * (1 - bevel / np.linalg.norm(outline, axis=1, keepdims=True))
    rings = [(inner, 0.0), (outline, bevel), (outline, height - bevel), (inner, height)]
    lifted = [np.column_stack([ring, np.full(len(ring), z)]) for ring, z in rings]
    parts = [_polygon(lifted[0][::-1]), _polygon(lifted[-1])]
    for low, high in pairwise(lifted):
        for i in range(len(outline)):
            j = (i + 1) % len(outline)
            parts.append(_polygon(np.array([low[i], low[j], high[j], high[i]])))
    return _join(*parts)


def _cuboid(x: float, y: float, z: float) -> Mesh:
    outline = np.array([[-x, -y], [x, -y], [x, y], [-x, y]]) / 2
    return _prism(outline, z, 0.0022)


def _pyramid(base: float, height: float) -> Mesh:
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * (base / 2)
    apex = np.array([0.0, 0.0, height])
    sides = [_polygon(np.array([corners[i], corners[(i + 1) % 4], apex])) for i in range(4)]
    return _join(_polygon(corners[::-1]), *sides)


def _star(outer: float, inner: float, thickness: float) -> Mesh:
    angles = np.deg2rad(90 + 36 * np.arange(10))
    radii = np.where(np.arange(10) % 2 == 0, outer, inner)
    return _prism(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1), thickness, 0.0022)


def _standing(mesh: Mesh) -> Mesh:
    """Turn a flat mesh up about the x axis and rest it on its lowest points."""
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float32)
    vertices = mesh.vertices @ turn.T
    vertices[:, 1] -= (vertices[:, 1].min() + vertices[:, 1].max()) / 2
    vertices[:, 2] -= vertices[:, 2].min()
    return Mesh(vertices, mesh.normals @ turn.T, mesh.faces)


def _arc(r: float, z: float, width: float, height: float, start: float, stop: float, steps: int) -> _Points:
    """Points of an elliptical arc about (r, z), angles in degrees."""
    angles = np.deg2rad(np.linspace(start, stop, steps))
    return [(max(0.0, r + width * float(np.cos(a))), z + height * float(np.sin(a))) for a in angles]


def _lathe(sections: list[_Points]) -> Mesh:
    """Turn a profile about the z axis.

    The profile runs from the bottom's centre outwards, up the outer wall and back over the rim; each section is
    smooth in itself and meets the next at a sharp edge.
    """
    turn = np.linspace(0, 2 * np.pi, _SEGMENTS + 1)
    parts = []
    for section in sections:
        points = np.array(section)
        steps = np.diff(points, axis=0)
        flat = np.stack([steps[:, 1], -steps[:, 0]], axis=1)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        slopes = np.vstack([flat[:1], flat[:-1] + flat[1:], flat[-1:]])
        slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        vertices = np.concatenate(
            [points[:, None, :1] * ring, np.broadcast_to(points[:, None, 1:], (len(points), len(turn), 1))], axis=2
        )
        normals = np.concatenate(
            [slopes[:, None, :1] * ring, np.broadcast_to(slopes[:, None, 1:], (len(points), len(turn), 1))], axis=2
        )
        parts.append(_mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), _grid_faces(len(points), len(turn))))
    return _join(*parts)


def _cylinder(radius: float, height: float) -> Mesh:
    bevel = 0.0022
    return _lathe(
        [
            [(0.0, 0.0), (radius - bevel, 0.0)],
            [(radius - bevel, 0.0), (radius, bevel)],
            [(radius, bevel), (radius, height - bevel)],
            [(radius, height - bevel), (radius - bevel, height)],
            [(radius - bevel, height), (0.0, height)],
        ]
    )


def _cone(radius: float, height: float) -> Mesh:
    return _lathe([[(0.0, 0.0), (radius, 0.0)], [(radius, 0.0), (0.0, height)]])


def _bowl(radius: float, height: float) -> Mesh:
    wall, foot = 0.0045, 0.4 * radius
    outer = [(foot + r, z) for r, z in _arc(0.0, height, radius - foot, height, -90, 0, 12)]
    inner = [(max(r - wall, 0.0), max(z, wall)) for r, z in outer]
    return _lathe([[(0.0, 0.0), (foot, 0.0)], outer, [outer[-1], inner[-1]], [*inner[::-1], (0.0, wall)]])


def _plate(radius: float, height: float) -> Mesh:
    wall, foot = 0.004, 0.6 * radius
    outer = [(foot, 0.0), (0.72 * radius, 0.35 * height), (radius, height)]
    inner = [(radius - 0.5 * wall, height + 0.4 * wall), (0.72 * radius, 0.35 * height + wall), (foot, wall)]
    rim, floor = [outer[-1], inner[0]], [inner[-1], (0.0, wall)]
    return _lathe([[(0.0, 0.0), (foot, 0.0)], outer, rim, inner[:2], inner[1:], floor])


def _mug(radius: float, height: float) -> Mesh:
    wall = 0.0038
    body = _lathe(
        [
            [(0.0, 0.0), (radius - 0.003, 0.0)],
            [(radius - 0.003, 0.0), (radius, 0.003), (radius, height)],
            [(radius, height), (radius - wall, height)],
            [(radius - wall, height), (radius - wall, wall)],
            [(radius - wall, wall), (0.0, wall)],
        ]
    )
    return _join(body, _tube(radius - 0.002, 0.53 * height, 0.62 * radius + 0.004, 0.32 * height, 0.0048))


def _tube(x: float, z: float, width: float, height: float, radius: float) -> Mesh:
    """A round tube along the half ellipse about (x, 0, z) that opens towards the z axis: the mug's handle."""
    along = np.deg2rad(np.linspace(-90, 90, 18))[:, None]
    around = np.linspace(0, 2 * np.pi, 13)[None, :]
    tangent = np.stack([-width * np.sin(along), height * np.cos(along)], axis=-1)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    out = np.stack([tangent[..., 1], -tangent[..., 0]], axis=-1)
    normals = np.stack(
        [out[..., 0] * np.cos(around), np.sin(around) + 0 * along, out[..., 1] * np.cos(around)], axis=-1
    )
    path = np.stack([x + width * np.cos(along), 0 * along, z + height * np.sin(along)], axis=-1)
    vertices = path + radius * normals
    return _mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), _grid_faces(*vertices.shape[:2]))


def _bottle(radius: float, height: float) -> Mesh:
    neck, cap = 0.36 * radius, 0.46 * radius
    shoulder, throat, collar = 0.55 * height, 0.76 * height, 0.86 * height
    drop = throat - shoulder
    curve = [(neck + (radius - neck) * (1 + np.cos(np.pi * t)) / 2, shoulder + drop * t) for t in np.linspace(0, 1, 10)]
    return _lathe(
        [
            [(0.0, 0.0), (radius - 0.003, 0.0)],
            [(radius - 0.003, 0.0), (radius, 0.003), *curve, (neck, collar)],
            [(neck, collar), (cap, collar)],
            [(cap, collar), (cap, height)],
            [(cap, height), (0.0, height)],
        ]
    )


def _flat_ring(major: float, minor: float) -> Mesh:
    turn = np.linspace(0, 2 * np.pi, _SEGMENTS + 1)[:, None]
    around = np.linspace(0, 2 * np.pi, 19)[None, :]
    normals = np.stack([np.cos(turn) * np.cos(around), np.sin(turn) * np.cos(around), np.sin(around) + 0 * turn], -1)
    centre = np.stack([major * np.cos(turn), major * np.sin(turn), minor + 0 * turn], axis=-1)
    vertices = centre + minor * normals
    return _mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), _grid_faces(*vertices.shape[:2]))
