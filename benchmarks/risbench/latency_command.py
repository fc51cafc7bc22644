"""``risbench latency``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from risbench.options import add_outputs, add_overrides, add_threads, overrides_of, write_json, write_text
from risengine.cli.common import Subparsers
from risengine.manifest import Target

__all__ = ["add_latency"]


def add_latency(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "latency",
        help="from the image's file to the mask, stage by stage, beside the PyTorch reference",
        description="Asks a bundle new expressions about an image and times every stage, in turns with the PyTorch "
        "reference and beside the machine's GEMM rate and memory bandwidth. Where SAM's weights are random, thresholds "
        "are chosen that keep a share of its prompts, and CLIP describes masks that are always the same.",
    )
    parser.add_argument("bundle", help="name of an embedded bundle, or a bundle directory")
    parser.add_argument("--reference", action="store_true", help="measure the PyTorch reference too")
    parser.add_argument("--image", type=Path, metavar="FILE", help="default: the first of the shipped pictures")
    parser.add_argument("--devices", nargs="+", default=["cpu"], choices=get_args(Target), help="default: cpu")
    parser.add_argument(
        "--proposals", type=int, metavar="N", help="describe N given masks, not SAM's (default: SAM's; random SAM: 100)"
    )
    parser.add_argument(
        "--keep", type=float, metavar="SHARE", help="of a random SAM's prompts that pass (default: 0.5)"
    )
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=10, metavar="N", help="fewest rounds (default: %(default)s)")
    parser.add_argument(
        "--duration", type=float, default=3.0, metavar="S", help="shortest time measured (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images in a row; 0: none (default: 4)")
    parser.add_argument(
        "--cold-starts", type=int, default=3, metavar="N", help="processes started; 0: none (default: 3, reference: 1)"
    )
    add_threads(parser)
    add_outputs(parser)
    parser.add_argument("--html", type=Path, metavar="OUT", help="write the report as a page here")
    models = parser.add_argument_group("models", "from which the bundle was built, where its manifest does not say")
    models.add_argument("--clip", metavar="MODEL", help="open_clip model, or path of a JSON configuration")
    models.add_argument("--clip-checkpoint", type=Path, metavar="FILE", help="CLIP's weights, unless they were random")
    models.add_argument("--sam-checkpoint", type=Path, metavar="FILE", help="SAM's weights, unless they were random")
    add_overrides(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from risbench.machine.timing import TimingConfig
    from risbench.reports.latency_markdown import markdown_latency
    from risbench.reports.page import render_page
    from risbench.speed.latency import measure_latency
    from risbench.speed.latency_report import LatencyConfig
    from risbench.speed.whole_path import ModelFiles

    report = measure_latency(
        LatencyConfig(
            bundle=options.bundle,
            image=options.image,
            reference=options.reference,
            devices=tuple(options.devices),
            threads=options.threads,
            proposals=options.proposals,
            keep=options.keep,
            settings=overrides_of(options),
            timing=TimingConfig(options.warmup, options.iterations, options.duration),
            batch=options.batch,
            cold_starts=options.cold_starts,
            files=ModelFiles(options.clip, options.clip_checkpoint, options.sam_checkpoint),
        )
    )
    write_json(options.json, report)
    text = markdown_latency(report)
    write_text(options.markdown, text)
    if options.html is not None:
        write_text(options.html, render_page({report.bundle.name: report}))
    print(text)
