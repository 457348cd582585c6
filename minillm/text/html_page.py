"""The HTML of reports: one page that needs nothing else, its index, and the parts it is made of. No scripts.

The style sheet is that of the chat page, too. What is drawn is placed in per cent, so that it fits every width while
its words keep their size.
"""
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

STYLE = Path(__file__).with_name("style.css")


class Section(NamedTuple):
    """A part of a page that its index names. body: HTML."""
    anchor: str
    heading: str
    body: str


class Bar(NamedTuple):
    """A row of `bars`. inside: HTML that is shown when the row is opened; link: an anchor that the label leads to."""
    label: str
    share: float
    figures: str
    inside: str = ""
    link: str = ""


def page(title: str, lead: str, sections: Iterable[Section]) -> str:
    """A whole page. lead: HTML that stands before the index."""
    sections = [section for section in sections if section.body]
    index = "".join(f'<a href="#{s.anchor}">{escape(s.heading)}</a>' for s in sections)
    parts = "\n".join(f'<section id="{s.anchor}"><h2>{escape(s.heading)}</h2>{s.body}</section>' for s in sections)
    return ('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
            f'<body class="report">\n<main>\n<h1>{escape(title)}</h1>\n{lead}\n<nav aria-label="index">{index}</nav>\n'
            f"{parts}\n</main>\n</body>\n</html>\n")


def table(head: Iterable, rows: Iterable[Iterable]) -> str:
    """Cells are text. On a narrow screen the table scrolls by itself, the page does not."""
    def line(cells: Iterable, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
    return ('<div class="wide" tabindex="0"><table>' + line(head, "th") + "".join(line(row, "td") for row in rows)
            + "</table></div>")


def bars(rows: Iterable[Bar], kind: str = "") -> str:
    """Shares from 0 to 1 as bars. kind: "warn" for what is lost."""
    return f'<div class="bars {kind}">' + "".join(map(bar, rows)) + "</div>"


def bar(row: Bar) -> str:
    label = escape(row.label).replace("_", "_<wbr>")
    name = f'<a href="#{row.link}">{label}</a>' if row.link else label
    line = (f'<span class="name">{name}</span><span class="track"><i style="width:{100 * row.share:.2f}%"></i></span>'
            f'<span class="figures">{escape(row.figures)}</span>')
    if row.inside:
        return f'<details><summary class="bar">{line}</summary><div class="inside">{row.inside}</div></details>'
    return f'<div class="bar">{line}</div>'


def fold(summary: str, body: str) -> str:
    """HTML that is shown on demand."""
    return f'<details class="fold"><summary>{escape(summary)}</summary>{body}</details>'
