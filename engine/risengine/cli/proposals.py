"""``risengine proposals``: the masks of an image, without any expression."""

from __future__ import annotations

import argparse
import json

from risengine.cli.common import Subparsers, add_engine_options, load_engine, prompt_progress
from risengine.images import load_image
from risengine.masks import encode_rle
from risengine.output import check_image_path, check_writable, save_image, write_atomically
from risengine.overlay import draw_proposals


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser("proposals", help="propose masks for every object of an image")
    parser.add_argument("image", help="image file")
    parser.add_argument("-o", "--output", metavar="JSON", help="write boxes, scores and COCO run lengths")
    parser.add_argument("--overlay", metavar="PNG", help="write the masks drawn over the image")
    add_engine_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.output:
        check_writable(options.output)
    if options.overlay:
        check_image_path(options.overlay)
    image = load_image(options.image)
    with load_engine(options) as engine, prompt_progress() as progress:
        proposals = engine.proposals(image, progress)
    if options.output:
        rows = [
            {"box_xyxy": box.tolist(), "predicted_iou": float(score), "mask_rle": encode_rle(mask)}
            for mask, box, score in zip(proposals.masks, proposals.boxes, proposals.scores, strict=True)
        ]
        write_atomically(options.output, lambda file: file.write(json.dumps(rows).encode()))
    if options.overlay:
        save_image(draw_proposals(image, proposals), options.overlay)
    print(f"{len(proposals)} proposals")
    return 0
