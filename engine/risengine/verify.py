"""The build's parity repeated where a bundle will run, without PyTorch: every graph on the bundle's test vectors.

Each graph is judged alone, with the tolerance that the build enforced on the same tensor and measure. The decoders do
not get the embedding computed here but the stored one (:class:`~risengine.vectors.Vectors` says why); only
``point_decoder`` runs on what ``image_projector`` returned here, and ``mask_decoder`` on what that returned, as in the
build. Masks drawn on a GPU are compared with those that NumPy draws from the same logits, and their areas and boxes
with theirs. Selection agreement is not repeated: the few stored texts would measure it in steps far coarser than its
tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risengine.backends.devices import choose_device, open_session
from risengine.backends.session import Session
from risengine.bundle import Bundle
from risengine.config import RuntimeConfig
from risengine.errors import BundleError
from risengine.generator.placement import axis_taps, tap_feeds
from risengine.generator.upsample import Upsampler
from risengine.manifest import MANIFEST_NAME, Manifest, Measure, Parity, Role
from risengine.masks import mask_boxes
from risengine.measures import STABILITY_OFFSET, lowest_cosine, lowest_mask_iou, relative_error
from risengine.vectors import Sample, Vectors, expand_blocks, read_vectors

__all__ = ["Verification", "verify_bundle"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_bundle` found.

    Attributes:
        parity: The figures, each with the tolerance of the build.
        providers: Execution providers that really ran the graphs.
    """

    parity: tuple[Parity, ...]
    providers: tuple[str, ...]

    @property
    def failures(self) -> tuple[Parity, ...]:
        """The figures out of tolerance."""
        return tuple(row for row in self.parity if not row.passed)


def verify_bundle(
    bundle: Bundle, config: RuntimeConfig, progress: Callable[[Role], None] = lambda role: None
) -> Verification:
    """Runs every graph of an opened bundle on its test vectors. One graph is in memory at a time.

    Args:
        bundle: From :func:`risengine.bundle.open_bundle`, which has checked the hash of every file.
        config: Device and threads.
        progress: Called with a graph's role before it is loaded and run, in the order of ``Role``.

    Returns:
        Figures, within their tolerances or not.

    Raises:
        BundleError: The bundle is for another device, its vectors cannot be read or do not fit its graphs, or its
            manifest states no tolerance for a tensor.
        BackendError: The device is missing, or a graph cannot be loaded or run.
    """
    device = choose_device(bundle, config)
    vectors = read_vectors(bundle.vectors_path)
    figures = _Figures(bundle.manifest)
    providers: list[str] = []

    @contextmanager
    def loaded(role: Role) -> Iterator[Session]:
        progress(role)
        session = open_session(bundle, role, device, config)
        try:
            providers.extend(session.providers)
            yield session
        finally:
            session.close()

    with loaded("image_encoder") as session:
        embedding = session.run({"image": vectors.descriptions[0].image})["image_embedding"]
        figures.add_sampled("image_encoder", "image_embedding", embedding, vectors.image_embedding)
    with loaded("image_projector") as session:
        projections = _run_image_projector(session, vectors, figures)
    with loaded("point_decoder") as session:
        decoded = _run_point_decoder(session, vectors, projections, figures)
    with loaded("mask_decoder") as session:
        logits = _run_mask_decoder(session, vectors, decoded, figures)
    if "mask_measurer" in bundle.manifest.roles_on(device):
        with loaded("mask_measurer") as session:
            size = vectors.descriptions[0].image.shape[:2]
            _run_mask_measurer(session, logits, size, bundle.manifest.sam_image_size_px, figures)
    with loaded("proposal_encoder") as session:
        _run_proposal_encoder(session, vectors, bundle.manifest.method.global_weight, figures)
    with loaded("text_encoder") as session:
        calls = _calls(vectors.tokens, session.largest("T"))
        features = [session.run({"tokens": tokens})["features"] for tokens in calls]
        figures.add_features("text_encoder", "features", np.concatenate(features), vectors.text_features)
    return Verification(figures.judged(), tuple(dict.fromkeys(providers)))


def _run_image_projector(session: Session, vectors: Vectors, figures: _Figures) -> dict[str, Array]:
    (embedding,) = session.inputs
    rows, columns = (int(length) for length in embedding.shape[2:])
    projections = session.run({"image_embedding": expand_blocks(vectors.blocks, (rows, columns))})
    for name, actual in projections.items():
        figures.add_sampled("image_projector", name, actual, getattr(vectors.projections, name))
    return projections


def _run_point_decoder(
    session: Session, vectors: Vectors, projections: dict[str, Array], figures: _Figures
) -> list[dict[str, Array]]:
    decoded = []
    for decoding in vectors.decodings:
        fixed = {**projections, "image_size": np.array(vectors.descriptions[0].image.shape[:2], np.int64)}
        calls = _parts(len(decoding.points), session.largest("P"))
        answers = [
            session.run({**fixed, "points": decoding.points[part], "labels": decoding.labels[part]}) for part in calls
        ]
        outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        figures.add_error("point_decoder", "iou_predictions", outputs["iou_predictions"], decoding.iou_predictions)
        decoded.append(outputs)
    return decoded


def _run_mask_decoder(
    session: Session, vectors: Vectors, decoded: list[dict[str, Array]], figures: _Figures
) -> list[Array]:
    found = []
    for decoding, outputs in zip(vectors.decodings, decoded, strict=True):
        prompts, masks, channels = outputs["mask_tokens"].shape
        calls = _parts(
            prompts, min(session.largest("Q") or prompts, (session.largest("M") or masks * prompts) // masks)
        )
        answers = [
            session.run(
                {
                    "image_features": outputs["image_features"][part],
                    "mask_tokens": outputs["mask_tokens"][part].reshape(-1, channels),
                    "prompt_index": np.arange(part.stop - part.start, dtype=np.int64).repeat(masks),
                }
            )
            for part in calls
        ]
        logits = np.concatenate([answer["logits"] for answer in answers])
        figures.add_sampled("mask_decoder", "logits", logits, decoding.logits)
        figures.add_masks("mask_decoder", "logits", logits > 0, decoding.masks)
        found.append(logits)
    return found


def _run_mask_measurer(
    session: Session, logits: list[Array], size: tuple[int, ...], side_px: int, figures: _Figures
) -> None:
    height, width = size
    low = logits[0].shape[1], logits[0].shape[2]
    upsampler = Upsampler((height, width), low, side_px)
    feeds: dict[str, Array] = {
        **tap_feeds(*(axis_taps(side, max(size), n, side_px) for side, n in zip(size, low, strict=True))),
        "stability_score_offset": np.array(STABILITY_OFFSET, np.float32),
    }
    for some in (part for rows in logits for part in _calls(rows, session.largest("D"))):
        outputs = session.run({"logits": some, **feeds})
        masks = outputs["masks"]
        figures.add_masks("mask_measurer", "masks", masks, np.stack(list(upsampler.masks(some))))
        areas = [  # resizing is linear, with weights that add up to 1
            [mask.sum() for mask in upsampler.masks(some - np.float32(cut))]
            for cut in (STABILITY_OFFSET, -STABILITY_OFFSET)
        ]
        figures.add_error("mask_measurer", "areas", 1 + outputs["areas"], 1 + np.stack(areas, axis=1))
        figures.add_error("mask_measurer", "boxes", 1 + outputs["boxes"], 1 + mask_boxes(masks))


def _run_proposal_encoder(session: Session, vectors: Vectors, global_weight: float, figures: _Figures) -> None:
    weight = np.array(global_weight, np.float32)
    for description in vectors.descriptions:
        parts = [
            session.run({"image": description.image, "masks": masks, "global_weight": weight})
            for masks in _calls(description.masks, session.largest("N"))
        ]
        for name in ("global_features", "local_features", "features"):
            actual = np.concatenate([part[name] for part in parts])
            figures.add_features("proposal_encoder", name, actual, getattr(description, name))


def _parts(count: int, most: int | None) -> list[slice]:
    """Splits so many things into as few calls as an engine's profile allows."""
    step = max(1, min(most or count, count))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _calls(rows: Array, most: int | None) -> list[Array]:
    """Splits rows into the first and the others, so that a graph is run at two numbers of rows, one of them 1."""
    return [rows[:1], *(rows[1:][part] for part in _parts(len(rows) - 1, most))]


class _Figures:
    """Gathers the figures of tensors; of several for one tensor and measure it is the worst that counts."""

    def __init__(self, manifest: Manifest) -> None:
        self._tolerances = {
            (row.role, row.tensor, row.measure): row.tolerance for row in manifest.parity if not row.rounded
        }
        self._values: dict[tuple[Role, str, Measure], list[float]] = {}

    def add_error(self, role: Role, tensor: str, actual: Array, expected: Array) -> None:
        _check_shape(role, tensor, actual.shape, expected.shape)
        self._add(role, tensor, "relative_error", relative_error(actual, expected))

    def add_features(self, role: Role, tensor: str, actual: Array, expected: Array) -> None:
        self.add_error(role, tensor, actual, expected)
        self._add(role, tensor, "cosine", lowest_cosine(actual, expected))

    def add_masks(self, role: Role, tensor: str, actual: Array, expected: Array) -> None:
        _check_shape(role, tensor, actual.shape, expected.shape)
        self._add(role, tensor, "mask_iou", lowest_mask_iou(actual, expected))

    def add_sampled(self, role: Role, tensor: str, actual: Array, expected: Sample) -> None:
        """Adds the relative error of the sample, or of the whole rows' lengths where that is larger.

        The difference of two lengths never exceeds the length of the difference, so it too is held to the tolerance;
        it sees what happens between the sampled positions. The sample's own error scatters around the row's, so that a
        graph that is just within its tolerance may be past it here.
        """
        _check_shape(role, tensor, actual.shape, tuple(expected.shape.tolist()))
        rows = actual.reshape(len(actual), -1)
        self._add(role, tensor, "relative_error", relative_error(rows[:, expected.positions], expected.values))
        norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        self._add(role, tensor, "relative_error", relative_error(norms, expected.norms))

    def judged(self) -> tuple[Parity, ...]:
        """Returns the worst figure of every tensor and measure beside its tolerance."""
        rows = []
        for key, values in self._values.items():
            if key not in self._tolerances:
                raise BundleError(
                    f"{MANIFEST_NAME} states no tolerance for {key[2]} of {key[1]} of {key[0]}. Rebuild the bundle."
                )
            worst = np.max(values) if key[2] == "relative_error" else np.min(values)  # NaN if any is NaN
            rows.append(Parity(*key, value=float(worst), tolerance=self._tolerances[key]))
        return tuple(rows)

    def _add(self, role: Role, tensor: str, measure: Measure, value: float) -> None:
        self._values.setdefault((role, tensor, measure), []).append(value)


def _check_shape(role: Role, tensor: str, actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if actual != expected:
        raise BundleError(
            f"{role}: {tensor} is {actual}; the bundle's test vectors are {expected}. Rebuild the bundle."
        )
