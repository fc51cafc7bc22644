"""Reports as one page with plots that loads nothing: it works offline and can be mailed."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

from risbench.reports.markdown_html import markdown_to_html
from risbench.reports.plots import plot_accuracy, plot_distribution, plot_roofline, plot_waterfall
from risbench.reports.stored import Report, markdown
from risbench.speed.latency_report import LatencyReport

__all__ = ["render_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.5rem 0; }
th, td { border: 1px solid #d0d7de; padding: 0.25rem 0.6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { background: #f6f8fa; }
figure { margin: 1rem 0; } figcaption { font-size: 0.85rem; color: #57606a; }
figure svg { max-width: 100%; height: auto; }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser is told to load: nothing but what stands in the page."""

_CAPTIONS = {
    "waterfall": "Stages, one after the other",
    "distribution": "Share of runs that took at most so long",
    "roofline": "Stages of the engine below what the machine can do",
    "accuracy": "Accuracy against latency",
}


def render_page(reports: Mapping[str, Report]) -> str:
    """Returns the page.

    Args:
        reports: By title.
    """
    sections = [_section(title, report) for title, report in reports.items()]
    accuracy = plot_accuracy(reports)
    if accuracy is not None:
        sections.insert(0, f"<section>\n{_figure('accuracy', accuracy)}\n</section>")
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>risbench</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>risbench</h1>
{body}
</body>
</html>"""


def _section(title: str, report: Report) -> str:
    name = html.escape(title)
    figures = "\n".join(_figure(kind, drawing) for kind, drawing in _plots(report))
    return f"<section>\n<h2>{name}</h2>\n{figures}\n{markdown_to_html(markdown(report))}\n</section>"


def _plots(report: Report) -> Iterator[tuple[str, str]]:
    if isinstance(report, LatencyReport):
        yield "waterfall", plot_waterfall(report)
        yield "distribution", plot_distribution(report)
        yield "roofline", plot_roofline(report)


def _figure(kind: str, drawing: str) -> str:
    return f'<figure data-plot="{kind}">\n{drawing}\n<figcaption>{_CAPTIONS[kind]}</figcaption>\n</figure>'
