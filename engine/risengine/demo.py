"""The pictures and expressions that come with the package, with the right answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from risengine.errors import BundleError
from risengine.masks import decode_rle

__all__ = ["DemoPicture", "Question", "demo_pictures", "mask_iou"]

_FOLDER = Path(__file__).parent / "pictures"


@dataclass(frozen=True)
class Question:
    """An expression and its true mask, (H, W) bool."""

    text: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class DemoPicture:
    """A shipped picture and what is asked of it."""

    path: Path
    questions: tuple[Question, ...]


def demo_pictures() -> list[DemoPicture]:
    """Reads the list of shipped pictures.

    Raises:
        BundleError: The package's own files are missing.
    """
    index = _FOLDER / "demo.json"
    if not index.is_file():
        raise BundleError(f"{index} is missing from the installation. Reinstall risengine.")
    return [
        DemoPicture(
            _FOLDER / picture["file"],
            tuple(Question(question["text"], decode_rle(question["mask_rle"])) for question in picture["questions"]),
        )
        for picture in json.loads(index.read_text(encoding="utf-8"))
    ]


def mask_iou(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Returns intersection over union of two (H, W) bool masks; 0 where both are empty."""
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 0.0
