"""Images in: any file, PIL image or array a user may pass becomes (H, W, 3) uint8 RGB, or a clear error."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from risengine.errors import InputError

__all__ = ["MAX_PIXELS", "ImageLike", "load_image"]

MAX_PIXELS = 64_000_000
"""Largest image accepted, in pixels: twice an 8K frame, well below what exhausts an edge device."""

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"


def load_image(image: ImageLike) -> NDArray[np.uint8]:
    """Reads an image file, or checks and copies an image held in memory.

    Files: EXIF rotation is applied, transparency is laid over white, 16-bit gray is scaled to 8 bits. An animation is
    refused because no frame of it is *the* image.

    Args:
        image: Path of an image file, PIL image, or (H, W, 3) uint8 RGB array.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous, never a view of the argument.

    Raises:
        InputError: The file is missing, empty, truncated, animated or no image; the image has more than
            :data:`MAX_PIXELS`; the array has another shape or dtype.
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
        remedy = "np.repeat(gray[..., None], 3, axis=2)" if image.ndim == 2 else "transpose or drop channels to RGB"
        raise InputError(f"image array has shape {image.shape}; expected (H, W, 3). Try {remedy}.")
    if image.dtype != np.uint8:
        nan = " and contains NaN" if image.dtype.kind == "f" and not np.isfinite(image).all() else ""
        raise InputError(f"image array has dtype {image.dtype}{nan}; expected uint8 in [0, 255]. Scale and convert it.")
    _check_pixels(image.shape[1], image.shape[0], "image array")
    return np.array(image, order="C")


def _read_file(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise InputError(f"image {path} {'is not a file' if path.exists() else 'does not exist'}. Check the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is checked instead
            with Image.open(path) as image:
                return _to_rgb(image, str(path))
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise InputError(
            f"{path} ({size} bytes) is not an image that Pillow reads. Convert it to PNG or JPEG."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error}; at most {MAX_PIXELS} pixels. Shrink it first.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be decoded ({error}); it may be truncated. Copy it again.") from error


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    _check_pixels(image.width, image.height, name)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{name} has {frames} frames; expected a still image. Extract the frame you mean.")
    image = ImageOps.exif_transpose(image)
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
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS} are accepted. Shrink it first.")
