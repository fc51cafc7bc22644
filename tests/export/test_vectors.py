"""The test vectors of a build: always the same bytes, and enough to tell a graph of other weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from segment_anything.modeling import Sam

from risengine.bundle import Bundle, file_sha256, open_bundle
from risengine.cli import main
from risengine.config import RuntimeConfig
from risengine.manifest import MANIFEST_NAME, GraphSpec, Role
from risengine.vectors import read_vectors, write_vectors
from risengine.verify import verify_bundle
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checks.references import clip_reference, sam_reference
from risexport.checks.vectors import make_vectors
from risexport.config import BuildConfig


def perturb(bundle: Path, role: Role) -> None:
    """Changes a graph's weights by a hundredth and its hash in the manifest."""
    manifest = open_bundle(bundle).manifest
    spec = manifest.graphs[role]
    path = bundle / spec.file
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    changed = 0
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if tensor.data_type == onnx.TensorProto.FLOAT and weights.ndim >= 2 and weights.size > 64:
            noise = rng.standard_normal(weights.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weights * (1 + 0.01 * noise), tensor.name))
            changed += 1
    assert changed
    onnx.save(model, path)
    graph = replace(spec, sha256=file_sha256(path), size_bytes=path.stat().st_size)
    graphs: dict[Role, GraphSpec] = {**manifest.graphs, role: graph}
    (bundle / MANIFEST_NAME).write_bytes(replace(manifest, graphs=graphs).encode())


FIRST_TENSOR: dict[Role, str] = {
    "image_encoder": "image_embedding",
    "image_projector": "image_keys",
    "point_decoder": "iou_predictions",
    "mask_decoder": "logits",
    "proposal_encoder": "global_features",
    "text_encoder": "features",
}


@pytest.mark.parametrize("role", FIRST_TENSOR)
def test_a_graph_of_other_weights_is_named(
    tiny_bundle: Bundle, tmp_path: Path, role: Role, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))
    perturb(bundle, role)
    assert main(["verify", str(bundle), "--threads", "1"]) == 1
    printed = capsys.readouterr()
    assert "OUT OF TOLERANCE" in printed.out
    assert f"{role}: relative_error of {FIRST_TENSOR[role]} against the PyTorch reference is" in printed.err
    # point_decoder runs on what image_projector returned, mask_decoder on what that did, the others on stored inputs
    chain: list[Role] = ["image_projector", "point_decoder", "mask_decoder"]
    wrong = set(chain[chain.index(role) :]) if role in chain else {role}
    failures = verify_bundle(open_bundle(bundle), RuntimeConfig(threads=1)).failures
    assert {row.role for row in failures} == wrong


def test_the_same_build_gives_the_same_bytes(
    tiny_bundle: Bundle, tiny_config: BuildConfig, tiny_sam: Sam, tmp_path: Path
) -> None:
    clip, _ = load_clip(tiny_config.clip)
    vectors = make_vectors(sam_reference(tiny_sam), clip_reference(clip, tiny_bundle.manifest.method))
    write_vectors(tmp_path / "again.npz", vectors)
    assert (tmp_path / "again.npz").read_bytes() == tiny_bundle.vectors_path.read_bytes()


def test_samples_are_of_the_reference(tiny_bundle: Bundle, tiny_sam: Sam) -> None:
    reference = sam_reference(tiny_sam)
    vectors = read_vectors(tiny_bundle.vectors_path)
    sample = vectors.image_embedding
    np.testing.assert_array_equal(sample.values[0], reference.embedding.reshape(-1)[sample.positions])
    assert len(np.unique(sample.positions)) == sample.positions.size == 1024
    np.testing.assert_allclose(sample.norms, np.linalg.norm(reference.embedding), rtol=1e-6)
    for decoding, whole in zip(vectors.decodings, reference.block_decodings, strict=True):
        rows = whole.logits.reshape(len(whole.logits), -1)
        np.testing.assert_array_equal(decoding.logits.values, rows[:, decoding.logits.positions])
        np.testing.assert_array_equal(decoding.masks, whole.logits > 0)
        assert tuple(decoding.logits.shape) == whole.logits.shape
    np.testing.assert_array_equal(vectors.descriptions[0].image, reference.image)
