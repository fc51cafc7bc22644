"""Published figures of zero-shot methods, to stand beside a result on the same data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PUBLISHED", "PublishedResult", "published_beside"]

_SPLITS: tuple[tuple[str, str, str], ...] = (
    ("refcoco", "unc", "val"),
    ("refcoco", "unc", "testA"),
    ("refcoco", "unc", "testB"),
    ("refcoco+", "unc", "val"),
    ("refcoco+", "unc", "testA"),
    ("refcoco+", "unc", "testB"),
    ("refcocog", "umd", "val"),
    ("refcocog", "umd", "test"),
)
"""Data set, partition and split of the figures below, in order."""


@dataclass(frozen=True)
class PublishedResult:
    """A method's figures in percent.

    Attributes:
        method: Name and models.
        metric: ``mIoU`` or ``oIoU``.
        figures: By data set, partition and split.
    """

    method: str
    metric: str
    figures: Mapping[tuple[str, str, str], float]


def _result(method: str, metric: str, figures: str) -> PublishedResult:
    values = [float(figure) for figure in figures.split()]
    return PublishedResult(method, metric, dict(zip(_SPLITS, values, strict=True)))


_GLOBAL_LOCAL = "Global-Local CLIP, ViT-B/32, FreeSOLO"

PUBLISHED: tuple[PublishedResult, ...] = (
    _result(_GLOBAL_LOCAL, "oIoU", "24.9 23.6 24.7 26.2 24.9 25.8 31.1 31.0"),
    _result(_GLOBAL_LOCAL, "mIoU", "26.20 24.94 26.56 27.80 25.64 27.84 33.52 33.67"),
    _result("CaR", "mIoU", "33.57 35.36 30.51 34.22 36.03 31.02 36.67 36.57"),
    _result("TAS", "oIoU", "29.5 30.3 28.2 33.2 38.8 28.0 35.8 36.2"),
    _result("Ref-Diff", "oIoU", "35.2 37.4 34.5 35.6 38.7 31.4 38.6 37.5"),
    _result("HybridGL", "mIoU", "49.48 53.37 45.19 43.40 49.13 37.17 51.25 51.59"),
)
"""As their papers state them. Global-Local's own code leaves images without a proposal out of both metrics."""


def published_beside(dataset: str, partition: str, splits: tuple[str, ...]) -> list[tuple[PublishedResult, list[str]]]:
    """Returns the methods that state a figure for one of some splits, with a cell for each split.

    Args:
        dataset: As ``--dataset`` names it.
        partition: How it is split.
        splits: The splits.
    """
    rows = []
    for result in PUBLISHED:
        figures = [result.figures.get((dataset, partition, split)) for split in splits]
        if any(figure is not None for figure in figures):
            rows.append((result, ["-" if figure is None else f"{figure:g}" for figure in figures]))
    return rows
