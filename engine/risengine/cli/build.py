"""``risengine build``: hands over to the exporter, which is an extra because it needs torch."""

from __future__ import annotations

import argparse
import importlib

from risengine.cli.common import Subparsers
from risengine.errors import BackendError


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command; its options are the exporter's own where that is installed."""
    parser = commands.add_parser("build", help='compile checkpoints into a bundle (needs "risengine[export]")')
    try:
        exporter = importlib.import_module("risexport.cli")
        exporter.add_arguments(parser)
        parser.set_defaults(run=exporter.run)
    except ImportError:
        parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    raise BackendError('the exporter is not installed. Run: pip install "risengine[export]"')
