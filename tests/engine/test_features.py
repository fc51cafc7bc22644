"""Describing masks with the embedded bundle: any number of them, in any number of calls, of any extent."""

from __future__ import annotations

import numpy as np
import pytest

import risengine
from risengine import InputError

SIZE = (90, 124)


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def random_masks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Filled ellipses anywhere, some of them only a few pixels."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    centre = rng.uniform((0, 0), SIZE, (count, 2))
    radius = rng.uniform(1, 45, (count, 2))
    offset = np.stack([rows, columns])[None] - centre[..., None, None]
    masks = ((offset / radius[..., None, None]) ** 2).sum(axis=1) <= 1
    masks[np.arange(count), centre[:, 0].astype(int), centre[:, 1].astype(int)] = True
    return masks


@pytest.mark.parametrize("count", [1, 200, 256])
def test_features_do_not_depend_on_the_split(
    engine: risengine.Engine,
    image: np.ndarray,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    masks = random_masks(rng, count)
    session = engine.sessions["proposal_encoder"]
    feeds = {"image": image, "masks": masks, "global_weight": np.array(engine.method.global_weight, np.float32)}
    one_call = session.run(feeds)["features"]
    monkeypatch.setattr("risengine.proposal_features._MASKED_PIXELS", 77 * image[..., 0].size)  # calls of 77 masks
    split = engine.encode_image(image, masks=masks)
    assert split.features.shape == one_call.shape == (count, 128)
    np.testing.assert_allclose(split.features, one_call, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(split.features, axis=1), 1, rtol=1e-5)


def test_no_masks_have_no_features(engine: risengine.Engine, image: np.ndarray) -> None:
    encoded = engine.encode_image(image, masks=np.zeros((0, *SIZE), np.bool_))
    assert encoded.features.shape == (0, 128)
    assert engine.rank(encoded, "the mug") == []


def test_a_mask_of_everything_is_the_image_inside_and_out(engine: risengine.Engine, image: np.ndarray) -> None:
    """Nothing is masked out and the crop is the image: both features are CLIP's own of the whole picture."""
    feeds = {"image": image, "masks": np.ones((1, *SIZE), np.bool_), "global_weight": np.array(0.3, np.float32)}
    described = engine.sessions["proposal_encoder"].run(feeds)
    scale = np.abs(described["local_features"]).max()
    np.testing.assert_allclose(described["global_features"], described["local_features"], atol=1e-4 * scale)


def test_an_empty_mask_harms_no_other(engine: risengine.Engine, image: np.ndarray, rng: np.random.Generator) -> None:
    """The engine refuses empty masks; the graph, which other callers may use, gives them finite features."""
    masks = random_masks(rng, 5)
    weight = np.array(0.5, np.float32)
    session = engine.sessions["proposal_encoder"]
    alone = session.run({"image": image, "masks": masks, "global_weight": weight})["features"]
    with_empty = np.concatenate([masks[:2], np.zeros((1, *SIZE), np.bool_), masks[2:]])
    features = session.run({"image": image, "masks": with_empty, "global_weight": weight})["features"]
    assert np.isfinite(features).all()
    np.testing.assert_allclose(np.delete(features, 2, axis=0), alone, atol=1e-5)
    with pytest.raises(InputError, match=r"masks \[2\] are empty"):
        engine.encode_image(image, masks=with_empty)


@pytest.mark.parametrize("shape", [(2, 90, 123), (2, 124, 90), (90, 124), (1, 2, 90, 124)])
def test_masks_of_another_size_are_refused(engine: risengine.Engine, image: np.ndarray, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected bool \(N, 90, 124\)"):
        engine.encode_image(image, masks=np.ones(shape, np.bool_))
