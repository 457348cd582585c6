"""Build the book: chapters read or made, numbered, written as a PDF and as HTML. The same code gives the same bytes."""
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...progress import Report
from ...storage.atomic import AnyPath, atomic_write
from ...version import __version__
from .contents import HERE, chapters, read_contents
from .live import measure
from .numbering import Book, check_spans, number_chapters
from .references import read_sources
from .to_html import write_html
from .to_typst import typst_of

TITLE = "minillm, the book"
Say = Callable[[str], None]


def read_book(live: dict | None = None, progress: Report | None = None, contents: str | None = None) -> Book:
    """All chapters, numbered. live: fresh measurements, by op; contents: the text of a contents.txt (default: that of
    the package)."""
    text = (HERE / "contents.txt").read_text(encoding="utf-8") if contents is None else contents
    parts, names = read_contents(text)
    done, targets = number_chapters(chapters(names, live, progress))
    book = Book(TITLE, __version__, parts, done, targets, read_sources())
    check_spans(book)
    return book


def write_pdf(book: Book, path: AnyPath) -> int:
    """Write the PDF; returns its number of pages."""
    return write_typst(typst_of(book), path)


def write_typst(text: str, path: AnyPath) -> int:
    """Compile a text of Typst's with the fonts that it brings, no others, and without a date."""
    typst = import_typst()
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    compiler = typst.Compiler(text.encode(), font_paths=fonts)
    made = compiler.compile(format="pdf", timestamp=0)
    with atomic_write(path, "wb") as file:
        file.write(made)
    return len(re.findall(rb"/Type\s*/Page\b", made))


def import_typst() -> Any:
    """The typesetter. Raises ImportError that says what to install."""
    try:
        import typst
    except ImportError:
        raise ImportError("the PDF needs typst: pip install 'minillm[book]'; --html does without") from None
    return typst


def build(pdf: AnyPath | None, html: AnyPath | None, live: bool, say: Say, progress: Report | None = None) -> Book:
    """The whole: a PDF, HTML, or both. live: measure the kernels first."""
    if pdf:                                     # before any work
        import_typst()
        if not Path(pdf).absolute().parent.is_dir():
            raise ValueError(f"out must be a file in a folder that exists: got {pdf}")
    book = read_book(measure(progress=progress) if live else None, progress)
    if html:
        write_html(book, Path(html))
        say(f"{Path(html) / 'index.html'}: {len(book.chapters)} chapters")
    if pdf:
        say(f"{pdf}: {write_pdf(book, pdf)} pages")
    return book
