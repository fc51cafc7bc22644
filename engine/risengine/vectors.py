"""The test vectors of a bundle: inputs of every graph and what PyTorch computed from them, in one ``.npz`` file.

Outputs that are big are stored as samples. The file holds plain arrays only, one for each field below, named by its
path such as ``decodings.0.logits.values``; the same contents are always the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.errors import BundleError

__all__ = [
    "VECTORS_NAME",
    "DecodingVectors",
    "Description",
    "Projections",
    "Sample",
    "Vectors",
    "expand_blocks",
    "read_vectors",
    "write_vectors",
]

VECTORS_NAME = "vectors.npz"

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Some values of a big float32 tensor whose first axis is R rows, and the length of every row.

    Attributes:
        shape: (d,) int64, the shape of the tensor.
        positions: (n,) int32, indices into a flattened row.
        values: (R, n) float32.
        norms: (R,) float32, Euclidean norms of the whole rows.
    """

    shape: NDArray[np.int64]
    positions: NDArray[np.int32]
    values: NDArray[np.float32]
    norms: NDArray[np.float32]


@dataclass(frozen=True)
class Description:
    """An image, masks in it, and their CLIP features.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool.
        global_features: (N, E) float32.
        local_features: (N, E) float32.
        features: (N, E) float32, the mix at the method's v.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    global_features: NDArray[np.float32]
    local_features: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True)
class DecodingVectors:
    """P prompts with K points and what SAM decodes from them.

    Attributes:
        points: (P, K, 2) float32 xy px.
        labels: (P, K) int64 with segment-anything's meaning.
        iou_predictions: (P, 3) float32.
        logits: Of (3P, 4h, 4w).
        masks: (3P, 4h, 4w) bool, where the logits are positive.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    iou_predictions: NDArray[np.float32]
    logits: Sample
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Projections:
    """What ``image_projector`` makes of the embedding of blocks; of (1, h * w, C), and of (1, h * w, D) the others."""

    image_cells: Sample
    image_keys: Sample
    image_values: Sample
    image_queries: Sample


@dataclass(frozen=True)
class Vectors:
    """Everything in the file.

    The decoders have an embedding of their own, made of blocks: the image's is too big to store, and that computed on
    the user's machine would add the encoder's error to theirs, of which it is allowed several times as much.

    Attributes:
        descriptions: Images of several sizes; the first is also the input of ``image_encoder``.
        image_embedding: Of (1, C, h, w), the embedding of the first image.
        blocks: (C, a, b) float16, the embedding that is decoded; see :func:`expand_blocks`.
        projections: Of that embedding.
        decodings: Prompts of several kinds, in the first image, decoded from that embedding.
        tokens: (T, context_length) int64.
        text_features: (T, E) float32.
    """

    descriptions: tuple[Description, ...]
    image_embedding: Sample
    blocks: NDArray[np.float16]
    projections: Projections
    decodings: tuple[DecodingVectors, ...]
    tokens: NDArray[np.int64]
    text_features: NDArray[np.float32]


def expand_blocks(blocks: NDArray[np.float16], size: tuple[int, int]) -> NDArray[np.float32]:
    """Makes an image embedding by repeating every value over a block of cells.

    Args:
        blocks: (C, a, b) float16.
        size: (h, w) of the embedding.

    Returns:
        (1, C, h, w) float32.
    """
    rows, columns = (-(-length // count) for length, count in zip(size, blocks.shape[1:], strict=True))
    expanded = blocks.astype(np.float32).repeat(rows, 1).repeat(columns, 2)
    return np.ascontiguousarray(expanded[None, :, : size[0], : size[1]])


def write_vectors(path: Path, vectors: Vectors) -> None:
    """Writes the file.

    Args:
        path: Where.
        vectors: Its contents.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in _named_arrays(vectors, ""):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            # `numpy.savez` writes the time of day, and equal builds would have different hashes.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


def read_vectors(path: Path) -> Vectors:
    """Reads the file, whose hash was checked when the bundle was opened.

    Raises:
        BundleError: It is no ``.npz`` file of plain arrays, an array is missing, or one is of another type or shape.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: _checked(name, archive[name]) for name in archive.files}
        return Vectors(
            descriptions=tuple(
                Description(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(Description)})
                for name in _numbered("descriptions", arrays)
            ),
            image_embedding=_sample("image_embedding", arrays),
            blocks=arrays["blocks"],
            projections=Projections(
                **{field.name: _sample(f"projections.{field.name}", arrays) for field in fields(Projections)}
            ),
            decodings=tuple(
                DecodingVectors(
                    points=arrays[f"{name}.points"],
                    labels=arrays[f"{name}.labels"],
                    iou_predictions=arrays[f"{name}.iou_predictions"],
                    logits=_sample(f"{name}.logits", arrays),
                    masks=arrays[f"{name}.masks"],
                )
                for name in _numbered("decodings", arrays)
            ),
            tokens=arrays["tokens"],
            text_features=arrays["text_features"],
        )
    except Exception as error:  # whatever zip, deflate and NumPy's parser of headers make of a damaged file
        raise BundleError(f"{path} cannot be read as test vectors: {error}. Rebuild or re-copy the bundle.") from error


_KINDS = {
    "shape": (np.int64, 1),
    "positions": (np.int32, 1),
    "values": (np.float32, 2),
    "norms": (np.float32, 1),
    "image": (np.uint8, 3),
    "masks": (np.bool_, 3),
    "global_features": (np.float32, 2),
    "local_features": (np.float32, 2),
    "features": (np.float32, 2),
    "points": (np.float32, 3),
    "labels": (np.int64, 2),
    "iou_predictions": (np.float32, 2),
    "blocks": (np.float16, 3),
    "tokens": (np.int64, 2),
    "text_features": (np.float32, 2),
}
"""Type and number of dimensions of every array, by the last part of its name."""


def _checked(name: str, array: Array) -> Array:
    dtype, dimensions = _KINDS[name.rpartition(".")[2]]
    if array.dtype != dtype or array.ndim != dimensions or not array.size:
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}; expected {np.dtype(dtype).name} of {dimensions} dimensions"
        )
    return array


def _named_arrays(value: Any, name: str) -> Iterator[tuple[str, Array]]:
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _named_arrays(item, f"{name}.{index}")
    else:
        for field in fields(value):
            yield from _named_arrays(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)


def _numbered(name: str, arrays: Mapping[str, Array]) -> list[str]:
    """Returns ``name.0``, ``name.1`` and so on, as far as there are any, and at least the first."""
    count = len({key.split(".")[1] for key in arrays if key.startswith(f"{name}.")})
    return [f"{name}.{index}" for index in range(max(1, count))]


def _sample(name: str, arrays: Mapping[str, Array]) -> Sample:
    sample = Sample(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(Sample)})
    length = int(sample.shape[1:].prod())
    if sample.positions.min() < 0 or sample.positions.max() >= length:
        raise ValueError(f"{name} has positions outside its rows of {length} values")
    return sample
