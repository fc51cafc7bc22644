"""``risbench report``, ``risbench compare`` and ``risbench results``: what is done with stored reports."""

from __future__ import annotations

import argparse
from pathlib import Path

from risbench.options import write_text
from risengine.cli.common import Subparsers

__all__ = ["add_report_commands"]


def add_report_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the commands."""
    report = commands.add_parser(
        "report",
        help="reports as one self-contained page with plots",
        description="Writes the tables and plots of reports as one HTML page that loads nothing.",
    )
    report.add_argument("reports", nargs="+", type=Path, metavar="JSON", help="what commands wrote with --json")
    report.add_argument("-o", "--html", type=Path, required=True, metavar="OUT", help="the page")
    report.set_defaults(run=_run_report)
    compare = commands.add_parser(
        "compare",
        help="whether a report is worse than an older one; exits with status 1 if so",
        description="Compares the figures of two reports of one command. Latencies are compared as ratios to the "
        "PyTorch reference, or in multiplications of matrices of the same run, since machines differ.",
    )
    compare.add_argument("old", type=Path, metavar="OLD")
    compare.add_argument("new", type=Path, metavar="NEW")
    compare.add_argument(
        "--slower", type=float, default=0.1, metavar="SHARE", help="a speed may fall by (default: %(default)s)"
    )
    compare.add_argument(
        "--worse", type=float, default=0.01, metavar="SHARE", help="an mIoU or share may fall by (default: %(default)s)"
    )
    compare.set_defaults(run=_run_compare)
    results = commands.add_parser(
        "results",
        help="makes the Markdown of benchmarks/results and the README's tables from the stored JSON",
        description="Rewrites what is generated from benchmarks/results/*.json in a checkout of the repository.",
    )
    results.add_argument("--check", action="store_true", help="change nothing; status 1 if a file is out of step")
    results.set_defaults(run=_run_results)


def _run_report(options: argparse.Namespace) -> None:
    from risbench.reports.page import render_page
    from risbench.reports.stored import read_report

    write_text(options.html, render_page({path.stem: read_report(path) for path in options.reports}))


def _run_compare(options: argparse.Namespace) -> int:
    from risbench.reports.compare import Thresholds, compare_reports, format_changes
    from risbench.reports.stored import read_report

    thresholds = Thresholds(options.slower, options.worse)
    old, new = read_report(options.old), read_report(options.new)
    if old.environment.cpu != new.environment.cpu:
        print(f"The processors differ: {old.environment.cpu}, {new.environment.cpu}")
    changes = compare_reports(old, new, thresholds)
    print(format_changes(changes))
    return int(any(change.regressed for change in changes))


def _run_results(options: argparse.Namespace) -> int:
    from risbench.reports.results import PICTURE, draw_results, is_drawn, rendered_results, repository_root

    root = repository_root()
    stale = 0
    for path, text in rendered_results(root).items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if options.check:
            print(f"{path.relative_to(root)} is out of step with the stored results. Run: risbench results")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(root)} written")
    if not is_drawn(root):
        stale += 1
        if options.check:
            print(f"{PICTURE} is out of step with the stored results. Run: risbench results")
        elif drawing := draw_results(root):
            (root / PICTURE).parent.mkdir(exist_ok=True)
            (root / PICTURE).write_text(drawing, encoding="utf-8")
            print(f"{PICTURE} written")
    return int(options.check and stale > 0)
