"""How well a bundle follows places, relations and plain speech: strategies side by side, and absent objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from risbench.absence import absent_phrases, area_under_curve, calibration_error, observe
from risbench.accuracy import ALL_KINDS, BundleFacts, bundle_facts, group_by_image
from risbench.answers import read_truth
from risbench.environment import Environment, read_environment
from risbench.refer import ReferDataset, load_refer
from risbench.spoken import Spoken, load_spoken
from risbench.tables import format_table
from risengine.config import StrategyName
from risengine.engine import Engine

__all__ = ["LanguageConfig", "LanguageReport", "format_language", "markdown_language", "measure_language"]

STRATEGY_NAMES: tuple[StrategyName, ...] = get_args(StrategyName)
_ABSENT = 6
_Tally = dict[str, dict[str, list[bool]]]


@dataclass(frozen=True)
class LanguageConfig:
    """What is asked: REFER's folder of the tabletop set, its splits, and the most images of each."""

    refer: Path
    splits: tuple[str, ...] = ("scenes", "compositional")
    limit: int | None = None
    seed: int = 0


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
    """Shares of right choices among ground-truth masks, by split, kind and strategy; ``count`` has their numbers."""

    bundle: BundleFacts
    config: LanguageConfig
    environment: Environment
    right: dict[str, dict[str, dict[str, float]]]
    count: dict[str, dict[str, int]]
    failures: tuple[Failure, ...]
    rejection: dict[str, Rejection]
    schema_version: int = 1


def measure_language(engine: Engine, config: LanguageConfig) -> LanguageReport:
    """Asks every expression of the splits with every strategy, and the hand-written ones; then for absent objects.

    Raises:
        InputError: The data set or the hand-written expressions cannot be read.
    """
    dataset = load_refer(config.refer, "tabletop")
    spoken = load_spoken(config.refer)
    tallies = {split: _choose(engine, dataset, split, config.limit) for split in config.splits}
    tallies["spoken"], failures = _choose_spoken(engine, dataset, spoken)
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
        rejection={split: _reject(engine, dataset, split, absent, config.limit) for split in config.splits},
    )


def _choose(engine: Engine, dataset: ReferDataset, split: str, limit: int | None) -> _Tally:
    tally: _Tally = {}
    for image_id, refs in tqdm(group_by_image(dataset.split(split), limit).items(), desc=split, unit="image"):
        truth = read_truth(dataset, image_id, "union")
        encoded = engine.encode_image(dataset.image_path(image_id), masks=truth.masks)
        for ref in refs:
            for sentence in ref.sentences:
                for name in STRATEGY_NAMES:
                    answer = engine.segment(encoded, sentence.raw, name)
                    _add(tally, sentence.kind, name, truth.ann_ids[answer.index] == ref.ann_id)
    return tally


def _choose_spoken(engine: Engine, dataset: ReferDataset, spoken: Sequence[Spoken]) -> tuple[_Tally, list[Failure]]:
    tally: _Tally = {}
    failures = []
    for image_id in tqdm(dict.fromkeys(item.image_id for item in spoken), desc="spoken", unit="image"):
        truth = read_truth(dataset, image_id, "union")
        encoded = engine.encode_image(dataset.image_path(image_id), masks=truth.masks)
        for item in (item for item in spoken if item.image_id == image_id):
            for name in STRATEGY_NAMES:
                answer = engine.segment(encoded, item.text, name)
                chosen = truth.ann_ids[answer.index]
                _add(tally, item.kind, name, chosen == item.ann_id)
                if name == engine.strategy and chosen != item.ann_id and answer.explanation is not None:
                    parse = answer.explanation.description.to_dict()
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


def format_language(report: LanguageReport) -> str:
    """Returns the report for a terminal, in percent, with every failure on the hand-written set."""
    header, rows = ["right object", "n", *STRATEGY_NAMES], []
    for name, kinds in report.right.items():
        for kind, shares in kinds.items():
            cells = [f"{100 * shares[strategy]:.1f}" for strategy in STRATEGY_NAMES]
            rows.append([f"{name} {kind}", str(report.count[name][kind]), *cells])
    failures = [f'  {item.kind}: "{item.text}" ({item.image}): {item.chosen}, not {item.wanted}; {item.parse}'
                for item in report.failures]  # fmt: skip
    rejection = [f"{split}: {_rejection_line(found)}" for split, found in report.rejection.items()]
    return "\n\n".join(
        [format_table(header, rows), "present or absent, image and text to mask\n" + "\n".join(rejection),
         "hand-written expressions that failed\n" + "\n".join(failures)]
    )  # fmt: skip


def markdown_language(report: LanguageReport) -> str:
    """Returns the table of a README with its conditions, in percent."""
    rows = [f"| set | expressions | n | {' | '.join(STRATEGY_NAMES)} |", "|---|---|---|" + "---|" * len(STRATEGY_NAMES)]
    for name, kinds in report.right.items():
        for kind, shares in kinds.items():
            cells = [name, kind, str(report.count[name][kind])]
            rows.append(f"| {' | '.join([*cells, *(f'{100 * shares[s]:.1f}' for s in STRATEGY_NAMES)])} |")
    rejection = "; ".join(f"`{split}`: {_rejection_line(found)}" for split, found in report.rejection.items())
    conditions = (
        f"Percent of right choices among ground-truth masks; bundle `{report.bundle.name}` "
        f"({report.bundle.precision}, {report.bundle.id[:12]}). Present against absent, on own proposals: {rejection}."
    )
    return "\n".join([*rows, "", conditions])


def _rejection_line(found: Rejection) -> str:
    return (
        f"ROC AUC {found.auc:.3f} ({found.present} present, {found.absent} absent), calibration error "
        f"{found.calibration_error:.3f}"
    )
