"""The stored results: every report's Markdown, and the READMEs' tables, are made from its JSON and kept in step.

In a README, what stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->`` is the Markdown of
``NAME.json``, or one of the headlines ``gain`` and ``latency``. One picture shows whole answers at true size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from risbench.quality.accuracy import AccuracyReport
from risbench.reports.headlines import gain_headline, latency_headline
from risbench.reports.stored import markdown, read_report
from risbench.speed.latency_report import RANDOM_WEIGHTS, LatencyReport
from risengine.errors import InputError

__all__ = ["PICTURE", "draw_results", "is_drawn", "rendered_results", "repository_root"]

PICTURE = Path("docs") / "latency.svg"
"""Of whole answers, in the repository."""

_PAGES = ("README.md", "benchmarks/README.md")
_BLOCK = re.compile(r"(<!-- results: ([\w.-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def repository_root() -> Path:
    """Returns the folder of the repository.

    Raises:
        InputError: risbench does not run from a checkout of it.
    """
    root = Path(__file__).resolve().parents[3]
    if not _folder(root).is_dir():
        raise InputError(f"{_folder(root)} does not exist: results are kept in the repository. Run from a checkout.")
    return root


def rendered_results(root: Path) -> dict[Path, str]:
    """Returns what the generated files should hold: the Markdown of every stored report, and the READMEs.

    Args:
        root: The repository.

    Raises:
        InputError: A stored report cannot be read, or a README names one that is not there.
    """
    reports = {path.stem: read_report(path) for path in sorted(_folder(root).glob("*.json"))}
    tables = {name: markdown(report) for name, report in reports.items()}
    shown = {
        **tables,
        "gain": gain_headline([report for report in reports.values() if isinstance(report, AccuracyReport)]),
        "latency": latency_headline([report for report in reports.values() if isinstance(report, LatencyReport)]),
    }

    def fill(block: re.Match[str]) -> str:
        name = block[2]
        if name not in shown:
            raise InputError(f"a README shows results {name!r}; expected one of {', '.join(shown)}.")
        return f"{block[1]}\n{shown[name]}\n\n{block[3]}"

    files = {_folder(root) / f"{name}.md": f"{table}\n" for name, table in tables.items()}
    pages = [page for name in _PAGES if (page := root / name).is_file()]
    return {**files, **{page: _BLOCK.sub(fill, page.read_text(encoding="utf-8")) for page in pages}}


def draw_results(root: Path) -> str | None:
    """Returns :data:`PICTURE`, of every stored latency with random weights; None where there is none.

    Those are the ones at true size.

    Args:
        root: The repository.
    """
    from risbench.reports.plots import plot_sides

    reports = _pictured(root)
    return f"{plot_sides(list(reports.values())).rstrip()}\n{_origin(reports)}\n" if reports else None


def is_drawn(root: Path) -> bool:
    """Whether :data:`PICTURE` was drawn from the stored reports, or there is none to draw.

    The picture names what it was drawn from: another version of matplotlib draws the same with other bytes.

    Args:
        root: The repository.
    """
    reports, picture = _pictured(root), root / PICTURE
    if not reports:
        return True
    return picture.is_file() and picture.read_text(encoding="utf-8").rstrip().endswith(_origin(reports))


def _pictured(root: Path) -> dict[Path, LatencyReport]:
    stored = {path: read_report(path) for path in sorted(_folder(root).glob("latency-*.json"))}
    return {
        path: report
        for path, report in stored.items()
        if isinstance(report, LatencyReport) and report.weights == RANDOM_WEIGHTS
    }


def _origin(paths: Iterable[Path]) -> str:
    drawn = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" for path in paths]
    return f"<!-- drawn from {', '.join(drawn)} -->"


def _folder(root: Path) -> Path:
    return root / "benchmarks" / "results"
