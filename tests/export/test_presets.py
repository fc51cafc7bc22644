"""The presets' values, and that unusable settings are refused."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from risengine.errors import InputError
from risengine.method import Method
from risexport.presets import ClipFacts, MethodOptions, TowerFamily, method_for

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
    method = method_for("clean", _facts(), MethodOptions(global_weight=0.85))
    assert (method.mean, method.std, method.fill) == (CLIP_MEAN, CLIP_STD, (0.0, 0.0, 0.0))
    assert (method.resize, method.mask_pooling, method.box_rule) == ("antialias", "area", "tight")
    assert (method.masked_blocks, method.global_weight, method.image_size_px) == (3, 0.85, 224)
    assert method.tokenisation == "plain"


def test_resnet_compares_by_product_and_masks_no_blocks() -> None:
    method = method_for("reference", _facts("resnet"))
    assert (method.similarity, method.masked_blocks) == ("dot", 0)


def test_options_replace_single_values_of_the_preset() -> None:
    preset = method_for("reference", _facts())
    options = MethodOptions(global_weight=0.0, sentence_weight=1.0, masked_blocks=1, mask_pooling="area")
    assert method_for("reference", _facts(), options) == replace(
        preset, global_weight=0.0, sentence_weight=1.0, masked_blocks=1, mask_pooling="area"
    )
    assert method_for("reference", _facts(), MethodOptions()) == preset
    assert method_for("clean", _facts("resnet"), MethodOptions(masked_blocks=0)).masked_blocks == 0


def test_options_are_fields_of_the_method() -> None:
    assert {field.name for field in fields(MethodOptions)} <= {field.name for field in fields(Method)}


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(InputError, match="clean, reference"):
        method_for("paper", _facts())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        method_for("clean", _facts(), MethodOptions(global_weight=1.5))
    with pytest.raises(InputError, match=r"sentence_weight = -1; expected a share in \[0, 1\]"):
        method_for("clean", _facts(), MethodOptions(sentence_weight=-1))
    with pytest.raises(InputError, match=r"masked_blocks = 3; expected 0 for a ResNet.*Leave --masked-blocks out"):
        method_for("clean", _facts("resnet"), MethodOptions(masked_blocks=3))
    with pytest.raises(InputError, match="mask_pooling = 'mean'; expected one of area, point"):
        method_for("clean", _facts(), MethodOptions(mask_pooling="mean"))  # type: ignore[arg-type]
