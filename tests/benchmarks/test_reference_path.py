"""Finding the models that a bundle was made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from risbench.speed.reference_path import has_random_weights, load_models
from risbench.speed.whole_path import ModelFiles
from risengine.bundle import open_bundle
from risengine.errors import InputError
from risengine.manifest import Manifest, Source

WEIGHTS = Path(__file__).parents[2] / "models" / "tabletop" / "weights"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return open_bundle("tabletop").manifest


def with_source(manifest: Manifest, role: str, **changes: str) -> Manifest:
    def changed(source: Source) -> Source:
        return dataclasses.replace(source, **changes) if source.role == role else source  # type: ignore[arg-type]

    return dataclasses.replace(manifest, sources=tuple(map(changed, manifest.sources)))


def test_the_repositorys_own_are_found(manifest: Manifest) -> None:
    models = load_models(manifest, ModelFiles())
    stored = load_file(WEIGHTS / "sam.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in models.sam.state_dict().items() if name in stored)
    assert models.context_length == 77
    assert not has_random_weights(manifest, "clip")


def test_others_are_passed(manifest: Manifest, tmp_path: Path) -> None:
    renamed = with_source(manifest, "sam", checkpoint="mine.safetensors")
    with pytest.raises(InputError, match=r"sam was built from mine\.safetensors, .* Pass its path as --sam-"):
        load_models(renamed, ModelFiles())
    load_models(renamed, ModelFiles(sam_checkpoint=WEIGHTS / "sam.safetensors"))
    counted = load_models(renamed, ModelFiles(), weights_needed=False)
    assert counted.sam_facts.checkpoint == "random"


def test_other_weights_than_the_bundles_are_refused(manifest: Manifest) -> None:
    other = with_source(manifest, "clip", sha256="0" * 64)
    for needed in (True, False):
        with pytest.raises(InputError, match=r"the clip checkpoint has SHA-256 .* Pass that one as --clip-checkpoint"):
            load_models(other, ModelFiles(), needed)


def test_random_weights_are_made_again(manifest: Manifest) -> None:
    random = with_source(manifest, "sam", checkpoint="random", sha256="")
    assert has_random_weights(random, "sam")
    one, two = (load_models(random, ModelFiles()).sam.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
