"""Reports as files: which kind a file is, and what it says in Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from risbench.quality.accuracy import AccuracyReport
from risbench.quality.agreement import AgreementReport
from risbench.quality.language import LanguageReport
from risbench.reports.language_tables import markdown_language
from risbench.reports.latency_markdown import markdown_latency
from risbench.reports.latency_tables import markdown_features, markdown_proposals
from risbench.reports.tables import markdown_accuracy, markdown_agreement
from risbench.speed.features import FeaturesReport
from risbench.speed.latency_report import LatencyReport
from risbench.speed.native import NativeReport, markdown_native
from risbench.speed.proposal_report import ProposalsReport
from risengine.errors import InputError

__all__ = ["Report", "markdown", "read_report"]

Report: TypeAlias = (
    AccuracyReport | AgreementReport | FeaturesReport | LanguageReport | LatencyReport | NativeReport | ProposalsReport
)

_MARKDOWN: Mapping[type, Callable[[Any], str]] = {
    AccuracyReport: markdown_accuracy,
    AgreementReport: markdown_agreement,
    FeaturesReport: markdown_features,
    LanguageReport: markdown_language,
    LatencyReport: markdown_latency,
    NativeReport: markdown_native,
    ProposalsReport: markdown_proposals,
}


def read_report(path: Path) -> Report:
    """Reads a report of any command; its fields tell which.

    Raises:
        InputError: The file is missing, is no report, or is of another schema version.
    """
    try:
        data = path.read_bytes()
        content = msgspec.json.decode(data)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{path} is no report: {error}. Pass a file that a command wrote with --json.") from error
    for kind in _MARKDOWN:
        if isinstance(content, dict) and _required(kind) <= content.keys():
            return _decode(data, content, kind, path)
    raise InputError(f"{path} has the fields of no report. Pass a file that a command wrote with --json.")


def markdown(report: Report) -> str:
    """Returns the tables and conditions of a report."""
    return _MARKDOWN[type(report)](report)


def _required(kind: type) -> set[str]:
    missing = dataclasses.MISSING
    return {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    }


def _decode(data: bytes, content: dict[str, Any], kind: type, path: Path) -> Report:
    (expected,) = (field.default for field in dataclasses.fields(kind) if field.name == "schema_version")
    found = content.get("schema_version")
    if found != expected:
        raise InputError(f"{path} has schema version {found}; this risbench reads {expected}. Measure again.")
    try:
        report: Report = msgspec.json.decode(data, type=kind, dec_hook=lambda to, value: to(value))
    except msgspec.ValidationError as error:
        raise InputError(f"{path} is no {kind.__name__}: {error}. Measure again.") from error
    return report
