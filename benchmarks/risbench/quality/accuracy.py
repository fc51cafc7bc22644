"""Accuracy of a bundle on a data set: every expression of the chosen splits, beside the oracle and plain guessing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from risbench.data.refer import PolygonRule, Ref, ReferDataset, load_refer
from risbench.machine.environment import Environment, read_environment
from risbench.quality.ablations import answer_variants
from risbench.quality.answer_log import AnswerLog, ImageOutcome, record_sentences
from risbench.quality.answers import Answer, ImageTruth, answer_image, read_truth
from risbench.quality.metrics import Summary, summarise
from risbench.quality.point_prompts import best_of_three, interior_point
from risengine.config import StrategyName
from risengine.engine import Engine
from risengine.errors import InputError
from risengine.method import Method, ProposalSettings
from risengine.types import EncodedImage

__all__ = [
    "AccuracyConfig",
    "AccuracyReport",
    "BundleFacts",
    "KindResult",
    "SplitResult",
    "bundle_facts",
    "encode_image",
    "group_by_image",
    "measure_accuracy",
]

ALL_KINDS = "all"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccuracyConfig:
    """What is evaluated.

    Attributes:
        refer: REFER's data folder.
        dataset: A name in :data:`risbench.data.refer.DATASETS`.
        splits: Splits of it.
        split_by: Partition; None for the data set's usual one.
        polygons: How an object's polygons become a mask.
        limit: Most images a split; None for all.
        seed: Seed of the random points.
    """

    refer: Path
    dataset: str
    splits: tuple[str, ...]
    split_by: str | None = None
    polygons: PolygonRule = "union"
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit = {self.limit}; expected at least one image a split, or no limit.")


@dataclass(frozen=True)
class KindResult:
    """Figures over the expressions of one kind, all in [0, 1].

    Attributes:
        answers: The engine's answers, from image and text to mask. Without a proposal the IoU counts as 0.
        oracle: The best proposal for every expression: the ceiling of scoring.
        right_object: Share of expressions whose object was chosen among the ground-truth masks.
        right_phrase: Share of expressions whose noun phrase is the data set's; None where it does not say.
        refused: Number of expressions the engine would not read; they count as IoU 0.
        random_proposal: Expected mIoU of random proposals.
        random_object: Expected share of right choices among all ground-truth masks.
        fitting_proposal: Expected mIoU of the best proposal of a random object that fits the noun phrase.
        fitting_object: Expected share of right choices among ground-truth masks that fit the noun phrase.
    """

    answers: Summary
    oracle: Summary
    right_object: float
    right_phrase: float | None
    refused: int
    random_proposal: float
    random_object: float
    fitting_proposal: float | None
    fitting_object: float | None


@dataclass(frozen=True)
class SplitResult:
    """Figures of one split.

    Attributes:
        images: Number of images.
        objects: Number of objects in them.
        proposals: Mean number of proposals an image.
        point_iou: Mean over the objects of SAM's best-of-three IoU at a random interior point.
        kinds: By kind of expression; ``all`` holds every expression.
        ablations: The same of variants of the method, by their names in :data:`risbench.quality.ablations.ABLATIONS`.
    """

    images: int
    objects: int
    proposals: float
    point_iou: float
    kinds: dict[str, KindResult]
    ablations: dict[str, dict[str, KindResult]] = field(default_factory=dict)


@dataclass(frozen=True)
class BundleFacts:
    """The bundle that was measured."""

    name: str
    id: str
    precision: str
    target: str
    providers: tuple[str, ...]
    method: Method
    proposals: ProposalSettings
    strategy: StrategyName = "global_local"


@dataclass(frozen=True)
class AccuracyReport:
    """All figures of a run with the conditions they were measured under."""

    bundle: BundleFacts
    config: AccuracyConfig
    environment: Environment
    splits: dict[str, SplitResult]
    schema_version: int = 1


def measure_accuracy(
    engine: Engine,
    config: AccuracyConfig,
    log: AnswerLog | None = None,
    variants: Mapping[str, Engine] | None = None,
) -> AccuracyReport:
    """Evaluates an engine; a progress bar shows the running mIoU.

    Args:
        engine: What is measured.
        config: What it is measured on.
        log: Where every answer is noted; what it holds of an image already is taken, and not measured again.
        variants: Engines of the same bundle that answer too, by name; see :mod:`risbench.quality.ablations`.

    Raises:
        InputError: The data set cannot be read, or has no such split.
    """
    dataset = load_refer(config.refer, config.dataset, config.split_by)
    chosen = {name: group_by_image(dataset.split(name), config.limit) for name in config.splits}
    evaluation = _Evaluation(engine, dataset, config, log or AnswerLog(), variants or {})
    return AccuracyReport(
        bundle=bundle_facts(engine),
        config=config,
        environment=read_environment(),
        splits={name: _measure_split(evaluation, name, refs) for name, refs in chosen.items()},
    )


def bundle_facts(engine: Engine) -> BundleFacts:
    """Returns the facts of an engine's bundle and the settings in force."""
    manifest = engine.manifest
    return BundleFacts(
        name=manifest.name,
        id=engine.bundle_id,
        precision=manifest.precision,
        target=manifest.target,
        providers=engine.providers,
        method=engine.method,
        proposals=engine.proposal_settings,
        strategy=engine.strategy,
    )


def group_by_image(refs: Sequence[Ref], limit: int | None) -> dict[int, list[Ref]]:
    """Groups expressions by image id, of the first ``limit`` images; of all for None."""
    grouped: dict[int, list[Ref]] = {}
    for ref in refs:
        grouped.setdefault(ref.image_id, []).append(ref)
    return dict(list(grouped.items())[:limit])


@dataclass(frozen=True)
class _Evaluation:
    engine: Engine
    dataset: ReferDataset
    config: AccuracyConfig
    log: AnswerLog
    variants: Mapping[str, Engine]


def _measure_split(evaluation: _Evaluation, name: str, refs: dict[int, list[Ref]]) -> SplitResult:
    log, outcomes = evaluation.log, []
    iou_sum, sentences = 0.0, 0
    with tqdm(refs.items(), desc=f"{evaluation.dataset.name} {name}", unit="image") as progress:
        for image_id, refs_of_image in progress:
            if (name, image_id) not in log.outcomes:
                outcome = _measure_image(evaluation, name, image_id, refs_of_image)
                if outcome is None:
                    continue
                log.add(name, image_id, outcome)
            outcomes.append(log.outcomes[name, image_id])
            own = [record.iou for record in outcomes[-1].sentences if record.ablation is None]
            iou_sum, sentences = iou_sum + sum(own), sentences + len(own)
            progress.set_postfix(mIoU=f"{100 * iou_sum / max(1, sentences):.1f}")
    if not sentences:
        raise InputError(f"no object of {evaluation.dataset.name} {name} has a visible pixel. Check instances.json.")
    point_ious = [iou for outcome in outcomes for iou in outcome.point_ious]
    return SplitResult(
        images=len(outcomes),
        objects=len(point_ious),
        proposals=float(np.mean([outcome.proposals for outcome in outcomes])),
        point_iou=float(np.mean(point_ious)),
        kinds=_summarise_kinds(outcomes, None),
        ablations={variant: _summarise_kinds(outcomes, variant) for variant in evaluation.variants},
    )


def _measure_image(evaluation: _Evaluation, split: str, image_id: int, refs: Sequence[Ref]) -> ImageOutcome | None:
    """Asks everything about one image; None where none of its objects can be seen."""
    engine, dataset, config = evaluation.engine, evaluation.dataset, evaluation.config
    truth = read_truth(dataset, image_id, config.polygons)
    if not truth.ann_ids:
        _LOG.warning("image %d of %s has no visible object; it is left out", image_id, dataset.name)
        return None
    encoded = encode_image(engine, dataset, image_id)
    visible = [ref for ref in refs if ref.ann_id in truth.ann_ids]
    records = record_sentences(split, visible, answer_image(engine, encoded, truth, refs))
    for name, answers in answer_variants(evaluation.variants, encoded, truth, refs).items():
        records += record_sentences(split, visible, answers, name)
    point_ious = _point_ious(engine, encoded, truth, config.seed)
    return ImageOutcome(len(encoded.proposals), tuple(point_ious), tuple(records))


def _summarise_kinds(outcomes: Sequence[ImageOutcome], ablation: str | None) -> dict[str, KindResult]:
    answers = [record.answer for outcome in outcomes for record in outcome.sentences if record.ablation == ablation]
    kinds = {ALL_KINDS: answers}
    for answer in answers:
        if answer.kind is not None:
            kinds.setdefault(answer.kind, []).append(answer)
    return {kind: _summarise_kind(of_kind) for kind, of_kind in kinds.items()}


def encode_image(engine: Engine, dataset: ReferDataset, image_id: int) -> EncodedImage:
    """Encodes an image of a data set with an engine's own proposals.

    Raises:
        InputError: The image cannot be read, or has another size than the data set says.
    """
    path, image = dataset.image_path(image_id), dataset.images[image_id]
    encoded = engine.encode_image(path)
    if encoded.size != (image.height, image.width):
        raise InputError(
            f"{path} is {encoded.size} (H, W); instances.json says {image.height, image.width}. "
            "Restore the original image."
        )
    return encoded


def _point_ious(engine: Engine, encoded: EncodedImage, truth: ImageTruth, seed: int) -> list[float]:
    pairs = zip(truth.ann_ids, truth.masks, strict=True)
    points = np.stack([interior_point(mask, (seed, ann_id)) for ann_id, mask in pairs])
    side_px = engine.manifest.sam_image_size_px
    ious = best_of_three(engine.sessions, encoded.image, points, truth.masks, side_px)
    return [float(iou) for iou in ious]


def _summarise_kind(answers: list[Answer]) -> KindResult:
    return KindResult(
        answers=summarise([answer.overlap for answer in answers]),
        oracle=summarise([answer.oracle for answer in answers]),
        right_object=float(np.mean([answer.right_object for answer in answers])),
        right_phrase=_mean(answers, lambda answer: answer.right_phrase),
        refused=sum(answer.refused for answer in answers),
        random_proposal=float(np.mean([answer.random_proposal for answer in answers])),
        random_object=float(np.mean([answer.random_object for answer in answers])),
        fitting_proposal=_mean(answers, lambda answer: answer.fitting_proposal),
        fitting_object=_mean(answers, lambda answer: answer.fitting_object),
    )


def _mean(answers: list[Answer], value: Callable[[Answer], float | bool | None]) -> float | None:
    values = [found for answer in answers if (found := value(answer)) is not None]
    return float(np.mean(values)) if values else None
