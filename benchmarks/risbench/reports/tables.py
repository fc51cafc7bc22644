"""Reports as aligned plain text."""

from __future__ import annotations

from collections.abc import Sequence

from risbench.data.refer import DATASETS
from risbench.quality.accuracy import ALL_KINDS, AccuracyReport, BundleFacts, KindResult, SplitResult
from risbench.quality.agreement import Agreement, AgreementReport
from risbench.quality.metrics import PRECISION_AT
from risbench.quality.published import published_beside

__all__ = ["format_accuracy", "format_agreement", "format_table", "markdown_accuracy", "markdown_agreement"]


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns columns: the first to the left, all others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def format_accuracy(report: AccuracyReport) -> str:
    """Returns the report for a terminal: conditions, then two tables a split, figures in percent."""
    bundle, environment = report.bundle, report.environment
    parts = [
        f"bundle {bundle.name} ({bundle.precision}, {bundle.method.preset} preset, {bundle.id[:12]}), "
        f"{bundle.strategy} strategy, on {environment.cpu}, {', '.join(bundle.providers)}",
        *(_format_split(report.config.dataset, name, result) for name, result in report.splits.items()),
        *("\n".join(table).strip() for table in (_markdown_ablations(report), _markdown_published(report)) if table),
        "All figures in percent. An expression without a proposal counts as IoU 0. oracle: the best proposal for every "
        "expression.\nrandom, fitting: expected value of guessing among all, or among what fits the noun phrase.",
    ]
    return "\n\n".join(parts)


def markdown_accuracy(report: AccuracyReport) -> str:
    """Returns the figures a README shows, as a Markdown table with its conditions, in percent."""
    rows = [
        "| set | expressions | n | mIoU | oIoU | oracle | guess | right object | guess |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in report.splits.items():
        for kind, figures in result.kinds.items():
            cells = [
                name,
                kind,
                str(figures.answers.count),
                *(_percent(value) for value in (figures.answers.miou, figures.answers.oiou, figures.oracle.miou)),
                *(_percent(figures.fitting_proposal), _percent(figures.right_object), _percent(figures.fitting_object)),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    rows += _markdown_ablations(report)
    rows += _markdown_published(report)
    points = ", ".join(f"{_percent(result.point_iou)} ({name})" for name, result in report.splits.items())
    counts = ", ".join(f"{result.images} images of `{name}`" for name, result in report.splits.items())
    conditions = (
        f"Percent; bundle `{report.bundle.name}` ({report.bundle.precision}, {report.bundle.method.preset} preset, "
        f"{report.bundle.id[:12]}), {report.bundle.strategy} strategy, {counts}, "
        f"{report.bundle.proposals.points_per_side} points a side, {', '.join(report.bundle.providers)}. mIoU, oIoU: "
        "image and text to mask; oracle: mIoU of the best proposal; an expression without a proposal counts as IoU 0. "
        "right object: choice among ground-truth masks. guess: expected value of guessing among what fits the noun "
        f"phrase. SAM alone, best of three masks at a random interior point: {points} IoU."
    )
    return "\n".join([*rows, "", conditions])


def _markdown_ablations(report: AccuracyReport) -> list[str]:
    """Returns a table of the whole method and its variants, mIoU over all expressions; no line without variants."""
    variants = list(dict.fromkeys(name for result in report.splits.values() for name in result.ablations))
    if not variants:
        return []
    rows = ["", f"| mIoU, right object | {' | '.join(report.splits)} |", f"|{'---|' * (len(report.splits) + 1)}"]
    for name in (None, *variants):
        cells = [
            f"{_percent(figures.answers.miou)}, {_percent(figures.right_object)}"
            for result in report.splits.values()
            for figures in [(result.kinds if name is None else result.ablations[name])[ALL_KINDS]]
        ]
        rows.append(f"| {'whole method' if name is None else f'{name} only'} | {' | '.join(cells)} |")
    return rows


def _markdown_published(report: AccuracyReport) -> list[str]:
    """Returns a table of published figures on the same splits, below the result; no line where there are none."""
    config = report.config
    partition = config.split_by or next(iter(DATASETS[config.dataset].splits))
    published = published_beside(config.dataset, partition, tuple(report.splits))
    if not published:
        return []
    own = [result.kinds[ALL_KINDS].answers for result in report.splits.values()]
    rows = ["", f"| zero-shot methods | metric | {' | '.join(report.splits)} |", f"|{'---|' * (len(own) + 2)}"]
    rows += [
        f"| **this run** | {metric} | {' | '.join(_percent(value) for value in values)} |"
        for metric, values in (("mIoU", [a.miou for a in own]), ("oIoU", [a.oiou for a in own]))
    ]
    rows += [f"| {result.method}, published | {result.metric} | {' | '.join(cells)} |" for result, cells in published]
    return rows


def format_agreement(report: AgreementReport) -> str:
    """Returns the report for a terminal: conditions, answers, proposals, figures in percent."""
    rows, proposed = [], []
    for name, result in report.splits.items():
        counts = [str(result.images), str(result.expressions), str(result.refused)]
        cosines = [_cosine(result.lowest_cosine), _cosine(result.mean_cosine)]
        rows.append([f"{name}, own proposals", *counts, *_agreement_cells(result.end_to_end), "-", "-"])
        rows.append([f"{name}, A's proposals", *counts, *_agreement_cells(result.same_proposals), *cosines])
        proposed.append(
            [
                name,
                str(result.images),
                *(f"{count:.1f}" for count in (result.proposals_a, result.proposals_b)),
                _percent(result.recall),
                *(f"{ms:.1f}" for ms in (result.proposal_ms_a, result.proposal_ms_b)),
                f"{result.proposal_ms_a / result.proposal_ms_b:.2f}",
            ]
        )
    header = [
        "",
        "images",
        "n",
        "refused",
        "same mask",
        "mIoU A",
        "mIoU B",
        "change",
        "lowest cos",
        "mean cos",
    ]
    environment = report.environment
    return "\n\n".join(
        [
            f"A  {_bundle_line(report.a)}\nB  {_bundle_line(report.b)}\n"
            f"{report.config.dataset} on {environment.cpu}, {environment.logical_cores} cores, "
            f"{report.threads or 'automatic'} threads",
            format_table(header, rows),
            format_table(
                ["proposals", "images", "masks A", "masks B", "recall", "ms A", "ms B", "A / B"],
                proposed,
            ),
            f"Shares in percent. same mask: expressions whose two answers have an IoU of at least "
            f"{report.same_mask_iou:g}; recall: masks of A\nof which B has one with that IoU. cos: of the features of "
            "the same mask. ms: of an image's proposals, in turns.",
        ]
    )


def markdown_agreement(report: AgreementReport) -> str:
    """Returns the figures a README shows, as a Markdown table with its conditions, in percent."""
    rows = [
        "| set | expressions | masks an image, A and B | recall of A's masks | same answer | mIoU A | mIoU B "
        "| same answer, A's masks | lowest cosine | proposals, A / B |",
        f"|{'---|' * 10}",
    ]
    for name, result in report.splits.items():
        own, same = result.end_to_end, result.same_proposals
        cells = [
            name,
            str(result.expressions),
            f"{result.proposals_a:.1f}, {result.proposals_b:.1f}",
            *(_percent(value) for value in (result.recall, own.same_mask, own.miou_a, own.miou_b, same.same_mask)),
            _cosine(result.lowest_cosine),
            f"{result.proposal_ms_a / result.proposal_ms_b:.2f} x",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    environment = report.environment
    conditions = (
        f"Percent; `{report.config.dataset}`. A: {_bundle_line(report.a)}. B: {_bundle_line(report.b)}. "
        f"{environment.cpu}, {report.threads or 'automatic'} threads. same: an IoU of at least "
        f"{report.same_mask_iou:g}. The answers are with each bundle's own masks, or with A's given to both; cosine: "
        "of the features of the same mask; proposals: mean time of A's proposal stage over B's, in turns."
    )
    return "\n".join([*rows, "", conditions])


def _bundle_line(bundle: BundleFacts) -> str:
    return (
        f"{bundle.name} ({bundle.precision}, {bundle.id[:12]}), {bundle.proposals.search} search, "
        f"{', '.join(bundle.providers)}"
    )


def _agreement_cells(agreement: Agreement) -> list[str]:
    change = 100 * (agreement.miou_b - agreement.miou_a)
    return [*map(_percent, (agreement.same_mask, agreement.miou_a, agreement.miou_b)), f"{change:+.2f}"]


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _format_split(dataset: str, name: str, result: SplitResult) -> str:
    kinds = result.kinds
    scale = (
        f"{dataset}, {name}: {result.images} images, {result.objects} objects, "
        f"{result.proposals:.1f} proposals an image\n"
        f"SAM alone, best of three masks at a random interior point: {_percent(result.point_iou)} IoU"
    )
    header = [
        "image + expression -> mask",
        "n",
        "mIoU",
        "oIoU",
        *(f"P@{threshold:g}" for threshold in PRECISION_AT),
        "oracle",
        "random",
        "fitting",
    ]
    end_to_end = format_table(header, [_end_to_end_row(kind, figures) for kind, figures in kinds.items()])
    header = ["choice among ground-truth masks", "n", "right", "random", "fitting", "phrase right", "refused"]
    choice = format_table(header, [_choice_row(kind, figures) for kind, figures in kinds.items()])
    return f"{scale}\n\n{end_to_end}\n\n{choice}"


def _end_to_end_row(kind: str, figures: KindResult) -> list[str]:
    answers = figures.answers
    return [
        kind,
        str(answers.count),
        _percent(answers.miou),
        _percent(answers.oiou),
        *(_percent(share) for share in answers.precision.values()),
        _percent(figures.oracle.miou),
        _percent(figures.random_proposal),
        _percent(figures.fitting_proposal),
    ]


def _choice_row(kind: str, figures: KindResult) -> list[str]:
    return [
        kind,
        str(figures.answers.count),
        _percent(figures.right_object),
        _percent(figures.random_object),
        _percent(figures.fitting_object),
        _percent(figures.right_phrase),
        str(figures.refused),
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
