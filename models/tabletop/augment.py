"""Augmentation on the training device: photometry, rough masks, and masks such as a poor proposal would be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_AREA_PX = 20
MAX_OVERLAP = 0.75
"""A made-up mask that overlaps an object by more than this IoU is too good to be called wrong."""


def jitter_images(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Varies exposure, contrast, white balance and noise; hues stay what their names say.

    Args:
        images: (B, 3, H, W) float, 0 to 1.
        generator: Random source on the images' device.
        strength: Half width of the gains, as a share; 0.15 keeps white, gray and black apart.

    Returns:
        (B, 3, H, W), the dtype of `images`, 0 to 1.
    """
    count, device = len(images), images.device

    def uniform(channels: int, reach: float) -> Tensor:
        draw = torch.rand((count, channels, 1, 1), generator=generator, device=device)
        return ((2 * draw - 1) * reach).to(images.dtype)

    gamma = torch.exp(uniform(1, strength))
    gain = (1 + uniform(1, strength)) * (1 + uniform(3, strength / 4))
    pivot = images.mean((1, 2, 3), keepdim=True)
    varied = images.clamp(min=1e-3) ** gamma * gain
    varied = (varied - pivot) * (1 + uniform(1, strength)) + pivot
    softened = F.avg_pool2d(F.pad(varied, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    varied = torch.where(uniform(1, 1.0) > 0.6, softened, varied)
    noise = torch.randn(images.shape, generator=generator, device=device, dtype=images.dtype)
    return (varied + noise * uniform(1, 0.03)).clamp(0.0, 1.0)


def smooth_noise(count: int, size: tuple[int, int], cell_px: int, generator: torch.Generator) -> Tensor:
    """Makes noise fields that vary over about `cell_px` pixels.

    Args:
        count: Number of fields.
        size: (H, W), px.
        cell_px: Distance between independent values, px.
        generator: Random source; its device is the result's.

    Returns:
        (count, H, W) float32, 0 to 1.
    """
    coarse_size = (size[0] // cell_px + 2, size[1] // cell_px + 2)
    coarse = torch.rand((count, 1, *coarse_size), generator=generator, device=generator.device)
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[:, 0]


def roughen_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Grows, shrinks and roughens mask edges by one or two pixels and sometimes bites holes.

    A mask that would lose more than half of its area (a thin ring) stays as it was; so does one in four.

    Args:
        masks: (N, H, W) bool.
        generator: Random source on the masks' device.

    Returns:
        (N, H, W) bool.
    """
    count, size = len(masks), (masks.shape[1], masks.shape[2])
    blurred = F.avg_pool2d(masks[:, None].half() if masks.is_cuda else masks[:, None].float(), 5, 1, 2)[:, 0]
    level = 0.2 + 0.6 * torch.rand((count, 1, 1), generator=generator, device=masks.device)
    rough = blurred > level + 0.4 * (smooth_noise(count, size, 6, generator) - 0.5)
    choice = torch.rand((2, count, 1, 1), generator=generator, device=masks.device)
    bitten = smooth_noise(count, size, 10, generator) < 0.12
    rough &= ~(bitten & (choice[0] < 0.15))
    kept = rough.sum((1, 2)) >= 0.5 * masks.sum((1, 2))
    return torch.where(kept[:, None, None] & (choice[1] < 0.75), rough, masks)


@dataclass(frozen=True)
class Distractors:
    """Masks that imitate poor proposals.

    Attributes:
        masks: (M, H, W) bool.
        owner: (M,) int64, the image each belongs to.
        usable: (M,) bool, false where the mask came out empty or nearly equal to an object.
    """

    masks: Tensor
    owner: Tensor
    usable: Tensor


def make_distractors(masks: Tensor, owner: Tensor, background: Tensor, generator: torch.Generator) -> Distractors:
    """Makes four wrong masks an image: part of an object, two objects, an object with table around it, bare table.

    Args:
        masks: (N, H, W) bool, the objects of all images, ordered by image.
        owner: (N,) int64, the image each belongs to; every image has at least one.
        background: (B, H, W) bool, the pixels of each image that belong to no object.
        generator: Random source on the masks' device.

    Returns:
        4 B masks.
    """
    images, device = len(background), masks.device
    count = torch.bincount(owner, minlength=images)
    first = count.cumsum(0) - count

    def pick() -> Tensor:
        draw = torch.rand(images, generator=generator, device=device)
        return first + (draw * count).long().clamp(max=count - 1)

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand((images, 1, 1), generator=generator, device=device)
        return low + (high - low) * draw

    height, width = masks.shape[1:]
    y = torch.arange(height, device=device)[None, :, None] + 0.5
    x = torch.arange(width, device=device)[None, None, :] + 0.5
    whole, paired, padded = pick(), pick(), pick()
    # Two different objects where the image has two.
    paired = torch.where(paired == whole, first + (paired - first + 1) % count, paired)

    part_of, centre_x, centre_y, spread_x, spread_y = _moments(masks[whole], x, y)
    angle = uniform(-math.pi, math.pi)
    offset = uniform(-0.25, 0.25) * (spread_x + spread_y)
    half_plane = (x - centre_x) * angle.cos() + (y - centre_y) * angle.sin() > offset
    part = part_of & half_plane

    union = masks[whole] | masks[paired]

    core, centre_x, centre_y, spread_x, spread_y = _moments(masks[padded], x, y)
    reach_x, reach_y = spread_x * uniform(2.2, 3.2) + 2, spread_y * uniform(2.2, 3.2) + 2
    margin = core | (((x - centre_x) / reach_x) ** 2 + ((y - centre_y) / reach_y) ** 2 < 1)

    blob = ((x / width - uniform(0, 1)) / uniform(0.03, 0.4)) ** 2 + (
        (y / height - uniform(0, 1)) / uniform(0.03, 0.4)
    ) ** 2 < 1
    table = (blob | (uniform(0, 1) < 0.15)) & background

    made = torch.cat([part, union, margin, table])
    source = torch.cat([whole, whole, padded, whole])
    other = torch.cat([whole, paired, padded, whole])
    usable = made.sum((1, 2)) >= MIN_AREA_PX
    usable &= (_overlap(made, masks[source]) < MAX_OVERLAP) & (_overlap(made, masks[other]) < MAX_OVERLAP)
    return Distractors(made, torch.arange(images, device=device).repeat(4), usable)


def _moments(masks: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    area = masks.sum((1, 2), keepdim=True).clamp(min=1)
    centre_x, centre_y = ((masks * axis).sum((1, 2), keepdim=True) / area for axis in (x, y))
    spread_x = ((masks * (x - centre_x) ** 2).sum((1, 2), keepdim=True) / area).sqrt()
    spread_y = ((masks * (y - centre_y) ** 2).sum((1, 2), keepdim=True) / area).sqrt()
    return masks, centre_x, centre_y, spread_x, spread_y


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    return (one & other).sum((1, 2)) / (one | other).sum((1, 2)).clamp(min=1)
