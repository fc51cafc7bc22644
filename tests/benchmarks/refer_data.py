"""Writes small data sets in REFER's format for the tests, their pickles as Python 2 wrote them."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Protocol 2 with the opcodes of Python 2's ``str``, which Python 3 reads but no longer writes."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text: str) -> None:
        data = text.encode("latin-1")
        self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(data)) + data)

    dispatch[str] = save_str


def python2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    """The polygon that covers the half-open pixel box."""
    return [left, top, right, top, right, bottom, left, bottom]


def write_refer(
    root: Path, dataset: str, split_by: str, refs: Any, instances: dict[str, Any], image_folder: str
) -> None:
    folder = root / dataset
    folder.mkdir(parents=True)
    (folder / f"refs({split_by}).p").write_bytes(python2_pickle(refs))
    (folder / "instances.json").write_text(json.dumps(instances))
    (root / image_folder).mkdir(parents=True)
    for image in instances["images"]:
        pixels = np.full((image["height"], image["width"], 3), 200, np.uint8)
        Image.fromarray(pixels).save(root / image_folder / image["file_name"])
