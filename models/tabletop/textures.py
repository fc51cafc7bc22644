"""Table-top textures made from random numbers: wood, noise, checker and plain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TEXTURE_KINDS = ("wood", "noise", "checker", "plain")
TEXTURE_SIZE_PX = 512

_Tone = tuple[float, float, float]
_WOODS: tuple[_Tone, ...] = (
    (0.72, 0.56, 0.38), (0.60, 0.43, 0.27), (0.80, 0.69, 0.53), (0.46, 0.33, 0.23), (0.66, 0.60, 0.52),
)  # fmt: skip
_CLOTHS: tuple[_Tone, ...] = (
    (0.62, 0.64, 0.66), (0.78, 0.77, 0.74), (0.38, 0.42, 0.46), (0.70, 0.66, 0.58), (0.52, 0.60, 0.62),
    (0.58, 0.62, 0.54), (0.30, 0.31, 0.34), (0.74, 0.72, 0.78), (0.86, 0.85, 0.83),
)  # fmt: skip


@dataclass(frozen=True)
class Texture:
    """What a table top looks like; everything else follows from the seed.

    Attributes:
        kind: One of `TEXTURE_KINDS`.
        tone: Mean sRGB colour in [0, 1].
        seed: Seed of the pattern.
    """

    kind: str
    tone: _Tone
    seed: int


def sample_texture(rng: np.random.Generator) -> Texture:
    """Draw a table top.

    Args:
        rng: Source of randomness.

    Returns:
        The texture's description; `paint_texture` makes its pixels.
    """
    kind = str(rng.choice(TEXTURE_KINDS, p=(0.4, 0.25, 0.15, 0.2)))
    tones = _WOODS if kind == "wood" else _CLOTHS
    tone = np.clip(np.array(tones[rng.integers(len(tones))]) * rng.uniform(0.9, 1.08) + rng.normal(0, 0.015, 3), 0, 1)
    return Texture(kind, (float(tone[0]), float(tone[1]), float(tone[2])), int(rng.integers(2**31)))


def paint_texture(texture: Texture) -> NDArray[np.uint8]:
    """Make a texture's pixels.

    Args:
        texture: The description.

    Returns:
        uint8 (TEXTURE_SIZE_PX, TEXTURE_SIZE_PX, 3), sRGB.
    """
    rng = np.random.default_rng(texture.seed)
    tone = np.array(texture.tone, dtype=np.float32)
    if texture.kind == "wood":
        light = _wood(rng)
    elif texture.kind == "checker":
        light = _checker(rng)
    elif texture.kind == "noise":
        light = 0.22 * _noise(rng, int(rng.integers(3, 12)), int(rng.integers(3, 12)), octaves=4)
    else:
        light = 0.03 * _noise(rng, 4, 4, octaves=1)
    grain = rng.normal(0, 0.012, light.shape).astype(np.float32)
    return (np.clip(tone * (1 + light + grain)[..., None], 0, 1) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, rows: int, columns: int, octaves: int) -> NDArray[np.float32]:
    """Value noise in about [-1, 1]: random grids, each twice as fine and half as strong, interpolated linearly."""
    size = TEXTURE_SIZE_PX
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        shape = (rows * 2**octave, columns * 2**octave)
        grid = rng.uniform(-1, 1, (shape[0] + 1, shape[1] + 1)).astype(np.float32)
        for axis in (0, 1):
            at = np.linspace(0, shape[axis], size, endpoint=False, dtype=np.float32)
            low = at.astype(np.intp)
            part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
            grid = np.take(grid, low, axis) * (1 - part) + np.take(grid, low + 1, axis) * part
        total += grid * np.float32(0.6**octave)
    return total


def _wood(rng: np.random.Generator) -> NDArray[np.float32]:
    """Planks with grain along the rows: stripes of stretched noise, a tone a plank and dark joints."""
    size = TEXTURE_SIZE_PX
    grain = _noise(rng, int(rng.integers(24, 48)), 2, octaves=3)
    wave = np.sin((_noise(rng, 5, 1, octaves=2) * rng.uniform(2, 5) + grain * 0.6) * np.pi)
    light = 0.09 * grain + 0.05 * wave.astype(np.float32)
    planks = int(rng.integers(3, 9))
    rows = np.arange(size) * planks / size
    light += rng.normal(0, 0.07, planks).astype(np.float32)[rows.astype(np.intp)][:, None]
    joint = (rows % 1.0) < 1.6 * planks / size
    light[joint] -= 0.3
    return light


def _checker(rng: np.random.Generator) -> NDArray[np.float32]:
    """Squares of two tones under faint noise."""
    cells = int(rng.integers(8, 20))
    index = np.arange(TEXTURE_SIZE_PX) * cells // TEXTURE_SIZE_PX
    board = ((index[:, None] + index[None, :]) % 2).astype(np.float32) - 0.5
    return board * np.float32(rng.uniform(0.12, 0.32)) + 0.03 * _noise(rng, 6, 6, octaves=2)
