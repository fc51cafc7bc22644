"""Photometric augmentation on the training device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
