"""Numbers of chapters, sections, equations, figures, tables and exercises, and where a reference leads."""
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from . import formula
from .blocks import Block, Chapter, Exercise, Formula, Heading, Paragraph, Picture, Span, Table
from .references import Source

WORDS = {Formula: "Equation", Picture: "Figure", Table: "Table", Exercise: "Exercise"}
NUMBERED = (Formula, Picture, Table, Exercise)
APPENDICES = "appendices"               # the part whose chapters have letters


class Target(NamedTuple):
    """Where a label is: the words of a reference to it, the chapter, and the place in it ("" for its beginning)."""
    words: str
    chapter: str
    anchor: str


class Book(NamedTuple):
    """All that a book is made of. parts: {name: title}."""
    title: str
    version: str
    parts: dict[str, str]
    chapters: list[Chapter]
    targets: dict[str, Target]
    sources: dict[str, Source]


Late = Callable[[list[Chapter]], Chapter]       # a chapter that is made of those before it


def number_chapters(chapters: Iterable[Chapter | tuple[str, Late]]) -> tuple[list[Chapter], dict[str, Target]]:
    """Chapters with numbers, and where labels lead; (part, function) makes a chapter of those before it. Raises
    ValueError for a label that two places have."""
    done, targets, count = [], {}, Counter()
    for item in chapters:
        chapter = item if isinstance(item, Chapter) else item[1](done)._replace(part=item[0])
        count[chapter.part == APPENDICES] += 1
        number = count[chapter.part == APPENDICES]
        letters = chr(ord("A") + number - 1) if chapter.part == APPENDICES else str(number)
        chapter = chapter._replace(number=letters)
        word = "Appendix" if letters.isalpha() else "Chapter"
        add(targets, chapter.name, Target(f"{word} {letters}", chapter.name, ""))
        done.append(chapter._replace(blocks=number_blocks(chapter, targets)))
    return done, targets


def number_blocks(chapter: Chapter, targets: dict[str, Target]) -> list[Block]:
    """The blocks of a chapter with their numbers."""
    count, blocks = Counter(), []
    for block in chapter.blocks:
        words = ""
        if isinstance(block, Heading):
            block = block._replace(number=section_number(chapter.number, block.level, count))
            words = f"Section {block.number}"
        elif isinstance(block, NUMBERED) and not (isinstance(block, Table) and not block.caption):
            count[type(block)] += 1
            block = block._replace(number=f"{chapter.number}.{count[type(block)]}")
            words = f"{WORDS[type(block)]} " + (f"({block.number})" if isinstance(block, Formula) else block.number)
        label = f"exercise-{block.number}" if isinstance(block, Exercise) else getattr(block, "label", "")
        if label and (words or isinstance(block, Paragraph)):
            add(targets, label, Target(words, chapter.name, label))
        blocks.append(block)
    return blocks


def check_spans(book: Book) -> None:
    """Raise ValueError that names every reference and citation that leads nowhere, and every formula that is none."""
    wrong = [f"{chapter.name}: {problem}" for chapter in book.chapters for span in spans_in(chapter)
             for problem in problems(span, book)]
    if wrong:
        raise ValueError("the book's chapters hold what cannot be set:\n" + "\n".join(wrong))


def problems(span: Span, book: Book) -> list[str]:
    """What is wrong with a span."""
    if span.kind == "math":
        return formula.problems(span.value)
    if span.kind == "cite":
        return [f"there is no source {key!r}" for key in span.value if key not in book.sources]
    labels = {"ref": [span.value], "see": span.value[:1]}.get(span.kind, [])
    return [f"there is no label {label!r}" for label in labels if label not in book.targets]


def spans_in(thing: Any) -> Iterator[Span]:
    """All spans within a chapter, a block, a list or a span."""
    if isinstance(thing, Span):
        yield thing
    if isinstance(thing, (list, tuple)):
        for part in thing:
            yield from spans_in(part)


def section_number(chapter: str, level: int, count: Counter) -> str:
    """4.2 of a section, 4.2.1 of a subsection."""
    count["section" if level == 2 else "subsection"] += 1
    if level == 2:
        count["subsection"] = 0
        return f"{chapter}.{count['section']}"
    return f"{chapter}.{count['section']}.{count['subsection']}"


def add(targets: dict[str, Target], label: str, target: Target) -> None:
    if label in targets:
        raise ValueError(f"two places have the label {label!r}: in {targets[label].chapter} and in {target.chapter}")
    targets[label] = target


def anchor(block: Formula | Picture | Table) -> str:
    """The label that a numbered thing has in the text."""
    return block.label or f"{type(block).__name__.lower()}-{block.number}"


def section_anchor(block: Heading) -> str:
    return block.label or f"section-{block.number}"
