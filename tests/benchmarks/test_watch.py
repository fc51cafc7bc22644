from __future__ import annotations

import numpy as np

import risengine
from risbench.machine.watch import timed_calls, watched_graphs
from risengine.generator.sam import SamImage


def test_every_run_of_a_graph_is_noted() -> None:
    with risengine.load("tabletop") as engine:
        with watched_graphs(engine.sessions, keep=("text_encoder",)) as calls:
            masks = np.zeros((2, 20, 30), np.bool_)
            masks[:, 5:9, 5:9] = True
            encoded = engine.encode_image(np.zeros((20, 30, 3), np.uint8), masks=masks)
            engine.segment(encoded, "the red mug on the table")
        assert [call.role for call in calls] == ["proposal_encoder", "text_encoder"]
        features, text = calls
        assert dict(features.shapes) == {"image": (20, 30, 3), "masks": (2, 20, 30), "global_weight": ()}
        assert features.feeds is None
        width = encoded.features.shape[1]
        assert (
            features.array_bytes == 1800 + 1200 + 4 + 3 * 2 * width * 4
        )  # image, masks, weight; three features a mask
        assert text.feeds is not None
        assert text.feeds["tokens"].shape == (2, 77)
        assert all(call.duration_ms > 0 for call in calls)
        engine.segment(encoded, "another mug")
    assert len(calls) == 2  # nothing is noted outside of the context


def test_sams_chained_graphs_are_noted_once() -> None:
    with risengine.load("tabletop", points_per_side=2) as engine, watched_graphs(engine.sessions) as calls:
        engine.proposals(np.zeros((20, 30, 3), np.uint8))
    assert [call.role for call in calls][:3] == ["image_encoder", "image_projector", "point_decoder"]


def test_calls_of_a_method_are_timed_and_given_back() -> None:
    original = SamImage.decode
    with timed_calls(SamImage, "decode") as durations_ms:
        assert SamImage.decode is not original
    assert SamImage.decode is original
    assert durations_ms == []
