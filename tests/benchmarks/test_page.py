"""The HTML page: its parts, and how a real browser shows it without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_samples import RESULTS, latency_report, stored

from risbench.cli import main
from risbench.options import write_json
from risbench.reports.markdown_html import markdown_to_html
from risbench.reports.page import render_page
from risbench.reports.plots import plot_accuracy

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLOTS = {"accuracy", "waterfall", "distribution", "roofline"}

# Runs in the page: what each plot measures on the screen, and what the browser loaded beside the page.
PROBE = """<script>
addEventListener("load", () => {
  const shown = [...document.querySelectorAll("figure[data-plot]")].map(figure => {
    const box = figure.querySelector("svg").getBoundingClientRect();
    return `${figure.dataset.plot}=${Math.round(box.width)}x${Math.round(box.height)}`;
  });
  const loaded = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
  document.body.dataset.probe = `${shown.join(" ")} loaded=${loaded}`;
});
</script>"""


def test_markdown_becomes_html() -> None:
    text = "Some `code <b>` and **bold**\nin one.\n\n| a | b |\n|---|---|\n| 1 | **2** & 3 |\n| 4 |  |"
    assert markdown_to_html(text) == (
        "<p>Some <code>code &lt;b&gt;</code> and <strong>bold</strong>\nin one.</p>\n"
        '<div class="table"><table><thead><tr><th>a</th><th>b</th></tr></thead>\n<tbody>\n'
        "<tr><td>1</td><td><strong>2</strong> &amp; 3</td></tr>\n<tr><td>4</td><td></td></tr>\n</tbody></table></div>"
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    write_json(folder / "known.json", latency_report())
    reports = [str(folder / "known.json"), *map(str, sorted(RESULTS.glob("*.json")))]
    assert main(["report", *reports, "-o", str(folder / "page.html")]) == 0
    return (folder / "page.html").read_text(encoding="utf-8")


def test_the_page_holds_every_plot_and_loads_nothing(page: str) -> None:
    assert set(re.findall(r'data-plot="(\w+)"', page)) == PLOTS
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert "@import" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(ids)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)
    for title in ("known", "accuracy-tabletop", "Worst stage"):
        assert title in page


def test_titles_are_escaped() -> None:
    assert "<h2>&lt;script&gt;</h2>" in render_page({"<script>": stored("features-vit-b-32")})


def test_accuracy_is_drawn_where_there_are_both() -> None:
    assert plot_accuracy({"a": stored("features-vit-b-32"), "b": latency_report()}) is None
    drawing = plot_accuracy({"agreement": stored("agreement-tabletop-turbo")})
    assert drawing is not None
    assert "agreement: A" in drawing
    assert "agreement: B" in drawing


def test_a_real_browser_shows_it_offline(page: str, tmp_path: Path) -> None:
    if BROWSER is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    path = tmp_path / "page.html"
    probed = page.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    path.write_text(probed.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    result = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--window-size=1200,1600",
            "--virtual-time-budget=2000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "CONSOLE" not in result.stderr, result.stderr
    probe = re.search(r'data-probe="([^"]*)"', result.stdout)
    assert probe is not None
    *shown, loaded = probe[1].split()
    assert loaded == "loaded=0"
    sizes = dict(plot.split("=") for plot in shown)
    assert set(sizes) == PLOTS
    for size in sizes.values():
        width, height = map(int, size.split("x"))
        assert 600 < width <= 1100
        assert 150 < height < 900
