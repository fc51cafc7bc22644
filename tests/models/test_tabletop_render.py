"""Rendering and the training shards; skipped, with the reason, where there is no offscreen OpenGL."""

from __future__ import annotations

import ctypes.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tabletop.generate import write_training_set
from tabletop.render import RenderError, SceneRenderer
from tabletop.scenes import sample_scene
from tabletop.vocabulary import HELD_OUT_PAIRS


@pytest.fixture(scope="module")
def renderer() -> Iterator[SceneRenderer]:
    try:
        opened = SceneRenderer(480, 360)
    except RenderError as error:
        pytest.skip(f"nothing can be rendered here: {error}")
    with opened:
        yield opened


def test_masks_are_where_the_camera_puts_the_objects(renderer: SceneRenderer) -> None:
    for index in range(4):
        scene = sample_scene("val", 0, index)
        rendering = renderer.render(scene)
        assert rendering.image.shape == (360, 480, 3)
        assert rendering.image.dtype == rendering.instances.dtype == np.uint8
        assert rendering.instances.max() <= len(scene.objects)
        centres = scene.camera.project(np.array([[o.x, o.y, o.height / 2] for o in scene.objects])) * (480, 360)
        for i in np.flatnonzero(rendering.visible_fraction > 0.97):
            rows, columns = np.nonzero(rendering.instances == i + 1)
            assert len(rows) == rendering.visible_px[i]
            middle = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
            assert np.hypot(*(middle - centres[i])) < 0.25 * np.hypot(np.ptp(columns), np.ptp(rows)) + 3


def test_objects_have_their_colour(renderer: SceneRenderer) -> None:
    """The mean hue of a colourful object is that of its albedo, within 20 degrees."""
    checked = 0
    for index in range(6):
        scene = sample_scene("val", 1, index)
        rendering = renderer.render(scene)
        for i, item in enumerate(scene.objects):
            if item.colour in ("black", "white", "gray", "brown") or rendering.visible_px[i] < 500:
                continue
            seen = rendering.image[rendering.instances == i + 1].mean(axis=0) / 255
            angle = [np.angle(rgb @ np.exp(2j * np.pi * np.arange(3) / 3)) for rgb in (seen, np.array(item.rgb))]
            assert abs(np.angle(np.exp(1j * (angle[0] - angle[1])))) < np.deg2rad(20), item
            checked += 1
    assert checked > 8


def test_a_hidden_object_has_a_small_visible_fraction(renderer: SceneRenderer) -> None:
    fractions = np.concatenate([renderer.render(sample_scene("train", 0, i)).visible_fraction for i in range(8)])
    assert ((fractions >= 0) & (fractions <= 1)).all()
    assert (fractions > 0.95).mean() > 0.5
    assert (fractions < 0.6).any()


def test_rendering_again_gives_the_same_picture(renderer: SceneRenderer) -> None:
    first = renderer.render(sample_scene("train", 0, 1))
    renderer.render(sample_scene("train", 0, 2))
    again = renderer.render(sample_scene("train", 0, 1))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.instances, again.instances)


def test_shards_do_not_depend_on_the_number_of_workers(renderer: SceneRenderer, tmp_path: Path) -> None:
    scenes = {}
    for workers in (1, 2):
        write_training_set(tmp_path / str(workers), "train", 5, 3, workers)
        shards = sorted((tmp_path / str(workers)).glob("shard-*"))
        assert len(shards) == workers
        arrays = [np.concatenate([np.load(s / f"{name}.npy") for s in shards]) for name in ("images", "instances")]
        scenes[workers] = (*arrays, [json.loads(line) for s in shards for line in (s / "scenes.jsonl").open()])
    np.testing.assert_array_equal(scenes[1][0], scenes[2][0])
    np.testing.assert_array_equal(scenes[1][1], scenes[2][1])
    assert scenes[1][2] == scenes[2][2]
    assert [facts["index"] for facts in scenes[1][2]] == list(range(3))
    assert scenes[1][0].shape == (3, 360, 480, 3)
    for facts in scenes[1][2]:
        assert all((item["colour"], item["class"]) not in HELD_OUT_PAIRS for item in facts["objects"])


def test_a_closed_renderer_says_so(renderer: SceneRenderer) -> None:
    other = SceneRenderer(64, 48)
    other.close()
    other.close()
    with pytest.raises(RenderError, match="got a closed one"):
        other.render(sample_scene("train", 0, 0))


def test_only_four_to_three_images(renderer: SceneRenderer) -> None:
    with pytest.raises(ValueError, match="expected a 4:3 image, got 100 x 100"):
        SceneRenderer(100, 100)


def test_missing_opengl_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(RenderError, match=r"neither libEGL nor libOSMesa.*apt-get install libegl1"):
        SceneRenderer(64, 48)
