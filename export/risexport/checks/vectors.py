"""The part of the PyTorch reference that a bundle keeps, so that ``risengine verify`` needs no PyTorch.

About 120 kB at the sizes of ViT-B/32 and vit_b: a few masks, prompts and texts; of the image embedding and the logits
a random sample of positions; and for the decoders an embedding made of blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from risengine.vectors import DecodingVectors, Description, Projections, Sample, Vectors
from risexport.checks.references import ClipReference, Decoding, SamReference

__all__ = ["make_vectors"]

_MASKS = 5
_TEXTS = 8
_EMBEDDING_SAMPLE = 1024
_PROJECTION_SAMPLE = 256
_LOGITS_SAMPLE = 128


def make_vectors(sam: SamReference, clip: ClipReference) -> Vectors:
    """Chooses what is kept. The same references always give the same vectors.

    Args:
        sam: Reference of SAM.
        clip: Reference of CLIP, whose first image is SAM's.
    """
    rng = np.random.default_rng(2)
    texts = np.linspace(0, len(clip.tokens) - 1, _TEXTS).astype(int)  # of all lengths
    return Vectors(
        image_embedding=_sample(rng, sam.embedding, _EMBEDDING_SAMPLE),
        blocks=sam.blocks,
        projections=Projections(
            **{name: _sample(rng, tensor, _PROJECTION_SAMPLE) for name, tensor in sam.projections.items()}
        ),
        decodings=tuple(_decoding(rng, decoding) for decoding in sam.block_decodings),
        descriptions=tuple(_few_masks(description) for description in clip.descriptions),
        tokens=clip.tokens[texts],
        text_features=clip.text_features[texts],
    )


def _decoding(rng: np.random.Generator, decoding: Decoding) -> DecodingVectors:
    return DecodingVectors(
        points=decoding.points,
        labels=decoding.labels,
        iou_predictions=decoding.iou_predictions,
        logits=_sample(rng, decoding.logits, _LOGITS_SAMPLE),
        masks=decoding.logits > 0,
    )


def _few_masks(description: Description) -> Description:
    """Keeps the first masks, whose features do not depend on the others."""
    return Description(
        image=description.image,
        masks=description.masks[:_MASKS],
        global_features=description.global_features[:_MASKS],
        local_features=description.local_features[:_MASKS],
        features=description.features[:_MASKS],
    )


def _sample(rng: np.random.Generator, tensor: NDArray[np.float32], count: int) -> Sample:
    rows = tensor.reshape(len(tensor), -1)
    length = rows.shape[1]
    positions = np.sort(rng.choice(length, min(count, length), replace=False)).astype(np.int32)
    return Sample(
        shape=np.array(tensor.shape, np.int64),
        positions=positions,
        values=rows[:, positions],
        norms=np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32),
    )
