"""Instance mask proposals: segment-anything's automatic mask generator over the bundle's SAM graphs.

Semantics and setting names are those of ``SamAutomaticMaskGenerator`` (Kirillov et al., ICCV 2023): a regular grid of
single-point prompts on the image and on crops of it, three masks a point, kept by predicted IoU and by stability, then
greedy box NMS. In exact mode the masks are the same, but each is drawn at the image's size only once it has survived
all that; turbo mode asks fewer points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import Session
from risengine.generator.candidates import Candidates, points_to_ask
from risengine.generator.found import Found
from risengine.generator.nms import non_maximum_suppression
from risengine.generator.prompts import Prompts, generator_crops
from risengine.generator.regions import remove_small_regions
from risengine.generator.sam import SamImage
from risengine.manifest import Role
from risengine.masks import box_from_runs, pack_runs, pack_window, unpack_runs
from risengine.method import ProposalSettings
from risengine.types import Proposals

__all__ = ["Progress", "find_proposals", "generate_proposals", "prompted_proposals"]

Progress = Callable[[int, int], None]
"""Called with (prompts decoded, prompts in all) as the generation goes on."""


def generate_proposals(
    sessions: Mapping[Role, Session],
    image: NDArray[np.uint8],
    settings: ProposalSettings,
    sam_image_size_px: int,
    progress: Progress | None = None,
) -> Proposals:
    """Proposes masks for every object of an image.

    Args:
        sessions: The bundle's sessions by role; SAM's four are used.
        image: (H, W, 3) uint8 RGB.
        settings: Points, crops and thresholds.
        sam_image_size_px: Side of SAM's square input.
        progress: Called after every batch of prompts.

    Returns:
        The proposals by falling predicted IoU; none (N = 0) where nothing passes the thresholds.
    """
    return find_proposals(sessions, image, settings, sam_image_size_px, progress).proposals


def find_proposals(
    sessions: Mapping[Role, Session],
    image: NDArray[np.uint8],
    settings: ProposalSettings,
    sam_image_size_px: int,
    progress: Progress | None = None,
) -> Found:
    """Does what :func:`generate_proposals` does, and keeps masks on the GPU where they were decoded there."""
    size = image.shape[0], image.shape[1]
    crops = generator_crops(settings, size)
    total, done = sum(points_to_ask(settings, len(crop.grid)) for crop in crops), 0
    found = []
    for crop in crops:
        x0, y0, x1, y1 = crop.box
        sam = SamImage.encode(sessions, np.ascontiguousarray(image[y0:y1, x0:x1]), sam_image_size_px)
        candidates = Candidates(sam, settings, crop, size)
        for asked in candidates.search():
            done += asked
            if progress is not None:
                progress(done, total)
        found.append(candidates.survivors())
    whole = Found.joined(found)
    if len(crops) > 1:
        areas = np.repeat([crop.area_px for crop in crops], [len(part) for part in found])
        preference = np.float32(1) / areas.astype(np.float32)  # the masks of smaller crops
        whole = whole[non_maximum_suppression(whole.proposals.boxes, preference, settings.crop_nms_thresh)]
    if settings.min_mask_region_area:
        whole = Found.on_host(_without_small_regions(whole.proposals, settings))
    return whole[np.argsort(-whole.proposals.scores, kind="stable")]


def prompted_proposals(
    sam: SamImage, prompts: Prompts, settings: ProposalSettings, progress: Progress | None = None
) -> Proposals:
    """Asks SAM for the masks of a caller's prompts.

    Args:
        sam: The image, encoded.
        prompts: P prompts.
        settings: ``stability_score_offset`` and ``points_per_batch`` are used.
        progress: Called after every batch of prompts.

    Returns:
        3 P masks, those of a prompt together and by falling predicted IoU. A mask may be empty.
    """
    parts = [Proposals.from_masks(np.zeros((0, *sam.size), np.bool_))]
    done = 0
    for decoded in sam.decode_all(prompts, settings.points_per_batch):
        slot = np.argsort(-decoded.scores, axis=1, kind="stable")
        prompt = np.repeat(np.arange(len(slot)), slot.shape[1])
        logits = sam.logits(decoded, prompt, slot.ravel())
        stability, boxes = sam.drawer.measure(logits, settings.stability_score_offset)
        drawn = zip(sam.drawer.windows(logits, boxes), boxes[:, 1::-1].astype(np.int64).tolist(), strict=True)
        counts = [pack_window(window, (y, x), sam.size) for window, (y, x) in drawn]
        scores = decoded.scores[prompt, slot.ravel()]
        parts.append(Proposals(sam.size, tuple(counts), boxes, scores, np.nan_to_num(stability)))
        done += len(slot)
        if progress is not None:
            progress(done, len(prompts))
    return Proposals.joined(parts)


def _without_small_regions(proposals: Proposals, settings: ProposalSettings) -> Proposals:
    """Removes small holes and islands, then what has become a duplicate; of two, the one that was changed."""
    counts, boxes = list(proposals.counts), proposals.boxes.copy()
    untouched = np.ones(len(counts), np.float32)
    for index, text in enumerate(counts):
        runs, changed = remove_small_regions(unpack_runs(text), proposals.size, settings.min_mask_region_area)
        if changed:
            counts[index], boxes[index], untouched[index] = pack_runs(runs), box_from_runs(runs, proposals.size), 0
    kept = non_maximum_suppression(boxes, untouched, max(settings.box_nms_thresh, settings.crop_nms_thresh))
    return dataclasses.replace(proposals, counts=tuple(counts), boxes=boxes)[kept]
