"""The docstring of an op as blocks: its sentences as paragraphs, its formulas as numbered equations.

The docstring stays the only place where a derivation is written. Lines that are indented hold formulas, several with
wide blanks between; sentences may hold some, too, after wide blanks. A source's arXiv number leads to the bibliography.
"""
import re
from collections.abc import Iterator
from inspect import cleandoc

from . import formula
from .blocks import Block, Code, Formula, Paragraph, Span, Spans
from .markup import curly
from .references import ARXIV, by_arxiv

MARK = re.compile(rf"`(?P<code>[^`]+)`|{ARXIV.pattern.replace('(', '(?P<arxiv>', 1)}")


def blocks_of(docstring: str, label: str) -> list[Block]:
    """Paragraphs and equations; an equation is called LABEL-NAME where it gives NAME first, else LABEL-LINE."""
    found: list[Block] = []
    for number, lines in paragraphs(cleandoc(docstring)):
        if lines[0].startswith("    "):
            found += list(equations(docstring, number, lines, label))
        else:
            found.append(Paragraph(prose(docstring, number, lines)))
    return named(found, label)


def named(blocks: list[Block], label: str) -> list[Block]:
    """Equations labelled by what they give, such as layernorm-eq-dx."""
    seen: set[str] = set()
    for place, block in enumerate(blocks):
        if isinstance(block, Formula):
            text = next(span.value for span in block.spans if span.kind == "math")
            given = re.match(r"(\w+)(\[[^]]*\])? *(=|<-|\+=)", text)
            name = given[1].replace("_", "-").lower() if given else ""
            if name and name not in seen:
                seen.add(name)
                blocks[place] = block._replace(label=f"{label}-{name}")
    return blocks


def paragraphs(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of each paragraph; an indented one ends where the indentation does."""
    piece: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if piece and (not line.strip() or line.startswith("    ") != piece[0].startswith("    ")):
            yield number - len(piece), piece
            piece = []
        if line.strip():
            piece.append(line)


def equations(docstring: str, number: int, lines: list[str], label: str) -> Iterator[Block]:
    """Each line of an indented block as an equation with the words around it; a block without formulas is set as it
    stands."""
    found = {line: [f for f in formula.formulas_of(docstring) if f.line == line]
             for line in range(number, number + len(lines))}
    if not any(found.values()):
        yield Code("\n".join(line[4:] for line in lines), "text")
        return
    for line, text in enumerate(lines, number):
        if not found[line]:
            yield Paragraph([Span("text", "")] + words(text.strip()))
            continue
        yield Formula(joined(text, found[line]), f"{label}-{line}")


def joined(text: str, found: list[formula.Formula]) -> Spans:
    """Formulas and the words around them, without the commas between."""
    spans, end = [], 0
    for piece in [*found, None]:
        between = text[end:piece.first if piece else len(text)].strip(" .,;")
        spans += words(between) if between else []
        if piece:
            spans.append(Span("math", piece.text))
            end = piece.last
    return spans


def prose(docstring: str, number: int, lines: list[str]) -> Spans:
    """Sentences, and the formulas that stand in them after wide blanks."""
    spans: Spans = []
    for line, text in enumerate(lines, number):
        end = 0
        for piece in formula.formulas_in_prose(docstring, text, line):
            spans += [*words(text[end:piece.first]), Span("math", piece.text)]
            end = piece.last
        spans += words(text[end:] + " ")
    return spans


def words(text: str) -> Spans:
    """Text with its code and sources marked."""
    text, spans, end = curly(re.sub(r"\s+", " ", text)).replace("->", "→"), [], 0
    for found in MARK.finditer(text):
        spans.append(Span("text", text[end:found.start()]))
        end = found.end()
        if found["code"]:
            spans.append(Span("code", found["code"]))
        elif found["arxiv"] in by_arxiv():
            spans.append(Span("see", (f"source-{by_arxiv()[found['arxiv']]}", found[0])))
        else:
            spans.append(Span("text", found[0]))
    spans.append(Span("text", text[end:]))
    return [span for span in spans if span.value]
