"""How well a bundle follows places, relations and plain speech: strategies side by side, and absent objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from risbench.data.refer import ReferDataset, load_refer
from risbench.data.spoken import Spoken, load_spoken
from risbench.machine.environment import Environment, read_environment
from risbench.quality.absence import absent_phrases, area_under_curve, calibration_error, observe
from risbench.quality.accuracy import ALL_KINDS, BundleFacts, bundle_facts, group_by_image
from risbench.quality.answers import read_truth
from risbench.quality.hybridgl import Fault, PublishedHybridgl
from risengine.config import StrategyName
from risengine.engine import Engine
from risengine.scoring.confidence import calibration_of
from risengine.text import parse_expression
from risengine.types import EncodedImage

__all__ = [
    "PUBLISHED",
    "STRATEGY_NAMES",
    "LanguageConfig",
    "LanguageReport",
    "Rejection",
    "measure_language",
]

STRATEGY_NAMES: tuple[StrategyName, ...] = get_args(StrategyName)
PUBLISHED = "hybridgl with faults"
_ABSENT = 6
_Choosers = Mapping[str, Callable[[EncodedImage, str], int]]
_Tally = dict[str, dict[str, list[bool]]]


@dataclass(frozen=True)
class LanguageConfig:
    """What is asked: REFER's folder of the tabletop set, its splits, and the most images of each.

    ``hybridgl_faults`` are those of HybridGL's published code under which it is measured too.
    """

    refer: Path
    splits: tuple[str, ...] = ("scenes", "compositional")
    limit: int | None = None
    seed: int = 0
    hybridgl_faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A hand-written expression whose object was not chosen."""

    text: str
    kind: str
    image: str
    wanted: int
    chosen: int
    parse: dict[str, Any]


@dataclass(frozen=True)
class Rejection:
    """Present against absent objects, image and text to mask, by the confidence of ``spatial``.

    Attributes:
        present: Number of expressions whose object is there.
        absent: Number of those whose object is not.
        auc: Area under the ROC curve.
        calibration_error: Expected calibration error of the confidence over all of them.
    """

    present: int
    absent: int
    auc: float
    calibration_error: float


@dataclass(frozen=True)
class LanguageReport:
    """Shares of right choices among ground-truth masks, by split, kind and strategy; ``count`` has their numbers.

    ``rejection`` is by split, and empty where the bundle has no calibration and thus no confidence.
    """

    bundle: BundleFacts
    config: LanguageConfig
    environment: Environment
    right: dict[str, dict[str, dict[str, float]]]
    count: dict[str, dict[str, int]]
    failures: tuple[Failure, ...]
    rejection: dict[str, Rejection]
    schema_version: int = 1


def measure_language(
    engine: Engine, config: LanguageConfig, published: PublishedHybridgl | None = None
) -> LanguageReport:
    """Asks every expression of the splits with every strategy, and the hand-written ones; then for absent objects.

    Args:
        engine: What is measured.
        config: What it is measured on.
        published: HybridGL's guidance with ``config.hybridgl_faults``, asked in the order of the report.

    Raises:
        InputError: The data set or the hand-written expressions cannot be read.
    """
    dataset = load_refer(config.refer, "tabletop")
    spoken = load_spoken(config.refer)
    choosers: dict[str, Callable[[EncodedImage, str], int]] = {
        name: partial(_chosen, engine, name) for name in STRATEGY_NAMES
    }
    if published is not None:
        choosers[PUBLISHED] = published.choose
    tallies = {split: _choose(engine, choosers, dataset, split, config.limit) for split in config.splits}
    tallies["spoken"], failures = _choose_spoken(engine, choosers, dataset, spoken)
    absent = absent_phrases(config.refer, config.seed, _ABSENT)
    return LanguageReport(
        bundle=bundle_facts(engine),
        config=config,
        environment=read_environment(),
        right={
            name: {kind: {s: float(np.mean(hits)) for s, hits in of_kind.items()} for kind, of_kind in tally.items()}
            for name, tally in tallies.items()
        },
        count={
            name: {kind: len(of_kind[STRATEGY_NAMES[0]]) for kind, of_kind in tally.items()}
            for name, tally in tallies.items()
        },
        failures=tuple(failures),
        rejection={
            split: _reject(engine, dataset, split, absent, config.limit)
            for split in config.splits
            if calibration_of(engine.bundle_id) is not None
        },
    )


def _chosen(engine: Engine, strategy: StrategyName, encoded: EncodedImage, text: str) -> int:
    return engine.segment(encoded, text, strategy).index


def _choose(engine: Engine, choosers: _Choosers, dataset: ReferDataset, split: str, limit: int | None) -> _Tally:
    tally: _Tally = {}
    for image_id, refs in tqdm(group_by_image(dataset.split(split), limit).items(), desc=split, unit="image"):
        truth = read_truth(dataset, image_id, "union")
        encoded = engine.encode_image(dataset.image_path(image_id), masks=truth.masks)
        for ref in refs:
            for sentence in ref.sentences:
                for name, choose in choosers.items():
                    chosen = truth.ann_ids[choose(encoded, sentence.raw)]
                    _add(tally, sentence.kind, name, chosen == ref.ann_id)
    return tally


def _choose_spoken(
    engine: Engine, choosers: _Choosers, dataset: ReferDataset, spoken: Sequence[Spoken]
) -> tuple[_Tally, list[Failure]]:
    tally: _Tally = {}
    failures = []
    for image_id in tqdm(dict.fromkeys(item.image_id for item in spoken), desc="spoken", unit="image"):
        truth = read_truth(dataset, image_id, "union")
        encoded = engine.encode_image(dataset.image_path(image_id), masks=truth.masks)
        for item in (item for item in spoken if item.image_id == image_id):
            for name, choose in choosers.items():
                chosen = truth.ann_ids[choose(encoded, item.text)]
                _add(tally, item.kind, name, chosen == item.ann_id)
                if name == engine.strategy and chosen != item.ann_id:
                    parse = parse_expression(item.text, engine.method).description.to_dict()
                    image = dataset.images[image_id].file_name
                    failures.append(Failure(item.text, item.kind, image, item.ann_id, chosen, parse))
    return tally, failures


def _add(tally: _Tally, kind: str | None, strategy: str, hit: bool) -> None:
    for name in dict.fromkeys((ALL_KINDS, kind or ALL_KINDS)):
        tally.setdefault(name, {}).setdefault(strategy, []).append(hit)


def _reject(
    engine: Engine, dataset: ReferDataset, split: str, absent: dict[int, list[str]], limit: int | None
) -> Rejection:
    seen = observe(engine, dataset, split, absent, limit)
    confidence = np.array([item.confidence for item in seen])
    present = np.array([item.present for item in seen])
    right = np.array([item.right for item in seen])
    return Rejection(
        present=int(present.sum()),
        absent=int((~present).sum()),
        auc=area_under_curve(confidence[present], confidence[~present]),
        calibration_error=calibration_error(confidence, right),
    )
