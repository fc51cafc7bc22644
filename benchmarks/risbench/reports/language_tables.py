"""The language report as plain text and as Markdown."""

from __future__ import annotations

from risbench.quality.language import PUBLISHED, STRATEGY_NAMES, LanguageReport, Rejection
from risbench.reports.tables import format_table

__all__ = ["format_language", "markdown_language"]

_UNCALIBRATED = "not measured: the bundle has no calibration (python -m risbench.calibrate fits one)"


def format_language(report: LanguageReport) -> str:
    """Returns the report for a terminal, in percent, with every failure on the hand-written set."""
    names = _columns(report)
    header, rows = ["right object", "n", *names], []
    for name, kinds in report.right.items():
        for kind, shares in kinds.items():
            cells = [f"{100 * shares[strategy]:.1f}" for strategy in names]
            rows.append([f"{name} {kind}", str(report.count[name][kind]), *cells])
    failures = [f'  {item.kind}: "{item.text}" ({item.image}): {item.chosen}, not {item.wanted}; {item.parse}'
                for item in report.failures]  # fmt: skip
    rejection = [f"{split}: {_rejection_line(found)}" for split, found in report.rejection.items()] or [_UNCALIBRATED]
    return "\n\n".join(
        [format_table(header, rows), "present or absent, image and text to mask\n" + "\n".join(rejection),
         "hand-written expressions that failed\n" + "\n".join(failures)]
    )  # fmt: skip


def markdown_language(report: LanguageReport) -> str:
    """Returns the table of a README with its conditions, in percent."""
    names = _columns(report)
    rows = [f"| set | expressions | n | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
    for name, kinds in report.right.items():
        for kind, shares in kinds.items():
            cells = [name, kind, str(report.count[name][kind])]
            rows.append(f"| {' | '.join([*cells, *(f'{100 * shares[s]:.1f}' for s in names)])} |")
    found = [f"`{split}`: {_rejection_line(found)}" for split, found in report.rejection.items()]
    rejection = "; ".join(found) or _UNCALIBRATED
    conditions = (
        f"Percent of right choices among ground-truth masks; bundle `{report.bundle.name}` "
        f"({report.bundle.precision}, {report.bundle.id[:12]}). Present against absent, on own proposals: {rejection}."
    )
    if faults := report.config.hybridgl_faults:
        conditions += f" Faults of HybridGL's published code: {', '.join(faults)}."
    return "\n".join([*rows, "", conditions])


def _columns(report: LanguageReport) -> tuple[str, ...]:
    return (*STRATEGY_NAMES, PUBLISHED) if report.config.hybridgl_faults else STRATEGY_NAMES


def _rejection_line(found: Rejection) -> str:
    return (
        f"ROC AUC {found.auc:.3f} ({found.present} present, {found.absent} absent), calibration error "
        f"{found.calibration_error:.3f}"
    )
