"""Images in: any file, PIL image or array a user may pass becomes (H, W, 3) uint8 RGB, or a clear error."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from risengine.errors import InputError

__all__ = ["MAX_PIXELS", "MAX_SIDE_PX", "ImageLike", "load_image"]

MAX_PIXELS = 34_000_000
"""Largest image accepted, in pixels: an 8K frame. Every proposal costs as many bytes, the float image twelve times."""

MAX_SIDE_PX = 16_384
"""Longest side accepted, in pixels."""

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"


def load_image(image: ImageLike) -> NDArray[np.uint8]:
    """Reads an image file, or checks and copies an image held in memory.

    Files: EXIF rotation is applied, transparency is laid over white, 16-bit gray is scaled to 8 bits. An animation is
    refused because no frame of it is *the* image (an MPO photograph is not: its further frames are maps).

    Args:
        image: Path of an image file, PIL image, or (H, W, 3) uint8 RGB array.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous, never a view of the argument.

    Raises:
        InputError: The file is missing, unreadable, empty, truncated, animated or no image; the image exceeds
            :data:`MAX_PIXELS` or :data:`MAX_SIDE_PX`; the array has another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        return _check_array(image)
    if isinstance(image, Image.Image):
        return _to_rgb(image, "image")
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image))
    raise InputError(f"image is a {type(image).__name__}; expected a path, a PIL image or a uint8 (H, W, 3) array.")


def _check_array(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        remedy = "Repeat gray three times" if image.ndim == 2 else "Pass all of an RGB image"
        raise InputError(f"image array has shape {image.shape}; expected (H, W, 3), none of them 0. {remedy}.")
    if image.dtype != np.uint8:
        nan = " and contains NaN" if image.dtype.kind == "f" and np.isnan(image).any() else ""
        raise InputError(f"image array has dtype {image.dtype}{nan}; expected uint8 in [0, 255]. Scale and convert it.")
    _check_pixels(image.shape[1], image.shape[0], "image array")
    return np.array(image, order="C")


def _read_file(path: Path) -> NDArray[np.uint8]:
    try:
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"image {path} {problem}. Check the path.")
        with Image.open(path) as image:
            return _to_rgb(image, str(path))
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise InputError(f"{path} ({size} bytes) is not an image Pillow reads. Convert it to PNG or JPEG.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} is too large: {error}; at most {MAX_PIXELS} pixels. Shrink it first.") from error
    except OSError as error:
        raise InputError(f"image {path} cannot be opened ({error.strerror or error}). Check the path.") from error


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    _check_pixels(image.width, image.height, name)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's MPO holds a depth or gain map beside the one photograph
        raise InputError(f"{name} has {frames} frames; expected a still image. Extract the frame you mean.")
    try:
        image.load()
        return _convert(ImageOps.exif_transpose(image), name)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be decoded ({error}); it may be truncated. Copy it again.") from error


def _convert(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise InputError(f"{name} holds floating-point pixels, whose range is unknown. Scale it to 8 bits first.")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        gray = np.clip(deep // 257, 0, 255).astype(np.uint8)  # 65535 -> 255
        return np.repeat(gray[..., None], 3, axis=2)
    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"), order="C")


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height == 0:
        raise InputError(f"{name} has no pixels ({width} x {height}).")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise InputError(
            f"{name} has {width} x {height} pixels; at most {MAX_PIXELS} in all and {MAX_SIDE_PX} a side are accepted. "
            "Shrink it first."
        )
