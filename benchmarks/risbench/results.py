"""The stored results: every report's Markdown, and the README's tables, are made from its JSON and kept in step.

In a Markdown file, what stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->`` is the Markdown of
``NAME.json``. One picture shows whole answers at true size.
"""

from __future__ import annotations

import re
from pathlib import Path

from risbench.latency_report import LatencyReport
from risbench.stored import markdown, read_report
from risengine.errors import InputError

__all__ = ["PICTURE", "draw_results", "rendered_results", "repository_root"]

PICTURE = Path("docs") / "latency.svg"
"""Of whole answers, in the repository."""

_BLOCK = re.compile(r"(<!-- results: ([\w.-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def repository_root() -> Path:
    """Returns the folder of the repository.

    Raises:
        InputError: risbench does not run from a checkout of it.
    """
    root = Path(__file__).resolve().parents[2]
    if not _folder(root).is_dir():
        raise InputError(f"{_folder(root)} does not exist: results are kept in the repository. Run from a checkout.")
    return root


def rendered_results(root: Path) -> dict[Path, str]:
    """Returns what the generated files should hold: the Markdown of every stored report, and the README.

    Args:
        root: The repository.

    Raises:
        InputError: A stored report cannot be read, or the README names one that is not there.
    """
    tables = {path.stem: markdown(read_report(path)) for path in sorted(_folder(root).glob("*.json"))}
    readme = root / "README.md"

    def fill(block: re.Match[str]) -> str:
        name = block[2]
        if name not in tables:
            raise InputError(f"{readme} shows results {name!r}; expected one of {', '.join(tables)}.")
        return f"{block[1]}\n{tables[name]}\n\n{block[3]}"

    files = {_folder(root) / f"{name}.md": f"{table}\n" for name, table in tables.items()}
    return {**files, readme: _BLOCK.sub(fill, readme.read_text(encoding="utf-8"))}


def draw_results(root: Path) -> str | None:
    """Returns :data:`PICTURE`, of every stored latency with random weights; None where there is none.

    Those are the ones at true size. Another version of matplotlib draws the same with other bytes.

    Args:
        root: The repository.
    """
    from risbench.plots import plot_sides

    stored = [read_report(path) for path in sorted(_folder(root).glob("latency-*.json"))]
    reports = [report for report in stored if isinstance(report, LatencyReport) and report.weights != "trained"]
    return plot_sides(reports) if reports else None


def _folder(root: Path) -> Path:
    return root / "benchmarks" / "results"
