"""The ``risbench`` command."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec

from risbench.refer import DATASETS, PolygonRule, tabletop_root
from risengine.errors import BackendError, InputError, RisError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: Command line without the program's name; the process's own when left out.

    Returns:
        Exit status: 0, 2 for a refusal that says why, 130 after an interrupt.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        _run_accuracy(options)
    except RisError as error:
        print(f"risbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("risbench: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="risbench", description="Measures risengine bundles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    accuracy = commands.add_parser(
        "accuracy",
        help="referring segmentation on a data set in REFER's format",
        description="Asks a bundle every expression of a data set; reports mIoU, oIoU, precision and oracle by kind.",
    )
    accuracy.add_argument("bundle", help="name of an embedded bundle, or a bundle directory")
    accuracy.add_argument("--refer", type=Path, metavar="ROOT", help="REFER's data folder (tabletop: the repository's)")
    accuracy.add_argument("--dataset", choices=sorted(DATASETS), default="tabletop", help="default: %(default)s")
    accuracy.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all that the data set is tested on")
    accuracy.add_argument("--split-by", metavar="WHO", help="partition, e.g. google for refcocog (default: umd)")
    accuracy.add_argument(
        "--polygons",
        choices=get_args(PolygonRule),
        default="union",
        help="an object's polygons as a mask: their union, or pixels covered once as in the authors' code",
    )
    accuracy.add_argument("--limit", type=int, metavar="N", help="only the first N images of every split")
    accuracy.add_argument("--json", type=Path, metavar="OUT", help="write the figures and their conditions here")
    accuracy.add_argument("--markdown", type=Path, metavar="OUT", help="write the table of a README here")
    return parser


def _run_accuracy(options: argparse.Namespace) -> None:
    from tqdm.contrib.logging import logging_redirect_tqdm

    try:
        from risbench.accuracy import AccuracyConfig, measure_accuracy
        from risbench.tables import format_accuracy, markdown_accuracy
    except ModuleNotFoundError as error:
        raise BackendError(
            f'risbench needs {error.name}, which is not installed. Run: pip install "risengine[bench]"'
        ) from error
    from risengine import load
    from risengine.output import check_writable, write_atomically

    for path in (options.json, options.markdown):
        if path is not None:
            check_writable(path)
    if options.refer is None and options.dataset != "tabletop":
        raise InputError(f"{options.dataset} does not come with risbench. Pass REFER's data folder as --refer ROOT.")
    config = AccuracyConfig(
        refer=options.refer or tabletop_root(),
        dataset=options.dataset,
        splits=tuple(options.split or DATASETS[options.dataset].splits),
        split_by=options.split_by,
        polygons=options.polygons,
        limit=options.limit,
    )
    with logging_redirect_tqdm(), load(options.bundle) as engine:  # warnings do not break the progress bar
        report = measure_accuracy(engine, config)
    if options.json is not None:
        data = msgspec.json.format(msgspec.json.encode(report, enc_hook=str), indent=2)
        write_atomically(options.json, lambda file: file.write(data + b"\n"))
    if options.markdown is not None:
        table = markdown_accuracy(report)
        write_atomically(options.markdown, lambda file: file.write(f"{table}\n".encode()))
    print(format_accuracy(report))


if __name__ == "__main__":
    sys.exit(main())
