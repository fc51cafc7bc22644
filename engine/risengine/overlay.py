"""Pictures of results: a mask over its image, all proposals at once, a contact sheet."""

from __future__ import annotations

import colorsys
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from risengine.errors import InputError
from risengine.masks import area_from_runs, unpack_runs

if TYPE_CHECKING:
    from risengine.types import Proposals, Segmentation

__all__ = ["captioned", "contact_sheet", "draw_proposals", "draw_segmentation", "line_width", "tint"]

_TINT = (0, 255, 190)
_TINT_SHARE = 0.22
_OUTSIDE_SHARE = 0.5  # brightness of what was not chosen: the answer should be seen at a glance


def draw_segmentation(segmentation: Segmentation) -> Image.Image:
    """Draws the mask's tint and contour, its box, and a caption with expression and score.

    Returns:
        RGB picture as wide as the image, higher by the caption.
    """
    image, mask = segmentation.image, segmentation.mask
    pixels = (image * np.where(mask, 1.0, _OUTSIDE_SHARE)[..., None].astype(np.float32)).astype(np.uint8)
    tint(pixels, mask, segmentation.box, _TINT)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    x0, y0, x1, y1 = (int(value) for value in segmentation.box)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="white", width=line_width(image))
    return captioned(picture, " ".join(segmentation.text.split()), f"{segmentation.score:.3f}")


def draw_proposals(image: NDArray[np.uint8], proposals: Proposals) -> Image.Image:
    """Draws every proposal in a colour of its own, larger masks below smaller ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        proposals: Its N proposals.

    Returns:
        RGB picture as wide as the image, higher by the caption.

    Raises:
        InputError: The proposals are of an image of another size.
    """
    if image.shape[:2] != proposals.size:
        raise InputError(
            f"image is {image.shape[:2]}, the proposals are of one of {proposals.size}; expected the same. Pass the "
            "image they were proposed for."
        )
    pixels = image.copy()
    areas = np.array([area_from_runs(unpack_runs(counts)) for counts in proposals.counts])
    for rank, i in enumerate(np.argsort(-areas)):
        red, green, blue = colorsys.hsv_to_rgb(rank * 0.618034 % 1, 0.85, 1.0)  # golden-ratio steps keep hues apart
        colour = (int(255 * red), int(255 * green), int(255 * blue))
        tint(pixels, proposals.mask(i), proposals.boxes[i], colour)
    return captioned(Image.fromarray(pixels), f"{len(proposals)} proposals", "")


def contact_sheet(pictures: list[Image.Image], columns: int, cell_width_px: int) -> Image.Image:
    """Lays pictures out in rows of equal width.

    Args:
        pictures: At least one picture.
        columns: Pictures a row.
        cell_width_px: Width each is scaled to, aspect kept.
    """
    cells = [
        p.resize((cell_width_px, round(p.height * cell_width_px / p.width)), Image.Resampling.LANCZOS) for p in pictures
    ]
    gap = 8
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    width = columns * cell_width_px + (columns + 1) * gap
    sheet = Image.new("RGB", (width, sum(heights) + (len(rows) + 1) * gap), "white")
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (gap + column * (cell_width_px + gap), top))
        top += height + gap
    return sheet


def tint(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], box: NDArray[np.float32], colour: tuple[int, int, int]
) -> None:
    """Blends a colour over the mask and draws its contour, in place on (H, W, 3) uint8 pixels, within its box only."""
    x0, y0, x1, y1 = (int(value) for value in box)
    window, inside = pixels[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    blended = (1 - _TINT_SHARE) * window[inside] + _TINT_SHARE * np.array(colour, np.float32)
    window[inside] = blended.astype(np.uint8)
    window[inside & ~_eroded(inside, line_width(pixels))] = colour


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    for _ in range(steps):
        padded = np.pad(mask, 1, constant_values=False)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def line_width(image: NDArray[np.generic]) -> int:
    """Returns the width in pixels of a line that suits an image (H, W, ...)."""
    longest: int = max(image.shape[:2])
    return max(1, round(longest / 320))


def captioned(picture: Image.Image, text: str, figure: str) -> Image.Image:
    """Puts a caption strip under a picture, the text shrunk and cut to its width."""
    size_px = max(9, round(picture.width / 28))
    font = ImageFont.load_default(size_px)
    draw = ImageDraw.Draw(picture)
    room = picture.width - size_px - (draw.textlength(figure, font) + size_px if figure else 0)
    if draw.textlength(text, font) > room:
        keep = max(1, math.floor(len(text) * room / draw.textlength(text, font)) - 2)
        text = text[:keep].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    strip = round(size_px * 1.9)
    framed = Image.new("RGB", (picture.width, picture.height + strip), (24, 24, 28))
    framed.paste(picture, (0, 0))
    draw = ImageDraw.Draw(framed)
    middle = picture.height + strip // 2
    draw.text((size_px / 2, middle), text, fill="white", font=font, anchor="lm")
    if figure:
        draw.text((picture.width - size_px / 2, middle), figure, fill=(120, 255, 215), font=font, anchor="rm")
    return framed
