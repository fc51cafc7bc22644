"""Views on the training device: which masks a batch looks at, and their pixels as the model wants them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import VisionTransformer
from torch import Tensor

from tabletop.clip_model import VisualInputs
from tabletop.dataset import Ints, rows_in
from tabletop.views import FINE_GRID, Views


@dataclass(frozen=True)
class ChosenViews:
    """A batch's masks: N objects first, then the made-up ones.

    Attributes:
        scenes: (B,) int64 scene rows.
        view_rows: (V,) int64 rows of the views.
        object_rows: (N,) int64, rows in `SceneData.objects` of the first N.
        owner: (V,) int64, position in `scenes`.
    """

    scenes: Ints
    view_rows: Ints
    object_rows: Ints
    owner: Ints


class ViewTensors:
    """All views of a data set on one device.

    Attributes:
        device: Where the pixels lie and batches are made.
    """

    def __init__(self, views: Views, device: torch.device) -> None:
        """Moves the pixels.

        Args:
            views: The views.
            device: Where batches are wanted.
        """
        self._views = views
        self._squashed, self._crops, self._weights = (
            torch.from_numpy(pixels).to(device) for pixels in (views.squashed, views.crops, views.weights)
        )
        self.device = device

    def choose(self, scenes: Ints, random: np.random.Generator | None) -> ChosenViews:
        """Takes every object of some scenes once, and their made-up masks.

        Args:
            scenes: (B,) int64 scene rows.
            random: Draws for every object whether its mask is the exact or the rough one; None takes the exact ones.
        """
        rows, owner = rows_in(self._views.start, scenes)
        is_object = self._views.object_row[rows] >= 0
        exact = np.flatnonzero(is_object & ~self._views.is_rough[rows])
        # An object's rough view follows its exact one.
        objects = exact if random is None else exact + random.integers(0, 2, len(exact))
        taken = np.concatenate([objects, np.flatnonzero(~is_object)])
        return ChosenViews(scenes, rows[taken], self._views.object_row[rows[objects]], owner[taken])

    @torch.no_grad()
    def inputs(
        self, chosen: ChosenViews, tower: VisionTransformer, generator: torch.Generator, jitter: float
    ) -> VisualInputs:
        """Gathers and normalises a batch.

        Args:
            chosen: What to look at.
            tower: The model's image tower, for the size of its input and of its patches.
            generator: Random source of the photometric jitter, on the device.
            jitter: Half width of exposure and contrast gains, as a share; 0 leaves the colours alone.

        Returns:
            The model's inputs.

        Raises:
            ValueError: The patches do not tile the input, or the fine grid's cells do not tile theirs.
        """
        size_px, cells = _grid(tower)
        scenes, rows, owner = (
            torch.from_numpy(index).to(self.device) for index in (chosen.scenes, chosen.view_rows, chosen.owner)
        )
        draw = torch.rand((len(scenes), 5, 1, 1), generator=generator, device=self.device)
        gain = 1 + (2 * draw[:, :1] - 1) * jitter + (2 * draw[:, 1:4] - 1) * (jitter / 4)
        contrast = 1 + (2 * draw[:, 4:5] - 1) * jitter
        squashed = self._pixels(self._squashed[scenes], size_px)
        pivot = squashed.mean((1, 2, 3), keepdim=True)
        crops = self._pixels(self._crops[rows], size_px)
        filled = (crops - _constant(OPENAI_DATASET_MEAN, crops)).abs().amax(1, keepdim=True) < 0.004
        varied = (
            ((pixels * gain[index] - pivot[index]) * contrast[index] + pivot[index]).clamp(0, 1)
            for pixels, index in ((squashed, slice(None)), (crops, owner))
        )
        mean, std = (_constant(values, crops) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        squashed, crops = ((pixels - mean) / std for pixels in varied)
        crops = crops.masked_fill(filled, 0.0)
        weights = self._weights[rows].float() / 255
        weights = F.avg_pool2d(weights[:, None], FINE_GRID // cells).flatten(1)
        return VisualInputs(squashed, weights, crops, owner)

    def _pixels(self, pixels: Tensor, size_px: int) -> Tensor:
        values = pixels.permute(0, 3, 1, 2).float() / 255
        if values.shape[-1] == size_px:
            return values
        return F.interpolate(values, (size_px, size_px), mode="bilinear", antialias=True)


def _grid(tower: VisionTransformer) -> tuple[int, int]:
    """Returns the side of a tower's input, px, and its patches along it."""
    size_px, patch_px = int(tower.image_size[0]), int(tower.patch_size[0])
    if size_px % patch_px:
        raise ValueError(
            f"expected an image size that is a multiple of the patch size {patch_px} px, got {size_px} px; "
            "choose another --image-size"
        )
    cells = size_px // patch_px
    if FINE_GRID % cells:
        raise ValueError(
            f"expected patches a side that divide {FINE_GRID}, got {size_px} px / {patch_px} px = {cells}; "
            "choose another --image-size, or another FINE_GRID in tabletop.views"
        )
    return size_px, cells


def _constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[:, None, None]
