"""``risengine segment``, ``rank`` and ``explain``: one image, one expression."""

from __future__ import annotations

import argparse
import json

import numpy as np
from PIL import Image

from risengine.cli.common import (
    Subparsers,
    add_engine_options,
    check_output_paths,
    describe_timings,
    load_engine,
    prompt_progress,
)
from risengine.engine import Engine
from risengine.errors import InputError
from risengine.explain_overlay import draw_explanation, explanation_lines
from risengine.output import check_image_path, save_image
from risengine.types import EncodedImage, Segmentation


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the commands."""
    segment = commands.add_parser("segment", help="find the mask an expression refers to")
    _add_question(segment)
    segment.add_argument("-o", "--output", metavar="PNG", help="write the mask: 255 inside, 0 outside")
    segment.add_argument("--overlay", metavar="PNG", help="write the mask, box and score drawn over the image")
    segment.set_defaults(run=_run_segment)
    segment.add_argument(
        "--reject-below", type=float, metavar="SHARE", help="no mask where the confidence is lower; exit status 3"
    )
    explain = commands.add_parser("explain", help="show why: what was read, target, references, terms of the score")
    _add_question(explain)
    explain.add_argument("-o", "--output", metavar="PNG", help="write target, references and terms as one picture")
    explain.set_defaults(run=_run_explain)
    rank = commands.add_parser("rank", help="list the masks closest to an expression")
    _add_question(rank)
    rank.add_argument("--top-k", type=int, default=5, help="most masks to list (default: 5)")
    rank.set_defaults(run=_run_rank)


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="image file")
    parser.add_argument("text", help='expression, such as "the red mug"')
    parser.add_argument("--json", action="store_true", help="print JSON with the mask as COCO run lengths")
    add_engine_options(parser)


def _encode(engine: Engine, options: argparse.Namespace) -> EncodedImage:
    engine.check_text(options.text)  # before the work on the image
    with prompt_progress() as progress:
        return engine.encode_image(options.image, progress=progress)


def _run_segment(options: argparse.Namespace) -> int:
    check_output_paths(options, lambda path: check_image_path(path, (".png",)))
    with load_engine(options) as engine:
        threshold = options.reject_below
        if threshold is None:
            answer: Segmentation | None = engine.segment(_encode(engine, options), options.text)
        else:
            answer = engine.segment(_encode(engine, options), options.text, reject_below=threshold)
    if answer is None:
        print("null" if options.json else f"nothing matches with a confidence of at least {threshold:g}")
        return 3
    if options.output:
        save_image(Image.fromarray(answer.mask.astype(np.uint8) * 255), options.output)
    if options.overlay:
        answer.save_overlay(options.overlay)
    if options.json:
        print(json.dumps(answer.to_dict()))
    else:
        print(_line(answer))
        print(describe_timings(answer.timings_ms))
    return 0


def _run_explain(options: argparse.Namespace) -> int:
    if options.output:
        check_image_path(options.output)
    with load_engine(options) as engine:
        answer = engine.segment(_encode(engine, options), options.text)
    if options.output:
        save_image(draw_explanation(answer), options.output)
    if options.json:
        print(json.dumps(answer.to_dict()))
        return 0
    print(_line(answer))
    print("\n".join(explanation_lines(answer)))
    return 0


def _run_rank(options: argparse.Namespace) -> int:
    if options.top_k < 1:
        raise InputError(f"--top-k {options.top_k}; expected at least 1.")
    with load_engine(options) as engine:
        answers = engine.rank(_encode(engine, options), options.text, options.top_k)
    if options.json:
        print(json.dumps([answer.to_dict() for answer in answers]))
    else:
        for place, answer in enumerate(answers, start=1):
            print(f"{place:2d}. {_line(answer)}")
        if not answers:
            print("nothing is proposed in this image")
    return 0


def _line(answer: Segmentation) -> str:
    box = ", ".join(f"{value:.0f}" for value in answer.box)
    return f'score {answer.score:.3f}  box [{box}]  {int(answer.mask.sum())} px  phrase "{answer.phrase}"'
