"""Agreement of two engines on the same images: their masks, their answers, and what their proposals cost.

It is the gate of every reduced precision and approximate mode. Each expression is asked twice of the second engine: end
to end, with the masks it proposes itself, and with the first engine's masks, which leaves only the features to differ.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from risbench.data.refer import PolygonRule, Ref, ReferDataset, load_refer
from risbench.machine.environment import Environment, read_environment
from risbench.quality.accuracy import AccuracyConfig, BundleFacts, bundle_facts, encode_image, group_by_image
from risbench.quality.answers import ImageTruth, read_truth
from risbench.quality.metrics import Overlap, mask_overlaps
from risengine.engine import Engine
from risengine.errors import InputError
from risengine.types import EncodedImage, Proposals

__all__ = ["SAME_MASK_IOU", "Agreement", "AgreementReport", "SplitAgreement", "measure_agreement"]

SAME_MASK_IOU = 0.9
"""IoU from which two answers count as the same mask."""

ALL_SPLITS = "all"

_LOG = logging.getLogger(__name__)

Mask: TypeAlias = NDArray[np.bool_]
Progress: TypeAlias = "tqdm[tuple[int, list[Ref]]]"


@dataclass(frozen=True)
class Agreement:
    """Answers of both bundles to the same expressions.

    Attributes:
        same_mask: Share of expressions whose answers have an IoU of at least :data:`SAME_MASK_IOU`, in [0, 1]; where
            neither bundle proposes a mask they agree.
        miou_a: Mean IoU of the first bundle's answers with the ground truth, in [0, 1].
        miou_b: The second's.
    """

    same_mask: float
    miou_a: float
    miou_b: float


@dataclass(frozen=True)
class SplitAgreement:
    """Figures of one split, or of all of them together.

    Attributes:
        images: Number of images.
        expressions: Number of expressions that both bundles answered.
        refused: Number of expressions that a bundle would not read; they are left out.
        proposals_a: Mean number of masks that the first bundle proposes for an image.
        proposals_b: The second's.
        recall: Share of the first bundle's proposals that the second makes too, with an IoU of at least
            :data:`SAME_MASK_IOU`; None where the first proposes nothing.
        proposal_ms_a: Mean milliseconds that the first bundle's proposals of an image take, image encoder included.
        proposal_ms_b: The second's, on the same images in turns.
        end_to_end: Each bundle with its own proposals.
        same_proposals: Both with the first bundle's proposals.
        lowest_cosine: Of the features of the same mask; None where nothing was proposed.
        mean_cosine: Of the features of the same mask; None where nothing was proposed.
    """

    images: int
    expressions: int
    refused: int
    proposals_a: float
    proposals_b: float
    recall: float | None
    proposal_ms_a: float
    proposal_ms_b: float
    end_to_end: Agreement
    same_proposals: Agreement
    lowest_cosine: float | None
    mean_cosine: float | None


@dataclass(frozen=True)
class AgreementReport:
    """All figures of a run with the conditions they were measured under; ``all`` in ``splits`` holds all of them.

    ``threads`` is what the engines were loaded with; 0 is automatic.
    """

    a: BundleFacts
    b: BundleFacts
    config: AccuracyConfig
    environment: Environment
    threads: int
    splits: dict[str, SplitAgreement]
    same_mask_iou: float = SAME_MASK_IOU
    schema_version: int = 2


@dataclass(frozen=True)
class _Pair:
    """Both answers to one expression: how they overlap each other and, each, the ground truth."""

    mutual: float
    iou_a: float
    iou_b: float


@dataclass
class _Tally:
    """What was found on the images so far."""

    proposals_a: list[int] = field(default_factory=list)
    proposals_b: list[int] = field(default_factory=list)
    recalled: list[bool] = field(default_factory=list)
    proposal_ms_a: list[float] = field(default_factory=list)
    proposal_ms_b: list[float] = field(default_factory=list)
    own: list[_Pair] = field(default_factory=list)
    shared: list[_Pair] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    refused: int = 0

    def add(self, other: _Tally) -> None:
        """Takes another tally's findings in."""
        for found in fields(self):
            if found.name != "refused":
                getattr(self, found.name).extend(getattr(other, found.name))
        self.refused += other.refused


def measure_agreement(a: Engine, b: Engine, config: AccuracyConfig, threads: int = 0) -> AgreementReport:
    """Asks two engines the same expressions; a progress bar shows the running agreement.

    Args:
        a: The exact one.
        b: The one in question.
        config: What they are asked.
        threads: What both were loaded with, for the report.

    Raises:
        InputError: The data set cannot be read, has no such split, or no expression of it could be asked.
    """
    dataset = load_refer(config.refer, config.dataset, config.split_by)
    chosen = {name: group_by_image(dataset.split(name), config.limit) for name in config.splits}
    for image_id in [image_id for refs in chosen.values() for image_id in refs][:1]:
        for engine in (a, b):  # a first run is slower
            encode_image(engine, dataset, image_id)
    tallies, total = {}, _Tally()
    for name, refs in chosen.items():
        with tqdm(refs.items(), desc=f"{dataset.name} {name}", unit="image") as progress:
            tallies[name] = _ask_split(a, b, dataset, progress, config.polygons)
        total.add(tallies[name])
    return AgreementReport(
        a=bundle_facts(a),
        b=bundle_facts(b),
        config=config,
        environment=read_environment(),
        threads=threads,
        splits={name: _summarise(tally) for name, tally in {**tallies, ALL_SPLITS: total}.items()},
    )


def _ask_split(a: Engine, b: Engine, dataset: ReferDataset, refs: Progress, polygons: PolygonRule) -> _Tally:
    tally = _Tally()
    for image_id, refs_of_image in refs:
        truth = read_truth(dataset, image_id, polygons)
        if not truth.ann_ids:
            _LOG.warning("image %d of %s has no visible object; it is left out", image_id, dataset.name)
            continue
        turns = (a, b) if len(tally.proposals_a) % 2 == 0 else (b, a)  # neither always finds the caches warm
        encoded = {engine: encode_image(engine, dataset, image_id) for engine in turns}
        tally.add(_ask_image(a, b, (encoded[a], encoded[b]), truth, refs_of_image))
        same = np.mean([_is_same(pair) for pair in tally.own]) if tally.own else 1.0
        refs.set_postfix(same=f"{100 * same:.1f}%")
    if not tally.own:
        raise InputError(f"no expression of {dataset.name} could be asked. Check instances.json.")
    return tally


def _ask_image(
    a: Engine, b: Engine, encoded: tuple[EncodedImage, EncodedImage], truth: ImageTruth, refs: Sequence[Ref]
) -> _Tally:
    own_a, own_b = encoded
    shared = b.encode_image(own_a.image, masks=own_a.proposals)
    lengths = np.linalg.norm(own_a.features, axis=1) * np.linalg.norm(shared.features, axis=1)
    cosines = (own_a.features * shared.features).sum(axis=1) / lengths
    tally = _Tally(
        proposals_a=[len(own_a.proposals)],
        proposals_b=[len(own_b.proposals)],
        recalled=_recalled(own_a.proposals, own_b.proposals),
        proposal_ms_a=[own_a.timings_ms["proposals"]],
        proposal_ms_b=[own_b.timings_ms["proposals"]],
        cosines=[float(cosine) for cosine in cosines],
    )
    targets = dict(zip(truth.ann_ids, truth.masks, strict=True))
    for ref in refs:
        if ref.ann_id not in targets:
            _LOG.warning("ref %d is left out: its object has no visible pixel or is a crowd", ref.ref_id)
            continue
        for sentence in ref.sentences:
            try:
                answers = [_best(a, own_a, sentence.raw), _best(b, own_b, sentence.raw), _best(b, shared, sentence.raw)]
            except InputError as error:  # one unreadable text must not end the evaluation of thousands
                _LOG.warning("expression %d is left out: %s", sentence.sent_id, error)
                tally.refused += 1
                continue
            answer_a, answer_b, answer_shared = answers
            tally.own.append(_compare(answer_a, answer_b, targets[ref.ann_id]))
            tally.shared.append(_compare(answer_a, answer_shared, targets[ref.ann_id]))
    return tally


def _recalled(a: Proposals, b: Proposals) -> list[bool]:
    """Tells of every mask of ``a`` whether ``b`` has the same."""
    if not len(a) or not len(b):
        return [False] * len(a)
    best = mask_overlaps(b.masks, a.masks).ious.max(axis=0)
    return [bool(iou >= SAME_MASK_IOU) for iou in best]


def _best(engine: Engine, encoded: EncodedImage, text: str) -> Mask | None:
    ranked = engine.rank(encoded, text, top_k=1)
    return ranked[0].mask if ranked else None


def _compare(a: Mask | None, b: Mask | None, target: Mask) -> _Pair:
    mutual = float(a is b) if a is None or b is None else _overlap(a, b).iou
    iou_a, iou_b = (0.0 if mask is None else _overlap(mask, target).iou for mask in (a, b))
    return _Pair(mutual, iou_a, iou_b)


def _is_same(pair: _Pair) -> bool:
    return pair.mutual >= SAME_MASK_IOU


def _overlap(mask: Mask, target: Mask) -> Overlap:
    return mask_overlaps(mask[None], target[None]).at(0, 0)


def _summarise(tally: _Tally) -> SplitAgreement:
    return SplitAgreement(
        images=len(tally.proposals_a),
        expressions=len(tally.own),
        refused=tally.refused,
        proposals_a=float(np.mean(tally.proposals_a)),
        proposals_b=float(np.mean(tally.proposals_b)),
        recall=float(np.mean(tally.recalled)) if tally.recalled else None,
        proposal_ms_a=float(np.mean(tally.proposal_ms_a)),
        proposal_ms_b=float(np.mean(tally.proposal_ms_b)),
        end_to_end=_agreement(tally.own),
        same_proposals=_agreement(tally.shared),
        lowest_cosine=min(tally.cosines, default=None),
        mean_cosine=float(np.mean(tally.cosines)) if tally.cosines else None,
    )


def _agreement(pairs: Sequence[_Pair]) -> Agreement:
    return Agreement(
        same_mask=float(np.mean([_is_same(pair) for pair in pairs])),
        miou_a=float(np.mean([pair.iou_a for pair in pairs])),
        miou_b=float(np.mean([pair.iou_b for pair in pairs])),
    )
