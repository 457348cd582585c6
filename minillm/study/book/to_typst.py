"""Blocks as Typst, the language of the typesetter: one text, which needs no other file."""
import json
import re
from itertools import groupby
from pathlib import Path

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
)
from .index import IndexMarks, index_lines
from .numbering import APPENDICES, Book, anchor, section_anchor

TEMPLATE = Path(__file__).with_name("template.typ")
SPECIAL = re.compile(r"[\\#$*_`<>@~\[\]=\-+/{}^|;]")
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII",
         "XVIII", "XIX", "XX")


FRONT = """#title-page()
#contents()
#pagebreak(to: "odd")
#counter(page).update(1)
"""


def typst_of(book: Book) -> str:
    """The whole book."""
    marks = IndexMarks()
    parts = [f"#let book-title = {quoted(book.title)}", f"#let book-version = {quoted(book.version)}",
             TEMPLATE.read_text(encoding="utf-8"), FRONT]
    groups = groupby(book.chapters, key=lambda chapter: chapter.part)
    for number, (part, chapters) in zip(ROMAN, groups):
        title = content(escape(book.parts[part]))
        first, *others = chapters
        if others:
            parts.append(f"#part({quoted(number)}, {title})\n")
        of = "" if others else f", of: (number: {quoted(number)}, title: {title})"
        parts += [chapter_of(first, book, marks, of), *(chapter_of(chapter, book, marks) for chapter in others)]
    return "\n".join(parts)


def chapter_of(chapter: Chapter, book: Book, marks: IndexMarks, of: str = "") -> str:
    """A chapter. of: the part that it is all of, as an argument."""
    word = "Appendix" if chapter.part == APPENDICES else "Chapter"
    writer = Writer(book, marks, chapter.name)
    opening = (f"#chapter({quoted(word)}, {quoted(chapter.number)}, {content(writer.text(chapter.title))}, "
               f"{quoted(chapter.name)}{of})\n")
    return opening + "\n".join(map(writer.block, chapter.blocks)) + "\n"


class Writer:
    """Writes the blocks of a chapter."""

    def __init__(self, book: Book, marks: IndexMarks, chapter: str) -> None:
        self.book, self.marks, self.chapter = book, marks, chapter

    def block(self, block: Block) -> str:
        """Any block, followed by an empty line."""
        return getattr(self, type(block).__name__.lower())(block) + "\n"

    def heading(self, block: Heading) -> str:
        words = content(self.text(block.spans))
        return f"#section({block.level}, {quoted(block.number)}, {words}, {quoted(section_anchor(block))})\n"

    def paragraph(self, block: Paragraph) -> str:
        text = re.sub(r"^(\d+)([.)])", r"\1\\\2", self.text(block.spans))
        alone = ", alone: true" if len(block.spans) == 1 else ""
        return f"#entry({quoted(block.label)}{alone})[{text}]\n" if block.label else text + "\n"

    def items(self, block: Items) -> str:
        return "\n".join(f"{'+' if block.numbered else '-'} {self.text(item)}" for item in block.items) + "\n"

    def table(self, block: Table) -> str:
        cells = ", ".join(content(self.text(cell)) for row in block.rows for cell in row)
        right = "".join(f"{str(right).lower()}, " for right in block.right)
        words = content(self.text(block.caption))
        return f"#tabular({quoted(block.number)}, {words}, {quoted(anchor(block))}, ({right}), {cells})\n"

    def code(self, block: Code) -> str:
        first = "none" if block.first is None else block.first
        words = content(self.text(block.caption)) if block.caption else "none"
        return f"#listing({first}, {quoted(block.language)}, {quoted(block.text)}, {words})\n"

    def formula(self, block: Formula) -> str:
        parts = ", ".join(f"[$ {formula.typst(span.value)} $]" if span.kind == "math" else
                          f"equation-words[{self.span(span)}]" for span in block.spans)
        return f"#equation({quoted(block.number)}, {quoted(anchor(block))}, {parts})\n"

    def box(self, block: Box) -> str:
        return f"#box-of({content(escape(block.title))}, {content(self.text(block.spans))})\n"

    def exercise(self, block: Exercise) -> str:
        number = f"#link(<answer-{block.number}>)[{block.number}]"
        return f"#exercise([{number}#metadata(none)<exercise-{block.number}>], {content(self.text(block.question))})\n"

    def picture(self, block: Picture) -> str:
        image = f"image(bytes({quoted(block.svg)}), format: \"svg\")"
        words = content(self.text(block.caption))
        return f"#picture({quoted(block.number)}, {image}, {words}, {quoted(anchor(block))})\n"

    def index(self, block: Index) -> str:
        lines = []
        for line in index_lines(self.marks):
            ids = ", ".join(quoted(mark.id) for mark in line.marks)
            pages = f", #pages({ids})" if ids else ""
            lines.append(f"#index-line({line.level}, {quoted(line.letter)})[{escape(line.word)}{pages}]")
        return "#index-columns[\n" + "\n".join(lines) + "\n]\n"

    def text(self, spans: Spans) -> str:
        """Spans."""
        return "".join(map(self.span, spans))

    def span(self, span: Span) -> str:
        kind, value = span
        if kind == "text":
            return escape(value)
        if kind == "code":
            return f"#code({quoted(value)});"
        if kind == "math":
            return f"${formula.typst(value)}$"
        if kind in ("emphasis", "strong"):
            return f"#{'emph' if kind == 'emphasis' else 'strong'}[{self.text(value)}];"
        if kind == "link":
            return f"#link({quoted(value[1])})[{self.text(value[0])}];"
        if kind == "ref":
            return f"#link(<{value}>)[{escape(self.book.targets[value].words)}];"
        if kind == "see":
            return f"#link(<{value[0]}>)[{escape(value[1])}];"
        if kind == "cite":
            sources = "\\; ".join(f"#link(<source-{key}>)[{escape(self.book.sources[key].short())}]" for key in value)
            return f"({sources})"
        return f"#metadata(none)<{self.marks.add(value, self.chapter)}>"


def escape(text: str) -> str:
    """Text without meaning to Typst."""
    return SPECIAL.sub(r"\\\g<0>", text)


def content(text: str) -> str:
    return f"[{text}]"


def quoted(text: str) -> str:
    """A string of Typst's: of JSON's escapes it knows quotes, backslashes, newlines and tabs."""
    return json.dumps(text, ensure_ascii=False)
