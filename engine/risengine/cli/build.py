"""``risengine build``: hands over to the exporter, whose libraries are an extra because they include torch."""

from __future__ import annotations

import argparse
import importlib

from risengine.cli.common import Subparsers
from risengine.errors import BackendError


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command; its options are the exporter's own."""
    parser = commands.add_parser("build", help='compile checkpoints into a bundle (needs "risengine[export]")')
    exporter = importlib.import_module("risexport.cli")  # light: it imports torch only when it runs
    exporter.add_arguments(parser)

    def run(options: argparse.Namespace) -> int:
        try:
            return int(exporter.run(options))
        except ModuleNotFoundError as error:
            raise BackendError(
                f'the exporter needs {error.name}, which is not installed. Run: pip install "risengine[export]"'
            ) from error

    parser.set_defaults(run=run)
