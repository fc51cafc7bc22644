"""The way of masks on a GPU, over the fake one: the same proposals as the host's, and what visits the host on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCudart, at, on_fake_gpu
from fake_sam import SIDE_PX, FakeSam, assert_consistent

import risengine
from risengine import proposal_features
from risengine.backends.device_array import DeviceArray
from risengine.backends.device_memory import DeviceMemory
from risengine.backends.on_device import OnDevice, describe
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import DeviceSession
from risengine.config import RuntimeConfig
from risengine.demo import DemoPicture
from risengine.generator.device_drawing import MASKS_PER_CALL, DeviceDrawer
from risengine.generator.proposals import find_proposals, generate_proposals
from risengine.generator.upsample import Upsampler
from risengine.method import ProposalSettings
from risexport.graphs import measurer_graph


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture(scope="module")
def measurers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, OnnxSession]:
    """Sessions of the exported graph by the logits' side: the fake SAM's and the tabletop SAM's."""
    sessions = {}
    for side in (16, 128):
        folder = tmp_path_factory.mktemp("measurer")
        spec = measurer_graph((side, side)).export(folder)
        sessions[side] = OnnxSession(folder / spec.file, spec, RuntimeConfig(threads=1))
    return sessions


class OnFakeGpu:
    """A session of :class:`FakeSam` that leaves what it makes in the fake GPU's memory."""

    inputs = outputs = ()
    providers = ("fake",)
    on_gpu = True

    def __init__(self, session: Any, memory: DeviceMemory) -> None:
        self.session, self.memory = session, memory

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return self.run_on_device(feeds, set(self.session.run(feeds)))

    def run_on_device(self, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
        found = {name: on_host(feed) for name, feed in feeds.items()}
        outputs = self.session.run(found)
        return {
            name: value if name in to_host else DeviceArray.of(self.memory, value) for name, value in outputs.items()
        }

    def to_device(self, array: np.ndarray) -> DeviceArray:
        return DeviceArray.of(self.memory, array)

    def largest(self, dimension: str) -> None:
        return None

    def close(self) -> None:
        pass


def on_host(feed: Any) -> Any:
    described = describe("feed", feed)
    if not isinstance(described, OnDevice):
        return feed
    return at(described.address, described.shape, described.dtype.str) if np.prod(described.shape) else feed.to_host()


def on_gpu(sam: FakeSam, measurer: OnnxSession, cudart: FakeCudart) -> dict[Any, DeviceSession]:
    memory = DeviceMemory(cudart)
    sessions = {role: OnFakeGpu(session, memory) for role, session in sam.sessions.items()}
    return {**sessions, "mask_measurer": on_fake_gpu(measurer, cudart)}


@pytest.mark.parametrize("size", [(30, 41), (64, 64), (200, 3), (1, 400), (1, 1), (130, 300), (481, 317)])
def test_measures_and_masks_are_the_hosts(
    size: tuple[int, int], measurers: dict[int, OnnxSession], cudart: FakeCudart, rng: np.random.Generator
) -> None:
    logits = (8 * rng.normal(size=(70, 16, 16))).astype(np.float32)  # more than one call's
    logits[0], logits[1] = -9, 9
    held = DeviceArray.of(DeviceMemory(cudart), logits)
    host = Upsampler(size, (16, 16), SIDE_PX)
    device = DeviceDrawer.of_image(on_fake_gpu(measurers[16], cudart), size, (16, 16), SIDE_PX)
    expected = np.stack(list(host.masks(logits)))
    before = cudart.copied_to_host
    stability, boxes = device.measure(held, 1.0)
    assert cudart.copied_to_host - before == 70 * (2 * 4 + 4 * 4)
    np.testing.assert_array_equal(boxes, host.measure(logits, 1.0)[1])
    np.testing.assert_allclose(stability, host.measure(logits, 1.0)[0], atol=2 / np.prod(size))
    before = cudart.copied_to_host
    windows = list(device.windows(held, boxes))
    assert cudart.copied_to_host - before == (boxes[:, 3] - boxes[:, 1]).sum() * size[1]  # the rows of the boxes
    for actual, wanted in zip(windows, host.windows(logits, boxes), strict=True):
        np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(device.draw(held).to_host(), expected)
    points = rng.random((50, 2)).astype(np.float32) * np.float32(size[::-1])
    np.testing.assert_array_equal(device.covering(held, points), host.covering(logits, points))


def test_measuring_holds_the_masks_of_one_call(measurers: dict[int, OnnxSession], cudart: FakeCudart) -> None:
    held = DeviceArray.of(DeviceMemory(cudart), np.ones((4 * MASKS_PER_CALL, 16, 16), np.float32))
    device = DeviceDrawer.of_image(on_fake_gpu(measurers[16], cudart), (64, 64), (16, 16), SIDE_PX)
    cudart.peak = 0
    device.measure(held, 1.0)
    assert cudart.peak < held.nbytes + 2.5 * MASKS_PER_CALL * 64 * 64


KEEP = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.1, "box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
CASES = [
    (ProposalSettings(9, **KEEP), (50, 70)),
    (ProposalSettings(7, points_per_batch=4, **KEEP), (333, 97)),
    (ProposalSettings(6, crop_n_layers=2, **KEEP), (90, 61)),
    (ProposalSettings(6, crop_n_layers=1, **KEEP), (1, 40)),
    (ProposalSettings(9, min_mask_region_area=50, **KEEP), (120, 80)),
    (ProposalSettings(16, search="turbo", **KEEP), (77, 130)),
    (ProposalSettings(5, **{**KEEP, "pred_iou_thresh": 2.0}), (30, 40)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("held_bytes", [0, 5 * 4 * 16 * 16, DeviceDrawer.held_bytes])
def test_proposals_are_the_hosts(
    case: int,
    held_bytes: int,
    measurers: dict[int, OnnxSession],
    cudart: FakeCudart,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DeviceDrawer, "held_bytes", held_bytes)
    options, size = CASES[case]
    image = np.random.default_rng(case).integers(0, 256, (*size, 3), dtype=np.uint8)
    sam = FakeSam(case)
    expected = generate_proposals(sam.sessions, image, options, SIDE_PX)
    found = find_proposals(on_gpu(sam, measurers[16], cudart), image, options, SIDE_PX)
    assert found.proposals == expected
    assert_consistent(found.proposals, options)
    assert (len(expected) > 10) == (options.pred_iou_thresh < 1)
    held = [mask is not None for mask in found.held]
    if held_bytes > 1 << 20 and len(held):
        assert set(held) == {not options.min_mask_region_area}
    before = cudart.copied_to_host
    masks = found.masks(0, len(found)) if len(found) else np.zeros((0, *size), np.bool_)
    assert isinstance(masks, DeviceArray) == (all(held) and len(found) > 0)
    assert cudart.copied_to_host == before
    np.testing.assert_array_equal(np.asarray(masks), expected.masks)


def test_a_cpu_has_no_use_for_the_graph(
    measurers: dict[int, OnnxSession], cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, size = CASES[0]
    sam, image = FakeSam(0), np.zeros((*size, 3), np.uint8)
    expected = generate_proposals(sam.sessions, image, options, SIDE_PX)
    monkeypatch.setattr(on_fake_gpu(measurers[16], cudart), "_on_gpu", False)
    found = find_proposals({**sam.sessions, "mask_measurer": measurers[16]}, image, options, SIDE_PX)
    assert found.proposals == expected
    assert set(found.held) == {None}


@pytest.fixture
def on_the_gpu(
    engine: risengine.Engine, measurers: dict[int, OnnxSession], cudart: FakeCudart, request: pytest.FixtureRequest
) -> Iterator[risengine.Engine]:
    """The embedded bundle, every graph over the fake GPU's memory."""
    with risengine.load("tabletop", RuntimeConfig(threads=2), **getattr(request, "param", {})) as loaded:
        for session in loaded.sessions.values():
            assert isinstance(session, OnnxSession)
            on_fake_gpu(session, cudart)
        loaded.sessions["mask_measurer"] = on_fake_gpu(measurers[128], cudart)
        yield loaded
        del loaded.sessions["mask_measurer"]  # which other tests use too


def test_whole_images_are_the_hosts(
    engine: risengine.Engine, on_the_gpu: risengine.Engine, picture: DemoPicture, encoded: risengine.EncodedImage
) -> None:
    actual = on_the_gpu.encode_image(picture.path)
    assert len(actual.proposals) == len(encoded.proposals) > 10
    np.testing.assert_array_equal(actual.proposals.boxes, encoded.proposals.boxes)
    np.testing.assert_allclose(actual.proposals.scores, encoded.proposals.scores, atol=1e-5)
    np.testing.assert_allclose(actual.proposals.stability_scores, encoded.proposals.stability_scores, atol=1e-3)
    differing = actual.proposals.masks != encoded.proposals.masks
    assert differing.sum() <= 1e-6 * differing.size  # at the cut-off, where batches of other sizes round otherwise
    np.testing.assert_allclose(actual.features, encoded.features, atol=1e-4)
    for question in picture.questions:
        one, two = on_the_gpu.segment(actual, question.text), engine.segment(encoded, question.text)
        assert one.index == two.index


def test_what_visits_the_host(
    on_the_gpu: risengine.Engine, picture: DemoPicture, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, described, images = [], [], []
    measure, describe_masks = DeviceDrawer.measure, OnnxSession.run_on_device

    def count(drawer: DeviceDrawer, logits: DeviceArray, offset: float) -> Any:
        measured.append(len(logits))
        return measure(drawer, logits, offset)

    def watch(session: OnnxSession, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
        if "masks" in feeds:
            described.append(feeds["masks"])
            images.append(feeds["image"])
        return describe_masks(session, feeds, to_host)

    monkeypatch.setattr(DeviceDrawer, "measure", count)
    monkeypatch.setattr(OnnxSession, "run_on_device", watch)
    monkeypatch.setattr(proposal_features, "_MASKED_PIXELS", 8 * 640 * 480)
    encoded = on_the_gpu.encode_image(picture.path)
    (channels,) = {t.shape[-1] for t in on_the_gpu.sessions["mask_decoder"].inputs if t.name == "mask_tokens"}
    prompts, boxes = on_the_gpu.proposal_settings.points_per_side**2, encoded.proposals.boxes
    masks = len(boxes)
    decoded = prompts * 3 * 4 * (1 + int(channels))  # predicted IoUs and mask tokens
    drawn = int((boxes[:, 3] - boxes[:, 1]).sum()) * encoded.size[1]
    assert cudart.copied_to_host == decoded + sum(measured) * 24 + drawn + encoded.features.nbytes
    assert sum(measured) > masks
    assert sum(map(len, described)) == masks
    assert all(isinstance(feed, DeviceArray) for feed in described)
    assert len(images) > 1
    assert isinstance(images[0], DeviceArray)
    assert all(image is images[0] for image in images)  # sent once


def test_all_of_it_is_freed(on_the_gpu: risengine.Engine, picture: DemoPicture, cudart: FakeCudart) -> None:
    on_the_gpu.encode_image(picture.path)
    assert not cudart.blocks
    assert len(cudart.freed) > 10


def test_an_array_without_rows_has_none_to_give(cudart: FakeCudart) -> None:
    empty = DeviceArray.of(DeviceMemory(cudart), np.zeros((0, 3), np.float32))
    assert empty[np.zeros(0, np.int64)].shape == (0, 3)
    assert empty.part(0, 0).shape == (0, 3)


def test_rows_and_joined_arrays_are_complete_when_they_are_handed_out(cudart: FakeCudart) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    held = DeviceArray.of(DeviceMemory(cudart), rows)
    for chosen in ([1, 2, 3], [5, 0, 1, 1, 4], [], [2]):
        taken = held[np.array(chosen, np.int64)]
        assert not cudart.pending
        np.testing.assert_array_equal(taken.to_host(), rows[chosen])
    both = DeviceArray.joined([held, held[np.array([3])]])
    assert not cudart.pending
    np.testing.assert_array_equal(both.to_host(), np.concatenate([rows, rows[3:4]]))
    part = held.part(2, 4)
    np.testing.assert_array_equal(at(part.address, part.shape, "float32"), rows[2:4])


def test_a_host_does_without_the_graph(bundle_copy: Path) -> None:
    manifest = risengine.load("tabletop").manifest
    assert "mask_measurer" not in manifest.graphs
    seven = dataclasses.replace(manifest, graphs={**manifest.graphs, "mask_measurer": manifest.graphs["mask_decoder"]})
    for device in ("cpu", "openvino"):
        assert "mask_measurer" not in seven.roles_on(device)
    for device in ("cuda", "tensorrt", "tensorrt-rtx"):
        assert seven.roles_on(device) == (*seven.roles_on("cpu")[:4], "mask_measurer", *seven.roles_on("cpu")[4:])
        assert manifest.roles_on(device) == manifest.roles_on("cpu")
