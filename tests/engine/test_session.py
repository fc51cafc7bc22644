"""A graph that cannot be loaded or fed says what was expected, what was found and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import risengine
from risengine import BackendError
from risengine.backends.onnx_session import OnnxSession
from risengine.bundle import open_bundle


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, r"got the inputs \[\]; expected \['image'\]. Pass exactly these"),
        ({"text": np.zeros(3)}, r"got the inputs \['image', 'text'\]; expected \['image'\]"),
        ({"image": np.zeros((4, 5, 3), np.float32)}, r"is float32 \(4, 5, 3\); expected uint8 .*Convert or reshape"),
        ({"image": np.zeros((4, 5), np.uint8)}, r"is uint8 \(4, 5\); expected uint8 \('H', 'W', 3\)"),
        ({"image": np.zeros((4, 5, 4), np.uint8)}, r"is uint8 \(4, 5, 4\)"),
    ],
)
def test_wrong_feeds(engine: risengine.Engine, change: dict[str, np.ndarray | None], message: str) -> None:
    feeds = {"image": np.zeros((4, 5, 3), np.uint8), **change}
    with pytest.raises(BackendError, match=message):
        engine.sessions["image_encoder"].run({name: array for name, array in feeds.items() if array is not None})


def test_sizes_of_one_name_must_agree(engine: risengine.Engine) -> None:
    feeds = {
        "image": np.zeros((8, 9, 3), np.uint8),
        "masks": np.ones((2, 8, 10), np.bool_),
        "global_weight": np.array(0.5, np.float32),
    }
    with pytest.raises(BackendError, match=r"input masks is bool .*equal names being equal sizes"):
        engine.sessions["proposal_encoder"].run(feeds)


def test_a_run_that_fails(engine: risengine.Engine) -> None:
    tokens = np.full((1, 77), 10**6, np.int64)  # outside the vocabulary
    with pytest.raises(BackendError, match=r"text_encoder\.onnx failed: .*If memory ran out"):
        engine.sessions["text_encoder"].run({"tokens": tokens})


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no protobuf")
    spec = open_bundle("tabletop").manifest.graphs["text_encoder"]
    with pytest.raises(BackendError, match=r"cannot load .*graph\.onnx.*or rebuild the bundle"):
        OnnxSession(path, spec, risengine.RuntimeConfig())
