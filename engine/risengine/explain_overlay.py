"""One picture and a few lines that say why a mask was chosen."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from risengine.errors import InputError
from risengine.explanation import Explanation
from risengine.overlay import captioned, line_width, tint
from risengine.types import Segmentation

__all__ = ["draw_explanation", "explanation_lines"]

_TARGET = (0, 255, 190)
_REFERENCE = (255, 170, 0)
_DIMMED = 0.6
_LEAST_SHOWN = 0.0005


def explanation_lines(answer: Segmentation) -> list[str]:
    """Returns what was read, the terms of the score and how sure it is, a line each.

    Raises:
        InputError: The answer has no explanation.
    """
    why = _why(answer)
    lines = [f"strategy {why.strategy}", f"read as {json.dumps(why.description.to_dict())}"]
    lines += _term_lines(why)
    lines += [f"reference, mask {item.index}: {item.words}" for item in why.references]
    unread = [word for part in why.description.walk() for word in part.unread]
    if unread:
        lines.append(f"not understood: {', '.join(unread)}")
    if why.margin is not None:
        lines.append(f"margin {why.margin:.3f} to the next mask")
    if why.confidence is not None:
        lines.append(f"confidence {why.confidence:.2f}")
    return lines


def draw_explanation(answer: Segmentation) -> Image.Image:
    """Draws the target in green and its references in orange over the image, and the terms of the score beneath.

    Returns:
        RGB picture as wide as the image, higher by the caption and the lines.

    Raises:
        InputError: The answer has no explanation.
    """
    why = _why(answer)
    shown = answer.mask.copy()
    for item in why.references:
        shown |= item.mask
    pixels = (answer.image * np.where(shown, 1.0, _DIMMED)[..., None].astype(np.float32)).astype(np.uint8)
    for item in why.references:
        tint(pixels, item.mask, item.box, _REFERENCE)
    tint(pixels, answer.mask, answer.box, _TARGET)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for box, colour in [*((item.box, _REFERENCE) for item in why.references), (answer.box, _TARGET)]:
        x0, y0, x1, y1 = (int(value) for value in box)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=line_width(answer.image))
    picture = captioned(picture, " ".join(answer.text.split()), f"{answer.score:.3f}")
    sure = [] if why.confidence is None else [f"confidence {why.confidence:.2f}"]
    return _with_lines(picture, [*_term_lines(why), *(f"from: {item.words}" for item in why.references), *sure])


def _term_lines(why: Explanation) -> list[str]:
    """The terms that change the score in the digits shown."""
    return [f"{value:+.3f}  {name}" for name, value in why.terms.items() if abs(value) >= _LEAST_SHOWN]


def _with_lines(picture: Image.Image, lines: list[str]) -> Image.Image:
    size_px = max(9, round(picture.width / 36))
    step = round(size_px * 1.5)
    framed = Image.new("RGB", (picture.width, picture.height + step * len(lines) + size_px // 2), (24, 24, 28))
    framed.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(framed), ImageFont.load_default(size_px)
    for row, line in enumerate(lines):
        colour = _REFERENCE if line.startswith("from: ") else (225, 225, 225)
        draw.text((size_px, picture.height + row * step), line, fill=colour, font=font)
    return framed


def _why(answer: Segmentation) -> Explanation:
    if answer.explanation is None:
        raise InputError("the answer has no explanation; expected one of risengine.Engine. Ask the engine again.")
    return answer.explanation
