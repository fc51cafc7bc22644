"""The presets' values, and that unusable settings are refused."""

from __future__ import annotations

import pytest

from risengine.errors import InputError
from risexport.presets import ClipFacts, TowerFamily, method_for

CLIP_MEAN, CLIP_STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def _facts(family: TowerFamily = "vit") -> ClipFacts:
    return ClipFacts("test", "random", "", family, 224, 512, 77, CLIP_MEAN, CLIP_STD)


def test_reference_keeps_the_oddities() -> None:
    method = method_for("reference", _facts())
    assert method.mean == method.fill == (0.485, 0.456, 0.406)
    assert (method.resize, method.mask_pooling, method.box_rule) == ("bilinear", "point", "centroid")
    assert (method.masked_blocks, method.global_weight, method.sentence_weight) == (3, 0.95, 0.5)
    assert (method.similarity, method.tokenisation) == ("cosine", "spaced")


def test_clean_repairs_them() -> None:
    method = method_for("clean", _facts(), global_weight=0.85)
    assert (method.mean, method.std, method.fill) == (CLIP_MEAN, CLIP_STD, (0.0, 0.0, 0.0))
    assert (method.resize, method.mask_pooling, method.box_rule) == ("antialias", "area", "tight")
    assert (method.masked_blocks, method.global_weight, method.image_size_px) == (3, 0.85, 224)
    assert method.tokenisation == "plain"


def test_resnet_compares_by_product_and_masks_no_blocks() -> None:
    method = method_for("reference", _facts("resnet"))
    assert (method.similarity, method.masked_blocks) == ("dot", 0)


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(InputError, match="clean, reference"):
        method_for("paper", _facts())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        method_for("clean", _facts(), global_weight=1.5)
