"""``risengine verify``: it passes the bundle as it is, and names what a changed graph gets wrong."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from risengine.backends.onnx_session import OnnxSession
from risengine.bundle import Bundle, file_sha256, open_bundle
from risengine.cli import main
from risengine.config import RuntimeConfig
from risengine.errors import BundleError
from risengine.manifest import MANIFEST_NAME, FileSpec
from risengine.vectors import Vectors, expand_blocks, read_vectors, write_vectors
from risengine.verify import Verification, verify_bundle

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return read_vectors(open_bundle("tabletop").vectors_path)


@pytest.fixture(scope="module")
def verification() -> Verification:
    return verify_bundle(open_bundle("tabletop"), RuntimeConfig(threads=1))


def with_vectors(bundle: Path, vectors: Vectors) -> Bundle:
    """Replaces a bundle's vectors and their hash in the manifest."""
    manifest = open_bundle(bundle).manifest
    path = bundle / manifest.vectors.file
    write_vectors(path, vectors)
    spec = FileSpec(path.name, file_sha256(path), path.stat().st_size)
    (bundle / MANIFEST_NAME).write_bytes(replace(manifest, vectors=spec).encode())
    return open_bundle(bundle)


def test_the_embedded_bundle_is_within_tolerance(verification: Verification) -> None:
    assert not verification.failures
    assert verification.providers == ("CPUExecutionProvider",)


def test_every_tensor_of_the_builds_parity_is_verified(verification: Verification) -> None:
    def figures(rows: tuple) -> set[tuple[str, str, str, float]]:
        return {(row.role, row.tensor, row.measure, row.tolerance) for row in rows}

    built = figures(open_bundle("tabletop").manifest.parity)
    assert figures(verification.parity) == {row for row in built if row[2] != "selection_agreement"}


def test_graphs_are_told_in_order() -> None:
    told: list[str] = []
    verify_bundle(open_bundle("tabletop"), RuntimeConfig(threads=1), told.append)
    assert told == [
        "image_encoder",
        "image_projector",
        "point_decoder",
        "mask_decoder",
        "proposal_encoder",
        "text_encoder",
    ]


def test_the_vectors_are_small_and_ask_something(vectors: Vectors) -> None:
    assert open_bundle("tabletop").manifest.vectors.size_bytes < 70e3
    large, small = (description.image.shape[:2] for description in vectors.descriptions)
    assert large[0] < large[1]
    assert small[0] > small[1]
    for decoding in vectors.decodings:
        assert 0.01 < decoding.masks.mean() < 0.99
        assert len(np.unique(decoding.iou_predictions)) == decoding.iou_predictions.size
    assert len(np.unique(vectors.tokens.argmax(1))) == len(vectors.tokens)


def test_vectors_survive_a_round_trip_as_the_same_bytes(vectors: Vectors, tmp_path: Path) -> None:
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    write_vectors(first, vectors)
    write_vectors(second, read_vectors(first))
    assert first.read_bytes() == second.read_bytes() == open_bundle("tabletop").vectors_path.read_bytes()


def test_changed_vectors_are_refused_by_their_hash(bundle_copy: Path, capsys: Captured) -> None:
    path = open_bundle(bundle_copy).vectors_path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"vectors\.npz was changed: SHA-256"):
        open_bundle(bundle_copy)
    assert main(["verify", str(bundle_copy)]) == 2
    assert "was changed" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"pickle"])
def test_vectors_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vectors.npz").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read as test vectors"):
        read_vectors(tmp_path / "vectors.npz")


def test_vectors_without_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "vectors.npz", tokens=np.zeros((1, 77), np.int64))
    with pytest.raises(BundleError, match="descriptions"):
        read_vectors(tmp_path / "vectors.npz")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "vectors.npz", tokens=np.array([{}], object))
    with pytest.raises(BundleError, match="allow_pickle"):
        read_vectors(tmp_path / "vectors.npz")


def test_a_nan_between_the_sampled_positions_is_out_of_tolerance(
    bundle_copy: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the lengths of the rows can see it."""
    from risengine.backends import devices

    bundle = open_bundle(bundle_copy)
    free = np.setdiff1d(np.arange(vectors.image_embedding.shape.prod()), vectors.image_embedding.positions)[0]

    class Broken(OnnxSession):
        def run(self, feeds):  # type: ignore[no-untyped-def]
            outputs = super().run(feeds)
            if "image_embedding" in outputs:
                outputs["image_embedding"].reshape(-1)[free] = np.nan
            return outputs

    monkeypatch.setattr(devices, "OnnxSession", Broken)
    (failure,) = verify_bundle(bundle, RuntimeConfig(threads=1)).failures
    assert failure.role == "image_encoder"
    assert np.isnan(failure.value)


def test_no_call_exceeds_an_engines_profile(monkeypatch: pytest.MonkeyPatch, verification: Verification) -> None:
    from risengine.backends import devices

    bounds = {"N": 2, "T": 3, "P": 1, "Q": 1, "M": 4}
    seen: dict[str, set[int]] = {name: set() for name in bounds}

    class Narrow(OnnxSession):
        def largest(self, dimension: str) -> int | None:
            return bounds.get(dimension)

        def run(self, feeds):  # type: ignore[no-untyped-def]
            for tensor in self.inputs:
                for size, name in zip(feeds[tensor.name].shape, tensor.shape, strict=True):
                    if name in bounds:
                        seen[name].add(size)
            return super().run(feeds)

    monkeypatch.setattr(devices, "OnnxSession", Narrow)
    narrow = verify_bundle(open_bundle("tabletop"), RuntimeConfig(threads=1))
    assert seen == {"N": {1, 2}, "T": {1, 3}, "P": {1}, "Q": {1}, "M": {3}}
    assert not narrow.failures
    assert [row.tensor for row in narrow.parity] == [row.tensor for row in verification.parity]


def test_what_only_gpus_run_is_left_out_on_the_cpu(bundle_copy: Path) -> None:
    manifest = open_bundle(bundle_copy).manifest
    graphs = {**manifest.graphs, "mask_measurer": manifest.graphs["image_projector"]}
    (bundle_copy / MANIFEST_NAME).write_bytes(replace(manifest, graphs=graphs).encode())
    told: list[str] = []
    verify_bundle(open_bundle(bundle_copy), RuntimeConfig(threads=1), told.append)
    assert "mask_measurer" not in told
    assert len(told) == 6


def test_expected_values_of_another_shape_are_refused(bundle_copy: Path, vectors: Vectors) -> None:
    bundle = with_vectors(bundle_copy, replace(vectors, text_features=vectors.text_features[:, 1:]))
    with pytest.raises(BundleError, match=r"text_encoder: features is \(8, \d+\).*test vectors are"):
        verify_bundle(bundle, RuntimeConfig(threads=1))


def test_a_manifest_without_the_tolerance_is_refused(bundle_copy: Path) -> None:
    manifest = open_bundle(bundle_copy).manifest
    rows = tuple(row for row in manifest.parity if row.role != "text_encoder")
    (bundle_copy / MANIFEST_NAME).write_bytes(replace(manifest, parity=rows).encode())
    with pytest.raises(BundleError, match="no tolerance for relative_error of features of text_encoder"):
        verify_bundle(open_bundle(bundle_copy), RuntimeConfig(threads=1))


def test_the_command_prints_a_table(capsys: Captured) -> None:
    assert main(["verify", "--threads", "1"]) == 0
    printed = capsys.readouterr()
    assert "CPUExecutionProvider" in printed.out
    assert printed.out.count(" ok") == 16
    assert "16 of 16 figures within" in printed.out


def test_a_deviation_is_status_1_and_named(bundle_copy: Path, vectors: Vectors, capsys: Captured) -> None:
    """Expected values that differ by a hundredth, as a graph of other weights would."""
    with_vectors(bundle_copy, replace(vectors, text_features=1.01 * vectors.text_features))
    assert main(["verify", str(bundle_copy), "--threads", "1", "--json"]) == 1
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert not answer["passed"]
    assert [(row["role"], row["measure"]) for row in answer["parity"] if not row["passed"]] == [
        ("text_encoder", "relative_error")
    ]
    assert "text_encoder: relative_error of features" in printed.err
    assert "0.0099; expected at most 0.0001" in printed.err
    assert "Do not use this bundle on this machine" in printed.err


def test_missing_bundles_are_refused(tmp_path: Path, capsys: Captured) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "not found" in capsys.readouterr().err


def test_blocks_are_repeated_and_cut() -> None:
    blocks = np.arange(12, dtype=np.float16).reshape(2, 2, 3)
    expanded = expand_blocks(blocks, (3, 6))
    assert expanded.shape == (1, 2, 3, 6)
    assert expanded.dtype == np.float32
    np.testing.assert_array_equal(expanded[0, 0], [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]])


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "open_clip", "segment_anything", "onnx", "onnxscript", "spacy"):
    sys.modules[name] = None
from risengine.cli import main
sys.exit(main(["verify", "tabletop", "--threads", "1"]))
"""


def test_verify_needs_no_torch() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "16 of 16" in result.stdout


def test_any_corruption_of_the_vectors_is_a_bundle_error(tmp_path: Path) -> None:
    data = open_bundle("tabletop").vectors_path.read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "vectors.npz", 0
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(BundleError):  # any other error fails the test
            read_vectors(path)  # where nothing that matters was hit
            continue
        refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tokens", np.zeros((2, 77), np.int32), r"tokens is int32 \(2, 77\); expected int64 of 2 dimensions"),
        ("blocks", np.zeros((0, 6, 6), np.float16), r"blocks is float16 \(0, 6, 6\)"),
        ("image_embedding.positions", np.array([1 << 30], np.int32), "positions outside its rows"),
        ("stranger", np.zeros(1), "stranger"),
    ],
)
def test_vectors_of_other_types_are_refused(name: str, value: object, message: str, tmp_path: Path) -> None:
    with np.load(open_bundle("tabletop").vectors_path) as archive:
        arrays = {**archive, name: value}
    np.savez(tmp_path / "vectors.npz", **arrays)
    with pytest.raises(BundleError, match=message):
        read_vectors(tmp_path / "vectors.npz")
