"""Blocks as HTML: a page for each chapter, an index page with the contents, the style sheet that all reports share."""
import re
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
from .numbering import APPENDICES, Book, anchor, section_anchor

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
    return pages | {"index.html": contents_page(book)}


def page(title: str, body: str, around: str) -> str:
    """A whole page."""
    return ('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(title)}</title>\n<link rel="stylesheet" href="style.css">\n</head>\n'
            f'<body class="book">\n<main>\n{around}\n{body}\n{around}\n</main>\n</body>\n</html>\n')


def steps(before: Chapter | None, after: Chapter | None) -> str:
    """Links to the chapters before and after, and to the contents."""
    links = [f'<a href="{chapter.name}.html" rel="{rel}">{start}{escape(plain(chapter.title))}{end}</a>' if chapter else
             "<span></span>" for chapter, rel, start, end in ((before, "prev", "← ", ""), (after, "next", "", " →"))]
    middle = '<a href="index.html">Contents</a>'
    return f'<nav class="steps" aria-label="chapters">{links[0]}{middle}{links[1]}</nav>'


def contents_page(book: Book) -> str:
    """Title and contents."""
    parts = []
    for part, chapters in groupby(book.chapters, key=lambda chapter: chapter.part):
        parts.append(f"<h2>{escape(book.parts[part])}</h2>\n<ul class=\"contents\">")
        parts += [f'<li><a href="{chapter.name}.html"><span class="n">{chapter.number}</span> '
                  f"{titled(chapter.title)}</a>{sections(chapter)}</li>" for chapter in chapters]
        parts.append("</ul>")
    lead = "A language model from scratch, every derivative by hand."
    head = f'<h1>{escape(book.title)}</h1>\n<p class="lead">{lead}</p>'
    return page(book.title, head + "\n" + "\n".join(parts), "")


def sections(chapter: Chapter) -> str:
    """Links to a chapter's sections, on a line."""
    links = [f'<a href="{chapter.name}.html#{section_anchor(block)}">{titled(block.spans)}</a>'
             for block in chapter.blocks if isinstance(block, Heading) and block.level == 2]
    return f'<div class="sections">{" · ".join(links)}</div>' if links else ""


def titled(spans: Spans) -> str:
    """A title within a link: links and marks of its own are left out."""
    return "".join(f"<code>{escape(s.value)}</code>" if s.kind == "code" else escape(plain([s])) for s in spans)


def chapter_of(chapter: Chapter, book: Book, marks: IndexMarks) -> str:
    """The body of a chapter's page."""
    writer = Writer(book, marks, chapter.name)
    word = "Appendix" if chapter.part == APPENDICES else "Chapter"
    return (f'<p class="kicker">{word} {chapter.number}</p>\n<h1>{writer.text(chapter.title)}</h1>\n'
            + "\n".join(map(writer.block, chapter.blocks)))


class Writer:
    """Writes the blocks of a chapter."""

    def __init__(self, book: Book, marks: IndexMarks, chapter: str) -> None:
        self.book, self.marks, self.chapter = book, marks, chapter

    def block(self, block: Block) -> str:
        return getattr(self, type(block).__name__.lower())(block)

    def heading(self, block: Heading) -> str:
        number = f'<span class="n">{block.number}</span> ' if block.number else ""
        return (f'<h{block.level} id="{section_anchor(block)}">{number}{self.text(block.spans)}</h{block.level}>')

    def paragraph(self, block: Paragraph) -> str:
        return f"<p{self.id(block.label)}>{self.text(block.spans)}</p>"

    def items(self, block: Items) -> str:
        kind = "ol" if block.numbered else "ul"
        return f"<{kind}>" + "".join(f"<li>{self.text(item)}</li>" for item in block.items) + f"</{kind}>"

    def table(self, block: Table) -> str:
        rows = ["<tr>" + "".join(map(self.cell, row, block.right, ["th" if i == 0 else "td"] * len(row))) + "</tr>"
                for i, row in enumerate(block.rows)]
        words = f"<b>Table {block.number}.</b> {self.text(block.caption)}" if block.number else ""
        words = f"<figcaption>{words}</figcaption>" if words else ""
        return (f'<figure{self.id(anchor(block) if block.number else "")}>{words}<div class="wide" tabindex="0"><table>'
                f"{''.join(rows)}</table></div></figure>")

    def cell(self, spans: Spans, right: bool, tag: str) -> str:
        kind = ' class="right"' if right else ""
        return f"<{tag}{kind}>{self.text(spans)}</{tag}>"

    def code(self, block: Code) -> str:
        lines = block.text.split("\n")
        if block.first is not None:
            lines = [f'<i data-n="{number}"></i>{escape(line)}' for number, line in enumerate(lines, block.first)]
        else:
            lines = [escape(line) for line in lines]
        words = f"<figcaption>{self.text(block.caption)}</figcaption>" if block.caption else ""
        kind = "numbered" if block.first is not None else "plain"
        code = "\n".join(lines)
        return f'<figure class="code">{words}<pre class="{kind}" tabindex="0"><code>{code}</code></pre></figure>'

    def formula(self, block: Formula) -> str:
        parts = " ".join(formula.mathml(span.value, display=True) if span.kind == "math" else
                         f'<span class="words">{self.span(span)}</span>' for span in block.spans)
        return f'<div class="equation"{self.id(anchor(block))}><div>{parts}</div><span>({block.number})</span></div>'

    def box(self, block: Box) -> str:
        return f'<blockquote><b>{escape(block.title)}.</b> {self.text(block.spans)}</blockquote>'

    def exercise(self, block: Exercise) -> str:
        answer = self.href(f"answer-{block.number}")
        return (f'<p class="exercise" id="exercise-{block.number}"><a href="{answer}"><b>{block.number}</b></a> '
                f"{self.text(block.question)}</p>")

    def picture(self, block: Picture) -> str:
        return (f"<figure{self.id(anchor(block))}>{block.svg}<figcaption><b>Figure {block.number}.</b> "
                f"{self.text(block.caption)}</figcaption></figure>")

    def index(self, block: Index) -> str:
        lines = "".join(map(self.index_line, index_lines(self.marks)))
        return f'<div class="index">{lines}</div>'

    def index_line(self, line: Line) -> str:
        letter = f"<h2>{escape(line.letter)}</h2>" if line.letter else ""
        chapters = {mark.chapter: mark for mark in reversed(line.marks)}
        links = ", ".join(f'<a href="{chapter.name}.html#{chapters[chapter.name].id}">{chapter.number}</a>'
                          for chapter in self.book.chapters if chapter.name in chapters)
        return f'{letter}<p class="level{line.level}">{escape(line.word)}{", " if links else ""}{links}</p>'

    def text(self, spans: Spans) -> str:
        """Spans; a formula is not parted from the comma behind it."""
        html = "".join(map(self.span, spans))
        return re.sub(r"(<math(?:(?!</math>).)*</math>)([.,;:)]+)", r'<span class="together">\1\2</span>', html)

    def span(self, span: Span) -> str:
        kind, value = span
        if kind in ("text", "code"):
            return escape(value, quote=False) if kind == "text" else f"<code>{escape(value)}</code>"
        if kind == "math":
            return formula.mathml(value)
        if kind in ("emphasis", "strong"):
            tag = "em" if kind == "emphasis" else "strong"
            return f"<{tag}>{self.text(value)}</{tag}>"
        if kind == "link":
            return f'<a href="{escape(value[1])}">{self.text(value[0])}</a>'
        if kind == "ref":
            return f'<a href="{self.href(value)}">{escape(self.book.targets[value].words)}</a>'
        if kind == "see":
            return f'<a href="{self.href(value[0])}">{escape(value[1])}</a>'
        if kind == "cite":
            sources = "; ".join(f'<a href="{self.href(f"source-{key}")}">{escape(self.book.sources[key].short())}</a>'
                                for key in value)
            return f"({sources})"
        return f'<a id="{self.marks.add(value, self.chapter)}"></a>'

    def href(self, label: str) -> str:
        """Where a label is, seen from this page."""
        target = self.book.targets[label]
        place = f"#{target.anchor}" if target.anchor else ""
        return place if target.chapter == self.chapter and place else f"{target.chapter}.html{place}"

    def id(self, label: str) -> str:
        return f' id="{label}"' if label else ""
