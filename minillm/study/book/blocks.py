"""What a chapter is made of: plain records, of which the PDF and the HTML are made.

Text is a list of spans. A span's kind is one of

    text, code, math        value: the words, the code, a formula in plain notation
    emphasis, strong        value: spans
    link                    value: (spans, address)
    ref, cite, index        value: a label; keys of sources; an index entry, which prints nothing
    see                     value: (label, words), words that lead to a label
"""
from typing import Any, NamedTuple, TypeAlias


class Span(NamedTuple):
    """A piece of text."""
    kind: str
    value: Any


Spans: TypeAlias = list[Span]


class Heading(NamedTuple):
    """A section (level 2) or a subsection (level 3)."""
    level: int
    spans: Spans
    label: str = ""
    number: str = ""


class Paragraph(NamedTuple):
    """label: what may be linked to, where it has no number."""
    spans: Spans
    label: str = ""


class Items(NamedTuple):
    """A list, numbered or not."""
    numbered: bool
    items: list[Spans]


class Table(NamedTuple):
    """The first row is the head. right: which columns hold numbers. One without a caption has no number."""
    rows: list[list[Spans]]
    right: list[bool]
    caption: Spans
    label: str = ""
    number: str = ""


class Code(NamedTuple):
    """A listing. first: the number of its first line in its file, None where lines have no numbers."""
    text: str
    language: str
    first: int | None = None
    caption: Spans = []
    label: str = ""


class Formula(NamedTuple):
    """A displayed line with a number: one or more equations (math), and words before, between and after them."""
    spans: Spans
    label: str = ""
    number: str = ""


class Box(NamedTuple):
    """A remark in a frame, such as a pitfall."""
    title: str
    spans: Spans


class Exercise(NamedTuple):
    """A question; its answer stands in the appendix."""
    question: Spans
    answer: list[Any]           # blocks
    label: str = ""
    number: str = ""


class Picture(NamedTuple):
    """svg: the whole text of an SVG."""
    svg: str
    caption: Spans
    label: str = ""
    number: str = ""


class Index(NamedTuple):
    """The index stands here."""


Block: TypeAlias = Heading | Paragraph | Items | Table | Code | Formula | Box | Exercise | Picture | Index


class Chapter(NamedTuple):
    """name: its label, and the name of its HTML page."""
    name: str
    title: Spans
    blocks: list[Block]
    part: str = ""
    number: str = ""


def plain(spans: Spans) -> str:
    """The words of spans, for a title or an alternative text."""
    return "".join(plain(s.value) if s.kind in ("emphasis", "strong") else plain(s.value[0]) if s.kind == "link" else
                   s.value if s.kind in ("text", "code", "math") else "" for s in spans)
