"""``risbench language``: its options, and the run."""

from __future__ import annotations

import argparse
from pathlib import Path

from risbench.data.refer import tabletop_root
from risbench.options import add_outputs, write_json, write_text
from risbench.quality.hybridgl import FAULTS, PublishedHybridgl
from risengine.cli.common import Subparsers

__all__ = ["add_language"]


def add_language(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "language",
        help="strategies side by side, hand-written expressions, absent objects",
        description="Asks the tabletop set with every strategy, expressions that people wrote over its scenes, and for "
        "objects that are not there.",
    )
    parser.add_argument("bundle", help="name of an embedded bundle, or a bundle directory")
    parser.add_argument("--refer", type=Path, metavar="ROOT", help="tabletop's data folder (default: the repository's)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of every split")
    parser.add_argument(
        "--hybridgl-faults",
        nargs="+",
        default=(),
        choices=FAULTS,
        help="measure hybridgl with these faults of its published code too",
    )
    add_outputs(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from risbench.quality.language import LanguageConfig, measure_language
    from risbench.reports.language_tables import format_language, markdown_language
    from risengine import load
    from risengine.bundle import open_bundle

    faults = tuple(options.hybridgl_faults)
    config = LanguageConfig(options.refer or tabletop_root(), limit=options.limit, hybridgl_faults=faults)
    with load(options.bundle) as engine:
        published = PublishedHybridgl(engine, open_bundle(options.bundle), faults) if faults else None
        report = measure_language(engine, config, published)
    write_json(options.json, report)
    write_text(options.markdown, markdown_language(report))
    print(format_language(report))
