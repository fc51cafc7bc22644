"""Measures trained weights on validation scenes of the training distribution; never used with the shipped sets.

Usage: `python -m tabletop.evaluate VAL --clip DIR/clip.safetensors --sam DIR/sam.safetensors --out metrics.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from tqdm import tqdm

from risengine.output import write_atomically
from tabletop.clip_model import TokenTable, build_clip, load_config, text_features, visual_features
from tabletop.clip_views import ViewTensors
from tabletop.dataset import KINDS, Ints, SceneData
from tabletop.resample import cut_boxes, full_boxes
from tabletop.run_options import pick_device
from tabletop.sam_model import build_tabletop_sam, decode_prompts
from tabletop.views import make_views

SCENES_PER_BATCH = 32
MAX_SCENES = 512
"""Scenes a validation looks at; more only cost training time."""
GENERATOR_SETTINGS = ((0.5, 0.6), (0.7, 0.8), (0.8, 0.9), (0.88, 0.95))
"""(pred_iou_thresh, stability_score_thresh) of the automatic mask generator."""
POINTS_PER_SIDE = 16


def _batches(data: SceneData) -> Iterator[Ints]:
    eligible = np.flatnonzero(np.diff(data.objects.start) > 0)[:MAX_SCENES]
    for first in range(0, len(eligible), SCENES_PER_BATCH):
        yield eligible[first : first + SCENES_PER_BATCH]


def _share(values: list[Tensor]) -> float | None:
    joined = torch.cat(values).float()
    return round(float(joined.mean()), 4) if len(joined) else None


@torch.no_grad()
def choice_accuracy(model: CLIP, table: TokenTable, data: SceneData, views: ViewTensors) -> dict[str, float | None]:
    """Measures how often the target has the best score among the ground-truth masks of its scene.

    Args:
        model: The model.
        table: The rows of its token table.
        data: Validation scenes.
        views: Their views, on the model's device.

    Returns:
        Shares by kind, of attribute expressions with and without a size word, and of attribute expressions when
        made-up poor proposals compete; None where there is no expression.
    """
    model.eval()
    expressions = data.expressions
    device = views.device
    generator = torch.Generator(device=device)
    tokens = table.encode(data.texts).to(device)
    hits: list[Tensor] = []
    hits_among_poor: list[Tensor] = []
    asked_rows: list[Ints] = []
    for scenes in _batches(data):
        starts, ends = expressions.start[scenes * len(KINDS)], expressions.start[(scenes + 1) * len(KINDS)]
        asked = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        if not len(asked):
            continue
        chosen = views.choose(scenes, None)
        rows = chosen.object_rows
        inputs = views.inputs(chosen, model.visual, generator, 0.0)
        features = F.normalize(visual_features(model, inputs), dim=-1)
        asked_owner = torch.from_numpy(np.repeat(np.arange(len(scenes)), ends - starts)).to(device)
        order = np.argsort(rows)
        target = torch.from_numpy(order[np.searchsorted(rows[order], expressions.target[asked])]).to(device)
        texts = text_features(
            model,
            tokens[torch.from_numpy(expressions.text[asked]).to(device)],
            tokens[torch.from_numpy(expressions.phrase[asked]).to(device)],
        )
        scores = F.normalize(texts, dim=-1) @ features.T
        scores = scores.masked_fill(asked_owner[:, None] != inputs.owner[None], -2.0)
        hits.append((scores[:, : len(rows)].argmax(1) == target).cpu())
        hits_among_poor.append((scores.argmax(1) == target).cpu())
        asked_rows.append(asked)
    rows_done = np.concatenate(asked_rows)
    right, right_among_poor = torch.cat(hits), torch.cat(hits_among_poor)
    kind, sized = expressions.kind[rows_done], expressions.spec_size[rows_done] >= 0
    attribute = kind == KINDS.index("attribute")

    def share(values: Tensor, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> float | None:
        return _share([values[torch.from_numpy(chosen)]])

    return {
        **{name: share(right, kind == i) for i, name in enumerate(KINDS)},
        "attribute with size": share(right, attribute & sized),
        "attribute without size": share(right, attribute & ~sized),
        "attribute among poor proposals": share(right_among_poor, attribute),
    }


@torch.no_grad()
def point_accuracy(sam: Sam, data: SceneData) -> dict[str, float | None]:
    """Measures masks from one random interior point an object, at the images' resolution.

    Args:
        sam: The model.
        data: Validation scenes.

    Returns:
        Mean IoU of the best of three masks, of the mask the model rates best and of the single-mask output; mean
        absolute error of the predicted IoU; mean predicted IoU at points on the bare table, which deserve 0.
    """
    sam.eval()
    generator = torch.Generator(device=data.device).manual_seed(0)
    found: dict[str, list[Tensor]] = {
        name: [] for name in ("best of three", "rated best", "single", "rating error", "rating on table")
    }
    frame = ResizeLongestSide.get_preprocess_shape(*data.size, sam.image_encoder.img_size)
    for scenes in _batches(data):
        images = cut_boxes(data.images(scenes), full_boxes(len(scenes), data.size, data.device), frame).round()
        embeddings = sam.image_encoder(sam.preprocess(images))
        instances = data.instances(scenes)
        rows, owner = data.rows_of(scenes)
        for image in range(len(scenes)):
            labels = torch.from_numpy(data.objects.label[rows[owner == image]]).to(data.device)
            masks = instances[image][None] == torch.cat([labels, labels[:1] * 0])[:, None, None]
            points = _random_points(masks, generator) * (frame[1] / data.size[1])
            prompts = (points[:, None], torch.ones(len(points), 1, device=data.device))
            sparse, _ = sam.prompt_encoder(prompts, None, None)
            logits, rating = decode_prompts(sam, embeddings[image : image + 1], sparse[None])
            logits = sam.postprocess_masks(logits[:-1], frame, data.size)
            iou = _iou(logits > 0, masks[:-1, None])
            found["best of three"].append(iou[:, 1:].amax(1).cpu())
            found["rated best"].append(iou[:, 1:].gather(1, rating[:-1, 1:].argmax(1, keepdim=True))[:, 0].cpu())
            found["single"].append(iou[:, 0].cpu())
            found["rating error"].append((rating[:-1] - iou)[:, 1:].abs().flatten().cpu())
            found["rating on table"].append(rating[-1, 1:].amax()[None].cpu())
    return {name: _share(values) for name, values in found.items()}


def generator_recall(sam: Sam, data: SceneData, images: int) -> list[dict[str, float]]:
    """Measures what segment-anything's automatic mask generator finds.

    Args:
        sam: The model.
        data: Validation scenes.
        images: Number of scenes to look at.

    Returns:
        For every pair of `GENERATOR_SETTINGS`: the mean over objects of the best proposal's IoU ("oracle"), the share
        of objects with a proposal of IoU at least 0.5, and the mean number of proposals an image.
    """
    sam.eval()
    results = []
    for iou_threshold, stability_threshold in GENERATOR_SETTINGS:
        generator = SamAutomaticMaskGenerator(
            sam,
            points_per_side=POINTS_PER_SIDE,
            pred_iou_thresh=iou_threshold,
            stability_score_thresh=stability_threshold,
        )
        best: list[float] = []
        counts = []
        for scene in tqdm(range(min(images, len(data))), desc=f"proposals at {iou_threshold}, {stability_threshold}"):
            row = np.array([scene])
            pixels = data.images(row)[0].permute(1, 2, 0).contiguous().cpu().numpy()
            proposals = [record["segmentation"] for record in generator.generate(pixels)]
            counts.append(len(proposals))
            labels = data.objects.label[data.rows_of(row)[0]]
            truth = data.instances(row).cpu() == torch.from_numpy(labels)[:, None, None]
            if proposals:
                masks = torch.from_numpy(np.stack(proposals))
                best += [float(_iou(masks, mask[None]).amax()) for mask in truth]
            else:
                best += [0.0] * len(truth)
        results.append(
            {
                "pred_iou_thresh": iou_threshold,
                "stability_score_thresh": stability_threshold,
                "oracle": round(float(np.mean(best)), 4),
                "recall at 0.5": round(float(np.mean(np.array(best) >= 0.5)), 4),
                "proposals an image": round(float(np.mean(counts)), 1),
            }
        )
    return results


def load_clip(path: Path) -> tuple[CLIP, TokenTable]:
    """Loads exported CLIP weights with their whole token table.

    Args:
        path: A `clip.safetensors`.

    Returns:
        The model and the table that leaves every token id as it is.
    """
    config = load_config()
    vocabulary = config["text_cfg"]["vocab_size"]
    model = build_clip(config, vocabulary)
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model, TokenTable(range(1, vocabulary))


def _random_points(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Draws the centre of a random pixel of every (N, H, W) mask, (N, 2) float32 xy px."""
    noise = torch.rand(masks.shape, generator=generator, device=masks.device)
    place = (noise * masks).flatten(1).argmax(1)
    return torch.stack([place % masks.shape[2], place // masks.shape[2]], 1) + 0.5


def _iou(masks: Tensor, other: Tensor) -> Tensor:
    shared = (masks & other).sum((-2, -1))
    return shared / (masks | other).sum((-2, -1)).clamp(min=1)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: Command-line words; None takes the process'.
    """
    parser = argparse.ArgumentParser(prog="tabletop.evaluate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("val", type=Path, help="directory of validation shards")
    parser.add_argument("--clip", type=Path, help="clip.safetensors to measure")
    parser.add_argument("--sam", type=Path, help="sam.safetensors to measure")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--images", type=int, default=30, help="scenes for the automatic mask generator")
    parser.add_argument("--device", help="default: the GPU where there is one")
    options = parser.parse_args(arguments)
    device = pick_device(options.device)
    host = SceneData(options.val, torch.device("cpu"))
    metrics: dict[str, Any] = {"scenes": min(len(host), MAX_SCENES)}
    if options.clip is not None:
        clip, table = load_clip(options.clip)
        views = ViewTensors(make_views(host, seed=0), device)
        metrics["choice"] = choice_accuracy(clip.to(device), table, host, views)
    if options.sam is not None:
        data = host if device.type == "cpu" else SceneData(options.val, device)
        sam = build_tabletop_sam()
        sam.load_state_dict(load_file(options.sam))
        metrics["point"] = point_accuracy(sam.to(device), data)
        metrics["generator"] = generator_recall(sam, data, options.images)
    text = json.dumps(metrics, indent=2) + "\n"
    write_atomically(options.out, lambda file: file.write(text.encode()))
    print(text, end="")


if __name__ == "__main__":
    main()
