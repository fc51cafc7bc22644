"""What the two image branches of the CLIP look at, cut out of rendered scenes once, before training.

Every object is seen with its exact mask and with a rough one; beside the objects stand masks such as a poor proposal
would be: part of an object, two objects, an object with table around it, bare table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from open_clip.constants import OPENAI_DATASET_MEAN
from PIL import Image, ImageFilter
from tqdm import tqdm

from tabletop.clip_model import load_config
from tabletop.dataset import SceneData

CROP_PX: int = load_config()["vision_cfg"]["image_size"]
FINE_GRID = 60
"""Masks are kept averaged over a 60 x 60 grid, which token grids of 4, 5 and 6 a side divide."""
MARGIN_PX = 6
MAX_OVERLAP = 0.75
"""A made-up mask that overlaps an object by more than this IoU is too good to be called wrong."""
MIN_AREA_PX = 20
MAX_DISTRACTORS = 3
"""Made-up masks of a scene at most."""

Mask = NDArray[np.bool_]
Window = tuple[slice, slice]
_MEAN_COLOUR = np.array(OPENAI_DATASET_MEAN) * 255.0


@dataclass(frozen=True)
class Views:
    """Views of S scenes and V masks, ordered by scene; P is `CROP_PX`.

    Attributes:
        squashed: (S, P, P, 3) uint8, whole images.
        crops: (V, P, P, 3) uint8, the masks' boxes, mean colour outside the mask.
        weights: (V, 60, 60) uint8, share of each cell that the mask covers, 255 for all; 0 only where it covers none.
        start: (S + 1,) int64, the views of scene s are rows `start[s]` to `start[s + 1] - 1`.
        object_row: (V,) int64, row in `SceneData.objects`; -1 for a made-up mask.
        is_rough: (V,) bool, whether the object's mask was roughened.
    """

    squashed: NDArray[np.uint8]
    crops: NDArray[np.uint8]
    weights: NDArray[np.uint8]
    start: NDArray[np.int64]
    object_row: NDArray[np.int64]
    is_rough: NDArray[np.bool_]


def make_views(data: SceneData, seed: int) -> Views:
    """Cuts the views of all scenes.

    Args:
        data: The scenes, on the CPU.
        seed: Seed of the rough and made-up masks.

    Returns:
        The views; the same arguments always give the same ones.

    Raises:
        ValueError: The scenes are on another device.
    """
    if data.device.type != "cpu":
        raise ValueError(
            f"expected scenes on the CPU, where views are cut, got them on {data.device}; load them with "
            'SceneData(root, torch.device("cpu")) and give the device to ViewTensors'
        )
    # As many rows as there can be, filled in place: a list to stack would need twice the memory for a moment, while
    # memory that is never written costs nothing.
    most = 2 * len(data.objects.scene) + MAX_DISTRACTORS * len(data)
    squashed = np.empty((len(data), CROP_PX, CROP_PX, 3), np.uint8)
    crops = np.empty((most, CROP_PX, CROP_PX, 3), np.uint8)
    weights = np.empty((most, FINE_GRID, FINE_GRID), np.uint8)
    start, rows = [0], list[int]()
    rough: list[bool] = []

    def add(image: NDArray[np.uint8], mask: Mask, object_row: int, is_rough: bool) -> None:
        crops[len(rows)], weights[len(rows)] = _crop(image, mask), _cell_shares(mask)
        rows.append(object_row)
        rough.append(is_rough)

    for scene in tqdm(range(len(data)), desc="views"):
        rng = np.random.default_rng([seed, scene])
        row = np.array([scene])
        image = data.images(row)[0].permute(1, 2, 0).numpy()
        instances = data.instances(row)[0].numpy()
        squashed[scene] = _resized(image)
        object_rows = data.rows_of(row)[0]
        masks = [instances == data.objects.label[r] for r in object_rows]
        for object_row, mask in zip(object_rows, masks, strict=True):
            add(image, mask, int(object_row), False)
            add(image, roughen(mask, rng), int(object_row), True)
        for mask in make_distractors(masks, instances == 0, rng) if masks else []:
            add(image, mask, -1, False)
        start.append(len(rows))
    return Views(
        squashed,
        crops[: len(rows)],
        weights[: len(rows)],
        np.array(start),
        np.array(rows, np.int64),
        np.array(rough),
    )


def roughen(mask: Mask, rng: np.random.Generator) -> Mask:
    """Grows, shrinks and roughens a mask's edge by one or two pixels and sometimes bites a hole.

    A mask that would lose more than half of its area (a thin ring) stays as it was.

    Args:
        mask: (H, W) bool, not empty.
        rng: Random source.

    Returns:
        (H, W) bool, a new array.
    """
    window = _window(mask, MARGIN_PX)
    core = mask[window]
    blurred = np.asarray(Image.fromarray(core.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(2))) / 255.0
    edge = blurred > rng.uniform(0.2, 0.8) + 0.4 * (_smooth_noise(core.shape, 6, rng) - 0.5)
    if rng.random() < 0.15:
        edge &= _smooth_noise(core.shape, 10, rng) > 0.15
    rough = mask.copy()
    if edge.sum() >= 0.5 * core.sum():
        rough[window] = edge
    return rough


def make_distractors(masks: list[Mask], background: Mask, rng: np.random.Generator) -> list[Mask]:
    """Makes up to three wrong masks of a scene: one bare table or union, a part of an object, an object with table.

    Args:
        masks: (H, W) bool each, the scene's objects, at least one, none over another.
        background: (H, W) bool, the pixels of no object.
        rng: Random source.

    Returns:
        Those that cover at least `MIN_AREA_PX` and overlap every object by an IoU of less than `MAX_OVERLAP`.
    """
    whole, other, padded = (masks[rng.integers(len(masks))] for _ in range(3))
    made = [
        whole & _half_plane(whole, rng),
        padded | (_ellipse_around(padded, rng.uniform(2.2, 3.2)) & background),
    ]
    if rng.random() < 0.5:
        made.append(whole | other)
    else:
        height, width = background.shape
        y, x = np.mgrid[:height, :width]
        reach = rng.uniform(0.03, 0.4, 2)
        blob = ((x / width - rng.random()) / reach[0]) ** 2 + ((y / height - rng.random()) / reach[1]) ** 2 < 1
        made.append((blob if rng.random() < 0.85 else np.ones_like(blob)) & background)
    return [
        mask
        for mask in made
        if np.count_nonzero(mask) >= MIN_AREA_PX and max(_iou(mask, known) for known in masks) < MAX_OVERLAP
    ]


def _iou(mask: Mask, other: Mask) -> float:
    return np.count_nonzero(mask & other) / np.count_nonzero(mask | other)


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR))


def _crop(image: NDArray[np.uint8], mask: Mask) -> NDArray[np.uint8]:
    """The mask's box, mean colour outside the mask, `CROP_PX` a side."""
    window = _window(mask, 0)
    filled = np.where(mask[window][..., None], image[window], _MEAN_COLOUR.round().astype(np.uint8))
    return _resized(filled)


def _cell_shares(mask: Mask) -> NDArray[np.uint8]:
    """Share of every cell of the fine grid that the mask covers, rounded up, (60, 60)."""
    down, across = (_cell_averages(length) for length in mask.shape)
    shares: NDArray[np.float32] = down @ mask.astype(np.float32) @ across.T
    rounded: NDArray[np.uint8] = np.ceil(shares * 255 - 1e-3).clip(0, 255).astype(np.uint8)
    return rounded


@functools.lru_cache(maxsize=4)
def _cell_averages(length: int) -> NDArray[np.float32]:
    """(60, length) float32: averages an axis over 60 equal cells, by exact overlap."""
    edges = np.arange(FINE_GRID + 1) * length / FINE_GRID
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * FINE_GRID / length).astype(np.float32)


def _window(mask: Mask, margin_px: int) -> Window:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(0, rows[0] - margin_px), rows[-1] + 1 + margin_px),
        slice(max(0, columns[0] - margin_px), columns[-1] + 1 + margin_px),
    )


def _smooth_noise(shape: tuple[int, ...], cell_px: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise in [0, 1] that varies over about `cell_px` pixels."""
    coarse = rng.random((shape[0] // cell_px + 2, shape[1] // cell_px + 2), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _half_plane(mask: Mask, rng: np.random.Generator) -> Mask:
    """A random side of a line through about the mask's middle."""
    y, x = np.nonzero(mask)
    angle = rng.uniform(-np.pi, np.pi)
    shift = rng.uniform(-0.25, 0.25) * (x.std() + y.std())
    grid_y, grid_x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    side: Mask = (grid_x - x.mean()) * np.cos(angle) + (grid_y - y.mean()) * np.sin(angle) > shift
    return side


def _ellipse_around(mask: Mask, reach: float) -> Mask:
    y, x = np.nonzero(mask)
    grid_y, grid_x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    across, down = (grid_x - x.mean()) / (reach * x.std() + 2), (grid_y - y.mean()) / (reach * y.std() + 2)
    inside: Mask = across**2 + down**2 < 1
    return inside
