"""Blocks as HTML: a page for each chapter, an index page with the contents, the style sheet that all reports share."""
from html import escape
from itertools import groupby
from pathlib import Path

from ...storage.atomic import atomic_write
from ...text.html_page import STYLE
from . import formula
from .blocks import (
    Block,
    Box,
    Chapter,
    Code,
    Exercise,
    Formula,
    Heading,
    Index,
    Items,
    Paragraph,
    Picture,
    Span,
    Spans,
    Table,
    plain,
)
from .index import IndexMarks, Line, index_lines
from .numbering import APPENDICES, Book, anchor
from .references import read_sources

CSS = Path(__file__).with_name("book.css")


def write_html(book: Book, folder: Path) -> None:
    """Write all pages into a folder, which is made if need be; other files in it stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages_of(book).items():
        with atomic_write(folder / name, encoding="utf-8") as file:
            file.write(text)


def pages_of(book: Book) -> dict[str, str]:
    """{file name: text}."""
    marks = IndexMarks()
    pages = {"style.css": STYLE.read_text(encoding="utf-8") + CSS.read_text(encoding="utf-8")}
    names = [None, *book.chapters, None]
    for before, chapter, after in zip(names, book.chapters, names[2:]):
        body = chapter_of(chapter, book, marks)
        pages[f"{chapter.name}.html"] = page(f"{plain(chapter.title)} – {book.title}", body, steps(before, after))
    return pages | {"index.html" if "index.html" not in pages else "contents.html": contents_page(book)}


def page(title: str, body: str, around: str) -> str:
    """A whole page."""
    return ('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(title)}</title>\n<link rel="stylesheet" href="style.css">\n</head>\n'
            f'<body class="book">\n<main>\n{around}\n{body}\n{around}\n</main>\n</body>\n</html>\n')
