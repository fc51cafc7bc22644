"""The ``risengine`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from risengine import __version__
from risengine.cli import build, demo, doctor, inspect, proposals, segment, verify
from risengine.errors import RisError

__all__ = ["main"]

_COMMANDS = (demo, segment, proposals, inspect, verify, doctor, build)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; those of the process when left out.

    Returns:
        Exit status: 0 done, 1 the demo's answers or a verified bundle's figures were wrong, 2 refused with a
            message, 3 nothing matched above ``--reject-below``, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="risengine", description="Zero-shot referring image segmentation: image + expression -> mask."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except RisError as error:
        print(f"risengine: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("risengine: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `risengine inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
        return 1
