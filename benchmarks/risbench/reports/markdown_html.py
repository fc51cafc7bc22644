"""The Markdown that reports are written in, as HTML: paragraphs, tables, bold and code, and nothing else."""

from __future__ import annotations

import html
import re

__all__ = ["markdown_to_html"]


def markdown_to_html(text: str) -> str:
    """Converts a report's Markdown."""
    return "\n".join(_block(block) for block in text.strip().split("\n\n"))


def _block(block: str) -> str:
    lines = block.splitlines()
    if not lines[0].startswith("|"):
        return f"<p>{_inline(block)}</p>"
    head, _rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    body = "\n".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)
    head_row = f"<tr>{_cells(head, 'th')}</tr>"
    return f'<div class="table"><table><thead>{head_row}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _cells(cells: list[str], tag: str) -> str:
    return "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells)


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
