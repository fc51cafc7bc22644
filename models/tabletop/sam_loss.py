"""The loss of the small SAM: views and prompts drawn on the training device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor

from tabletop.augment import jitter_images
from tabletop.dataset import Ints, SceneData
from tabletop.resample import cut_boxes, tight_boxes
from tabletop.sam_model import decode_prompts
from tabletop.training import Randomness, autocast

FRAMES = ((192, 256), (256, 256), (256, 192))
FRAME_SHARES = (0.84, 0.1, 0.06)
LOGIT_STRIDE = 2
"""Pixels of the frame a logit; the loss is taken there, where it costs a quarter."""
PROMPTS = ("point", "points", "box", "box and point")
PROMPT_SHARES = (0.7, 0.14, 0.08, 0.08)
BACKGROUND_SHARE = 6
"""One prompt in this many is a foreground point on the bare table, whose masks are all worth IoU 0."""
MIN_AREA = 4
"""Logits an object must cover to be asked for."""
JITTER = 0.25
FOCAL_WEIGHT = 20.0
ALL_MASKS_WEIGHT = 0.1
"""Share of the mean over the three masks beside the best one's loss, so that none of them dies early."""
SINGLE_MASK_WEIGHT = 0.5


@dataclass(frozen=True)
class SamBatch:
    """Images with prompts; B images, P prompts each, in the frame of at most 256 pixels a side.

    Attributes:
        images: (B, 3, 256, 256) float, normalised and padded.
        masks: (B * P, h, w) bool at the logits' resolution, padding left out: the region each prompt is drawn from.
        background: (B * P,) bool, prompts on the table.
        usable: (B * P,) bool, false where the object vanished in this view.
    """

    images: Tensor
    masks: Tensor
    background: Tensor
    usable: Tensor


def crop_boxes(count: int, size: tuple[int, int], frame: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws view boxes with a frame's aspect, half of them as large as the image allows.

    Args:
        count: Number of boxes.
        size: Image size (H, W), px.
        frame: (h, w) the boxes will be resized to.
        generator: Random source; its device is the result's.

    Returns:
        (count, 4) int64 xyxy px.
    """
    draw = torch.rand((4, count), generator=generator, device=generator.device)
    share = torch.where(draw[0] < 0.5, 1.0, 0.55 + 0.45 * draw[1])
    largest = min(size[0] / frame[0], size[1] / frame[1])
    height, width = share * largest * frame[0], share * largest * frame[1]
    top, left = draw[2] * (size[0] - height), draw[3] * (size[1] - width)
    return torch.stack([left, top, left + width, top + height], 1).round().long()


def sample_pixels(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Draws a point of every mask, uniformly over its pixels and within the pixel.

    Args:
        masks: (N, H, W) bool; an empty mask gives an arbitrary point.
        generator: Random source on the masks' device.

    Returns:
        (N, 2) float32 xy px.
    """
    count, _, width = masks.shape
    total = masks.flatten(1).cumsum(1, dtype=torch.int32)
    draw = torch.rand((3, count), generator=generator, device=masks.device)
    wanted = (draw[0] * total[:, -1]).int().clamp(max=(total[:, -1] - 1).clamp(min=0)) + 1
    place = torch.searchsorted(total, wanted[:, None]).clamp(max=total.shape[1] - 1)[:, 0]
    return torch.stack([place % width + draw[1], place // width + draw[2]], 1)


class SamLoss:
    """The training loss: focal and dice on the best of three masks, and the error of the predicted IoU."""

    def __init__(self, model: Sam, data: SceneData, images_per_step: int, prompts_per_image: int) -> None:
        """Binds model and data.

        Args:
            model: The model under training.
            data: Training scenes.
            images_per_step: Images a step.
            prompts_per_image: Prompts an image.
        """
        self._model, self._data = model, data
        self._eligible = np.flatnonzero(np.diff(data.objects.start) > 0)
        self._images, self._prompts = min(images_per_step, len(self._eligible)), prompts_per_image

    def __call__(self, random: Randomness) -> dict[str, Tensor]:
        """Draws a batch and computes its losses.

        Args:
            random: The step's random sources.

        Returns:
            Scalars: loss, its parts (focal, dice, iou) and the mean best-of-three IoU.
        """
        with torch.no_grad():
            batch = self._draw(random)
        prompt = PROMPTS[int(random.host.choice(len(PROMPTS), p=PROMPT_SHARES))]
        sparse = self._embed(batch, prompt, random.device)
        with autocast(batch.images.device):
            embeddings = self._model.image_encoder(batch.images)
            logits, predicted = decode_prompts(self._model, embeddings, sparse)
        usable = batch.usable if prompt.startswith("point") else batch.usable & ~batch.background
        return sam_losses(logits, predicted.float(), batch, usable)

    def _draw(self, random: Randomness) -> SamBatch:
        data, generator, device = self._data, random.device, self._data.device
        scenes = random.host.choice(self._eligible, self._images, replace=False)
        frame = FRAMES[int(random.host.choice(len(FRAMES), p=FRAME_SHARES))]
        boxes = crop_boxes(len(scenes), data.size, frame, generator)
        images = data.images(scenes)
        images = cut_boxes(images.float() / 255, boxes, frame).clamp(0, 1)
        images = 255 * jitter_images(images, generator, JITTER)
        mirrored = torch.rand(len(scenes), generator=generator, device=device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        images = self._model.preprocess(images.float())

        labels = torch.from_numpy(self._choose_labels(scenes, random.host)).to(device)
        instances = _nearest(data.instances(scenes), boxes, (frame[0] // LOGIT_STRIDE, frame[1] // LOGIT_STRIDE))
        instances = torch.where(mirrored[:, None, None], instances.flip(2), instances)
        masks = (instances[:, None] == labels[:, :, None, None]).flatten(0, 1)
        background = (labels == 0).flatten()
        usable = masks.sum((1, 2)) >= MIN_AREA
        return SamBatch(images, masks, background, usable)

    def _choose_labels(self, scenes: Ints, random: np.random.Generator) -> Ints:
        """Draws which object every prompt is for, (B, P) int64 instance values; 0 is the table."""
        shape = (len(scenes), self._prompts)
        start = self._data.objects.start[scenes][:, None]
        count = self._data.objects.start[scenes + 1][:, None] - start
        # Every object in turn, from a random one on; some twice when there are more prompts than objects.
        rank = np.arange(shape[1]) + random.integers(0, 1000, (shape[0], 1))
        labels = self._data.objects.label[start + rank % count]
        labels[:, ::BACKGROUND_SHARE] = 0
        return labels

    def _embed(self, batch: SamBatch, prompt: str, generator: torch.Generator) -> Tensor:
        regions = batch.masks
        points = boxes = None
        if "point" in prompt:
            coordinates = [LOGIT_STRIDE * sample_pixels(regions, generator)]
            labels = [torch.ones_like(batch.background, dtype=torch.float32)]
            if prompt == "points":
                for outside in (False, True):
                    coordinates.append(LOGIT_STRIDE * sample_pixels(regions ^ outside, generator))
                    draw = torch.rand(len(regions), generator=generator, device=regions.device)
                    labels.append(torch.where(draw < 0.4, -1.0, 0.0 if outside else 1.0))
            points = torch.stack(coordinates, 1), torch.stack(labels, 1)
        if "box" in prompt:
            tight = LOGIT_STRIDE * tight_boxes(regions).float()
            noise = torch.randn(tight.shape, generator=generator, device=tight.device)
            side = (tight[:, 2:] - tight[:, :2]).repeat(1, 2)
            boxes = tight + noise.clamp(-2, 2) * (0.03 * side + 0.5)
        sparse, _ = self._model.prompt_encoder(points, boxes, None)
        embedded: Tensor = sparse.unflatten(0, (len(batch.images), self._prompts))
        return embedded


def sam_losses(logits: Tensor, predicted: Tensor, batch: SamBatch, usable: Tensor) -> dict[str, Tensor]:
    """Computes the losses at the logits' resolution.

    Args:
        logits: (N, 4, 128, 128) float, the single-mask output first.
        predicted: (N, 4) float32 predicted IoU.
        batch: What the prompts mean.
        usable: (N,) bool, prompts that count.

    Returns:
        Scalars: loss, focal, dice, iou and best_iou.
    """
    height, width = batch.masks.shape[1:]
    logits = logits[..., :height, :width].flatten(2)
    truth = (batch.masks & ~batch.background[:, None, None]).flatten(1)[:, None]
    target = truth.to(logits.dtype)
    signed = logits * (1 - 2 * target)
    # Focal loss, gamma 2, alpha 1/4 (Lin et al., 2017), by the probability of being wrong.
    wrong = signed.sigmoid()
    alpha = 0.75 - 0.5 * target
    focal = (alpha * wrong * wrong * F.softplus(signed)).mean(2, dtype=torch.float32)
    chance = torch.where(truth, 1 - wrong, wrong)
    overlap, mass = (chance * target).sum(2, dtype=torch.float32), chance.sum(2, dtype=torch.float32)
    dice = 1 - (2 * overlap + 1) / (mass + truth.sum(2) + 1)
    with torch.no_grad():
        found = logits > 0
        shared = (found & truth).sum(2)
        iou = shared / (found.sum(2) + truth.sum(2) - shared).clamp(min=1)
    on_object = (usable & ~batch.background).float()
    objects = on_object.sum().clamp(min=1)

    def of_masks(loss: Tensor) -> Tensor:
        return (loss * on_object).sum() / objects

    mask_loss = FOCAL_WEIGHT * focal + dice
    best = mask_loss[:, 1:].argmin(1, keepdim=True)
    chosen = of_masks(mask_loss[:, 1:].gather(1, best)[:, 0])
    everyone, single = of_masks(mask_loss[:, 1:].mean(1)), of_masks(mask_loss[:, 0])
    iou_loss = ((predicted - iou) ** 2).mean(1)
    iou_loss = (iou_loss * usable).sum() / usable.sum().clamp(min=1)
    loss = chosen + ALL_MASKS_WEIGHT * everyone + SINGLE_MASK_WEIGHT * single + iou_loss
    parts = {
        "focal": of_masks(focal[:, 1:].gather(1, best)[:, 0]),
        "dice": of_masks(dice[:, 1:].gather(1, best)[:, 0]),
        "iou": iou_loss,
        "best_iou": of_masks(iou[:, 1:].amax(1)),
    }
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


def _nearest(instances: Tensor, boxes: Tensor, frame: tuple[int, int]) -> Tensor:
    """Cuts (B, H, W) label maps to (B, h, w) by the label at every cell's centre."""
    height, width = instances.shape[1:]
    down = (torch.arange(frame[0], device=boxes.device) + 0.5) / frame[0]
    across = (torch.arange(frame[1], device=boxes.device) + 0.5) / frame[1]
    rows = (boxes[:, 1:2] + down * (boxes[:, 3:] - boxes[:, 1:2])).long().clamp(0, height - 1)
    columns = (boxes[:, 0:1] + across * (boxes[:, 2:3] - boxes[:, 0:1])).long().clamp(0, width - 1)
    images = torch.arange(len(instances), device=boxes.device)[:, None, None]
    return instances[images, rows[:, :, None], columns[:, None, :]]
