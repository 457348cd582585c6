"""The parts and their chapters, in the order of contents.txt: `part NAME: Title`, then the names of its chapters.

A chapter is a file of chapters/; those whose names begin with @ are made: @ops is a chapter for each op of the table
(@layernorm that of one), the others are appendices.
"""
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ...ops.table import OPS
from ...progress import Report, tracked
from .appendices import APPENDICES
from .blocks import Block, Chapter, Picture, Spans, Table
from .figures.svg import svg, text
from .listings import listing
from .markup import inline_row, read_chapter
from .numbering import Late
from .op_chapter import op_chapter, reading_order
from .results import NotHere

HERE = Path(__file__).parent
Item = Chapter | tuple[str, Late]


def read_contents(text: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """({part: title}, [(part, chapter's name)])."""
    parts, names, part = {}, [], ""
    for line in text.splitlines():
        if line.startswith("part "):
            part, _, title = line[5:].partition(":")
            parts[part.strip()] = title.strip()
        elif not line.startswith("#"):
            names += [(part.strip(), name) for name in line.split()]
    return parts, names


def chapters(names: list[tuple[str, str]], live: dict | None, progress: Report | None = None) -> Iterator[Item]:
    """The chapters in order. live: fresh measurements, by op."""
    prose = [name for _, name in names if not name.startswith("@")]
    every = [(part, each) for part, name in names
             for each in ([f"@{op}" for op in reading_order()] if name == "@ops" else [name])]
    for part, name in tracked(every, progress):
        if name[1:] in OPS:
            yield op_chapter(name[1:], live, prose)._replace(part=part)
        elif name.startswith("@"):
            if name[1:] not in APPENDICES:
                raise ValueError(f"contents.txt: {name} must be @ops, @ and an op's name, or one of "
                                 f"@{', @'.join(APPENDICES)}")
            yield part, APPENDICES[name[1:]]
        else:
            text = (HERE / "chapters" / f"{name}.md").read_text(encoding="utf-8")
            yield read_chapter(name, text, directive)._replace(part=part)


def directive(kind: str, argument: str, caption: Spans) -> list[Block]:
    """The blocks of {figure:NAME ...} and the like."""
    return DIRECTIVES[kind](argument, caption)


def figure(name: str, caption: Spans) -> list[Block]:
    """A drawing of figures/NAME.py."""
    try:
        drawing = drawn("figures", name).draw()
    except NotHere as error:
        drawing = svg(str(error), 50, text(210, 30, "This figure needs the measurements of a checkout.", "middle"))
    return [Picture(drawing, caption, name.replace("_", "-"))]


def table(name: str, caption: Spans) -> list[Block]:
    """A table of tables/NAME.py; a column whose cells are all numbers is set to the right."""
    try:
        rows = drawn("tables", name).rows()
    except NotHere as error:
        rows = [["not here"], [str(error)]]
    right = [all(looks_like_number(row[i]) for row in rows[1:]) for i in range(len(rows[0]))]
    return [Table([inline_row(*row) for row in rows], right, caption, name.replace("_", "-"))]


def drawn(room: str, name: str) -> Any:
    """A module of figures/ or tables/."""
    try:
        return import_module(f".{room}.{name}", __package__)
    except ModuleNotFoundError:
        raise ValueError(f"{{{room[:-1]}:{name}}}: there is no file {room}/{name}.py") from None


def looks_like_number(cell: str) -> bool:
    return bool(cell) and (cell[0] in "0123456789-−+.<" or cell in ("–", "-", ""))


def exercise(name: str, caption: Spans) -> list[Block]:
    """An exercise of `minillm learn`."""
    from .exercises import learn_exercise
    return [learn_exercise(name)]


DIRECTIVES: dict[str, Callable[[str, Spans], list[Block]]] = {
    "figure": figure, "table": table, "code": lambda argument, caption: listing(argument), "exercise": exercise}
