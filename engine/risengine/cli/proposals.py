"""``risengine proposals``: the masks of an image, without any expression."""

from __future__ import annotations

import argparse
import json

from risengine.cli.common import Subparsers, add_engine_options, check_output_paths, load_engine, prompt_progress
from risengine.images import load_image
from risengine.output import check_writable, write_atomically


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser("proposals", help="propose masks for every object of an image")
    parser.add_argument("image", help="image file")
    parser.add_argument("-o", "--output", metavar="JSON", help="write one COCO record a mask: run lengths, box, scores")
    parser.add_argument("--overlay", metavar="PNG", help="write the masks drawn over the image")
    add_engine_options(parser, weights=False)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    check_output_paths(options, check_writable)
    image = load_image(options.image)
    with load_engine(options) as engine, prompt_progress() as progress:
        proposals = engine.proposals(image, progress)
    if options.output:
        records = json.dumps(proposals.to_coco()).encode()
        write_atomically(options.output, lambda file: file.write(records))
    if options.overlay:
        proposals.save_overlay(image, options.overlay)
    print(f"{len(proposals)} proposals")
    return 0
