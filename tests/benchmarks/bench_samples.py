"""Method values for the tests."""

from __future__ import annotations

import dataclasses

from risengine.method import Method

CLEAN = Method(
    preset="clean",
    image_size_px=48,
    mean=(0.48, 0.46, 0.41),
    std=(0.27, 0.26, 0.28),
    fill=(0.0, 0.0, 0.0),
    resize="antialias",
    mask_pooling="area",
    box_rule="tight",
    masked_blocks=3,
    global_weight=0.95,
    sentence_weight=0.5,
    similarity="cosine",
    tokenisation="plain",
)
REFERENCE = dataclasses.replace(
    CLEAN,
    preset="reference",
    fill=(0.485, 0.456, 0.406),
    resize="bilinear",
    mask_pooling="point",
    box_rule="centroid",
    tokenisation="spaced",
)
