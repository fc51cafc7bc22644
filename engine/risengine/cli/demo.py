"""``risengine demo``: shipped pictures, shipped expressions, overlays and one contact sheet."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from risengine.cli.common import Subparsers, add_engine_options, describe_timings, load_engine
from risengine.demo import demo_pictures, mask_iou
from risengine.errors import InputError
from risengine.output import check_writable, save_image
from risengine.overlay import contact_sheet

_RIGHT_IOU = 0.5


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser("demo", help="segment the shipped pictures and show the results")
    parser.add_argument("-o", "--output", default="out/demo", metavar="DIR", help="folder (default: out/demo)")
    add_engine_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be made ({error.strerror}). Choose another with -o.") from error
    sheet_path = check_writable(folder / "contact_sheet.png")
    pictures = demo_pictures()
    overlays: list[Image.Image] = []
    right, asked, lines = 0, 0, []
    with load_engine(options) as engine:
        for picture in tqdm(pictures, desc="pictures", delay=0.5, leave=False, disable=None):
            encoded = engine.encode_image(picture.path)
            lines.append(
                f"{picture.path.name}: {len(encoded.proposals)} proposals, {describe_timings(encoded.timings_ms)}"
            )
            for question in picture.questions:
                answers = engine.rank(encoded, question.text, top_k=1)
                asked += 1
                if not answers:
                    lines.append(f"  wrong  nothing is proposed  {question.text}")
                    continue
                (answer,) = answers
                iou = mask_iou(answer.mask, question.mask)
                right += iou > _RIGHT_IOU
                asked_ms = sum(answer.timings_ms.values()) - sum(encoded.timings_ms.values())
                verdict = "right" if iou > _RIGHT_IOU else "wrong"
                lines.append(
                    f"  {verdict}  IoU {iou:.2f}  score {answer.score:.3f}  {asked_ms:6.1f} ms  {question.text}"
                )
                overlays.append(answer.overlay())
                save_image(overlays[-1], folder / f"{picture.path.stem}-{len(overlays):02d}.png")
    print("\n".join(lines))
    print(f"\n{right} of {asked} expressions right (IoU > {_RIGHT_IOU}).", end=" ")
    if overlays:
        save_image(contact_sheet(overlays, columns=5, cell_width_px=400), sheet_path)
        print(f"Look at {sheet_path}")
    else:
        print("No answer could be drawn.")
    return 0 if right >= 0.9 * asked else 1
