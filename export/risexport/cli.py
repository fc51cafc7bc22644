"""``risengine build``: options, progress and summary. Imports torch only when it runs."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args

from tqdm import tqdm

from risengine.cli.fields import PROPOSAL_OPTIONS, add_field_options
from risengine.errors import InputError
from risengine.manifest import Target
from risengine.method import Method, ProposalSettings
from risexport.config import BuildConfig, EngineOptions, Precision
from risexport.presets import PRESETS, MethodOptions

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options; defaults are those of ``BuildConfig`` and its parts."""
    defaults = {field.name: field.default for field in fields(BuildConfig)}
    parser.add_argument("out", type=Path, metavar="OUT", help="directory of the bundle, new unless --force")
    parser.add_argument(
        "--clip", required=True, metavar="MODEL", help="open_clip model, or path of a JSON configuration"
    )
    parser.add_argument("--clip-checkpoint", metavar="PATH|TAG", help="weights, or open_clip's tag (default: random)")
    parser.add_argument("--sam", required=True, metavar="MODEL", help="architecture, such as vit_b, or module:function")
    parser.add_argument("--sam-checkpoint", type=Path, metavar="PATH", help="weights (default: random)")
    for name, choices in (("preset", PRESETS), ("precision", get_args(Precision)), ("target", get_args(Target))):
        parser.add_argument(f"--{name}", choices=choices, default=defaults[name], help=f"default: {defaults[name]}")
    parser.add_argument("--name", default="", help="name of the bundle (default: the directory's)")
    parser.add_argument("--license", default=defaults["license"], help=f"its licence (default: {defaults['license']})")
    parser.add_argument("--clip-license", default="", help="licence of CLIP's weights (default: the bundle's)")
    parser.add_argument("--sam-license", default="", help="licence of SAM's weights (default: the bundle's)")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    method = parser.add_argument_group("method", "what differs from the preset; see models/README.md")
    add_field_options(method, Method, _names(MethodOptions), unset="the preset's")
    proposals = parser.add_argument_group("proposals", "of the bundle, named as in SamAutomaticMaskGenerator")
    add_field_options(proposals, ProposalSettings, PROPOSAL_OPTIONS)
    _add_engine_options(parser.add_argument_group("engines", "of the targets tensorrt and tensorrt-rtx"))


def run(options: argparse.Namespace) -> int:
    """Builds the bundle that the options describe and prints what came out.

    Returns:
        Exit status 0.

    Raises:
        RisError: The build was refused or failed; see :func:`risexport.build.build`.
    """
    from risexport.build import build, stages

    values = vars(options)
    groups: dict[str, Any] = {
        "method": MethodOptions(**{name: values[name] for name in _names(MethodOptions)}),
        "proposals": ProposalSettings(**{name: values[name] for name in PROPOSAL_OPTIONS}),
        "engine": _engine_options(options),
    }
    config = BuildConfig(**{name: values[name] for name in _names(BuildConfig) - groups.keys()}, **groups)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _StageDisplay(len(stages(config.precision, config.target))) as display:
            out = build(config, display.begin)
    finally:
        signal.signal(signal.SIGTERM, previous)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB. Look into it with: risengine inspect {out}")
    return 0


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--compute-capability",
        metavar="CC[,CC...]",
        default="",
        help="GPUs, such as 8.6,8.9 (default: all that tensorrt-rtx knows; the GPU at hand)",
    )
    group.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME=LEAST:BEST:LARGEST",
        help="sizes of a dynamic dimension: H, W of images, N masks, P prompts, T texts ... Repeat for several",
    )
    group.add_argument("--workspace-mib", type=int, metavar="MIB", help="most memory of a kernel beside its tensors")
    group.add_argument("--timing-cache", type=Path, metavar="FILE", help="measured times, read and written")
    group.add_argument("--optimization-level", type=int, metavar="0-5", help="the compiler's effort")
    group.add_argument("--version-compatible", action="store_true", help="for later versions of the library too")
    group.add_argument("--hardware-compatible", action="store_true", help="for all GPUs from Ampere on")


def _engine_options(options: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        compute_capabilities=tuple(part.strip() for part in options.compute_capability.split(",") if part.strip()),
        profile=dict(map(_profile, options.profile)),
        workspace_mib=options.workspace_mib,
        timing_cache=options.timing_cache,
        optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )


def _profile(text: str) -> tuple[str, tuple[int, int, int]]:
    name, _, sizes = text.partition("=")
    numbers = sizes.split(":")
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        raise InputError(f"--profile {text}; expected NAME=LEAST:BEST:LARGEST, such as N=1:16:64.")
    least, best, largest = map(int, numbers)
    return name, (least, best, largest)


def _names(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


class _StageDisplay:
    """A progress bar over stages that leaves a line with the time each one took."""

    def __init__(self, stages: int) -> None:
        self._bar = tqdm(total=stages, bar_format="{desc:28} {n_fmt}/{total_fmt} [{elapsed}]", leave=False)
        self._stage, self._began = "", 0.0

    def __enter__(self) -> _StageDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish_stage()
        self._bar.close()

    def begin(self, stage: str) -> None:
        """Ends the stage under way and shows the next one, or what the one under way is at."""
        name, _, detail = stage.partition(": ")
        if name != self._stage or not detail:
            self._finish_stage()
            self._stage, self._began = name, time.perf_counter()
        self._bar.set_description_str(stage)

    def _finish_stage(self) -> None:
        if self._stage:
            self._bar.write(f"{self._stage:28} {time.perf_counter() - self._began:7.1f} s", file=sys.stderr)
            self._bar.update()


def _interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    """Lets a terminated build clean up behind itself as an interrupted one does."""
    raise KeyboardInterrupt
