"""The ``risbench`` command."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from risbench.data.refer import DATASETS, PolygonRule, load_refer, tabletop_root
from risbench.language_command import add_language
from risbench.latency_command import add_latency
from risbench.options import add_outputs, add_overrides, add_threads, overrides_of, write_json, write_text
from risbench.quality.ablations import ABLATIONS, opened_variants
from risbench.report_command import add_report_commands
from risengine import RuntimeConfig
from risengine.config import StrategyName
from risengine.errors import BackendError, InputError, RisError
from risexport.presets import PRESETS

if TYPE_CHECKING:
    from risbench.quality.accuracy import AccuracyConfig

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: Command line without the program's name; the process's own when left out.

    Returns:
        Exit status: 0, 1 for a comparison or check that failed, 2 for a refusal that says why, 130 after an interrupt.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return _run(options)
    except RisError as error:
        print(f"risbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("risbench: interrupted, no report was written", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    from risengine.output import check_writable

    for name in ("json", "markdown", "html", "answers", "contact_sheet"):  # before the work
        if (path := getattr(options, name, None)) is not None:
            check_writable(path)
    try:
        return options.run(options) or 0
    except ModuleNotFoundError as error:
        raise BackendError(
            f'risbench needs {error.name}, which is not installed. Run: pip install "risengine[bench]"'
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="risbench", description="Measures risengine bundles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    accuracy = commands.add_parser(
        "accuracy",
        help="referring segmentation on a data set in REFER's format",
        description="Asks a bundle every expression of a data set; reports mIoU, oIoU, precision and oracle by kind.",
    )
    accuracy.add_argument("bundle", help="name of an embedded bundle, or a bundle directory")
    _add_data_options(accuracy)
    accuracy.add_argument(
        "--ablation", nargs="+", default=(), choices=ABLATIONS, help="measure the method with this alone too"
    )
    accuracy.add_argument(
        "--answers", type=Path, metavar="OUT.jsonl", help="write every answer here; a run cut short goes on from it"
    )
    accuracy.add_argument("--contact-sheet", type=Path, metavar="OUT.png", help="draw the best and worst answers here")
    add_outputs(accuracy)
    accuracy.set_defaults(run=_run_accuracy)
    _add_strategy(accuracy)
    add_overrides(accuracy)
    add_language(commands)
    agreement = commands.add_parser(
        "agreement",
        help="whether two bundles propose and choose the same masks",
        description="Asks two bundles every expression of a data set; reports the share of equal answers, the cosine "
        "of the features and the change of mIoU, with each bundle's own proposals and with A's given to both, and the "
        "share of A's proposals that B makes too, with the time of either.",
    )
    agreement.add_argument("a", metavar="A", help="the exact bundle: embedded name or directory")
    agreement.add_argument("b", metavar="B", help="the bundle in question; the same for another search or setting")
    _add_data_options(agreement)
    add_outputs(agreement)
    add_threads(agreement)
    add_overrides(agreement, "of B, in place of the bundle's settings")
    agreement.set_defaults(run=_run_agreement)
    features = commands.add_parser(
        "features",
        help="latency of the fused CLIP graph against PyTorch",
        description="Exports a CLIP with random weights and times its features of masks, and the masked blocks alone, "
        "against the PyTorch reference, in turns and beside the machine's GEMM rate.",
    )
    features.add_argument("--clip", default="ViT-B-32", metavar="MODEL", help="open_clip name (default: %(default)s)")
    features.add_argument("--preset", choices=PRESETS, default="reference", help="default: %(default)s")
    features.add_argument("--proposals", type=int, default=64, metavar="N", help="masks (default: %(default)s)")
    features.add_argument("--rounds", type=int, default=10, metavar="N", help="fewest runs (default: %(default)s)")
    add_threads(features)
    add_outputs(features)
    features.set_defaults(run=_run_features)
    proposals = commands.add_parser(
        "proposals",
        help="latency and peak memory of the proposal stage against segment-anything's generator",
        description="Runs SAM's automatic masks from the exported graphs and with SamAutomaticMaskGenerator in "
        "PyTorch, in turns and beside the machine's GEMM rate, and compares the masks. Without a bundle the weights "
        "are random and the thresholds chosen to keep shares of the prompts; at vit_b and 32 x 32 points every stock "
        "run then takes minutes.",
    )
    proposals.add_argument("--sam", default="vit_b", metavar="MODEL", help="vit_b, ... or module:function")
    proposals.add_argument("--bundle", help="measure this bundle instead, at its own settings")
    proposals.add_argument("--sam-checkpoint", type=Path, metavar="FILE", help="the weights of the bundle's SAM")
    proposals.add_argument("--points-per-side", type=int, metavar="N", help="default: the bundle's, or 32")
    proposals.add_argument("--keep", type=float, nargs="+", metavar="SHARE", help="of prompts (default: 0.1 0.5 1)")
    proposals.add_argument(
        "--stock-batch", type=int, nargs="+", metavar="N", help="batch sizes beside its default 64 (default: 16 4)"
    )
    proposals.add_argument("--rounds", type=int, default=1, metavar="N", help="runs a side (default: %(default)s)")
    proposals.add_argument(
        "--memory",
        nargs="+",
        default=(),
        choices=("same", "large"),
        help="peak memory too: of the same runs, or on a 4000 x 3000 image with 64 x 64 points",
    )
    add_threads(proposals)
    add_outputs(proposals)
    proposals.set_defaults(run=_run_proposals)
    add_latency(commands)
    add_report_commands(commands)
    return parser


def _add_strategy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strategy",
        choices=get_args(StrategyName),
        default=RuntimeConfig.strategy,
        help="how masks are scored; global_local is the paper's (default: %(default)s)",
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--refer",
        type=Path,
        metavar="ROOT",
        help="REFER's data folder (tabletop: the repository's); PhraseCut's files lie in ROOT/phrasecut",
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="tabletop", help="default: %(default)s")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all that the partition is tested on")
    parser.add_argument("--split-by", metavar="WHO", help="partition, e.g. google for refcocog (default: umd)")
    parser.add_argument(
        "--polygons",
        choices=get_args(PolygonRule),
        default="union",
        help="an object's polygons as a mask: their union, or pixels covered once as in the authors' code",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of every split")


def _run_accuracy(options: argparse.Namespace) -> None:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from risbench.quality.accuracy import bundle_facts, measure_accuracy
    from risbench.quality.answer_log import AnswerLog
    from risbench.quality.extremes import draw_extremes
    from risbench.reports.tables import format_accuracy, markdown_accuracy
    from risengine import load
    from risengine.output import check_image_path, save_image

    config, runtime = _evaluation(options), RuntimeConfig(strategy=options.strategy)
    if options.contact_sheet is not None:
        check_image_path(options.contact_sheet)
    with (
        logging_redirect_tqdm(),  # warnings do not break the progress bar
        load(options.bundle, runtime, **overrides_of(options)) as engine,
        opened_variants(options.bundle, options.ablation) as variants,
    ):
        data = dataclasses.replace(config, splits=(), limit=None)  # more of the same goes into one file
        conditions = {"bundle": bundle_facts(engine), "data": data, "ablations": options.ablation}
        log = AnswerLog(options.answers, conditions)
        log.resume()
        report = measure_accuracy(engine, config, log, variants)
        if options.contact_sheet is not None:
            dataset = load_refer(config.refer, config.dataset, config.split_by)
            save_image(draw_extremes(engine, dataset, list(log.sentences), config.polygons), options.contact_sheet)
    write_json(options.json, report)
    write_text(options.markdown, markdown_accuracy(report))
    print(format_accuracy(report))


def _run_agreement(options: argparse.Namespace) -> None:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from risbench.quality.agreement import measure_agreement
    from risbench.reports.tables import format_agreement, markdown_agreement
    from risengine import load

    # The paper's score, as in the reference: what is compared is bundles, not the reading of expressions.
    config, runtime = _evaluation(options), RuntimeConfig(threads=options.threads, strategy="global_local")
    with (
        logging_redirect_tqdm(),
        load(options.a, runtime) as a,
        load(options.b, runtime, **overrides_of(options)) as b,
    ):
        report = measure_agreement(a, b, config, options.threads)
    write_json(options.json, report)
    write_text(options.markdown, markdown_agreement(report))
    print(format_agreement(report))


def _run_features(options: argparse.Namespace) -> None:
    from risbench.machine.timing import TimingConfig
    from risbench.reports.latency_tables import format_features, markdown_features
    from risbench.speed.features import FeaturesConfig, measure_features

    config = FeaturesConfig(
        clip=options.clip,
        preset=options.preset,
        proposals=options.proposals,
        threads=options.threads,
        timing=TimingConfig(rounds=options.rounds),
    )
    report = measure_features(config)
    write_json(options.json, report)
    write_text(options.markdown, markdown_features(report))
    print(format_features(report))


def _run_proposals(options: argparse.Namespace) -> None:
    from risbench.reports.latency_tables import format_proposals, markdown_proposals
    from risbench.speed.proposal_report import ProposalsConfig
    from risbench.speed.proposals import measure_proposals

    chosen = {"keep": options.keep, "stock_batches": options.stock_batch}
    config = ProposalsConfig(
        sam=options.sam,
        bundle=options.bundle,
        sam_checkpoint=options.sam_checkpoint,
        points_per_side=options.points_per_side,
        threads=options.threads,
        rounds=options.rounds,
        memory=tuple(options.memory),
        **{name: tuple(values) for name, values in chosen.items() if values is not None},
    )
    report = measure_proposals(config)
    write_json(options.json, report)
    write_text(options.markdown, markdown_proposals(report))
    print(format_proposals(report))


def _evaluation(options: argparse.Namespace) -> AccuracyConfig:
    from risbench.quality.accuracy import AccuracyConfig

    if options.refer is None and options.dataset != "tabletop":
        raise InputError(f"{options.dataset} does not come with risbench. Pass REFER's data folder as --refer ROOT.")
    return AccuracyConfig(
        refer=options.refer or tabletop_root(),
        dataset=options.dataset,
        splits=tuple(options.split or DATASETS[options.dataset].default_splits(options.split_by)),
        split_by=options.split_by,
        polygons=options.polygons,
        limit=options.limit,
    )


if __name__ == "__main__":
    sys.exit(main())
