"""The text of a chapter, in a small Markdown, as blocks: the format of chapters/*.md.

    # Title                        the first line
    ## Section {#label}            a label can be pointed to with {ref:label}
    - item        1. item          lists of one level
    | a | b |                      tables; a line `Table: caption {#label}` below gives a number
    ```python                      code
    $$ formula $$ {#label}         an equation in plain notation; of lines between $$ and $$ each is one
    > Pitfall: text                a box
    ? question                     an exercise; the next block, `! answer`, goes to the appendix
    {figure:NAME caption}          {table:NAME caption}  {code:path:function}  {exercise:NAME}  alone in a block

Within text: *emphasis*, **strong**, `code`, $formula$, [words](address), {ref:label}, {cite:key}, {index:term} which
prints nothing, {term:word} which prints it, too. A backslash takes the meaning of the next character away.
"""
import re
from collections.abc import Callable, Iterator

from .blocks import Block, Box, Chapter, Code, Exercise, Formula, Heading, Items, Paragraph, Span, Spans, Table

LABEL = r"[a-z0-9-]+"
LABELLED = re.compile(rf"(.*?)\s*\{{#({LABEL})\}}\s*", re.DOTALL)
SPAN = re.compile(r"\\(?P<escaped>.)|`(?P<code>[^`]+)`|\$(?P<math>[^$]+)\$|\*\*(?P<strong>.+?)\*\*"
                  r"|\*(?P<emphasis>[^*]+)\*|\[(?P<words>[^]]+)\]\((?P<address>[^)]+)\)|\{(?P<kind>ref|cite|index|term):(?P<value>[^}]+)\}",
                  re.DOTALL)
DIRECTIVE = re.compile(r"\{(figure|table|code|exercise):(\S+?)(?:\s+(.*?))?\}\s*", re.DOTALL)
QUOTES = re.compile(r"`[^`]*`|\$[^$]*\$|\\.|\]\([^)]*\)|\{\w+:[^}]*\}|[\"']", re.DOTALL)
OPENS = ("## ", "### ", "? ", "! ", "{figure:", "{table:", "{code:", "{exercise:")
Directive = Callable[[str, str, Spans], list[Block]]            # (kind, argument, caption) -> blocks


def read_chapter(name: str, text: str, directive: Directive) -> Chapter:
    """A chapter file. Raises ValueError that names the chapter and the line for what is not in the format."""
    first, _, rest = text.partition("\n")
    if not first.startswith("# "):
        raise ValueError(f"chapter {name} must begin with '# Title': got {first[:40]!r}")
    try:
        return Chapter(name, inline(first[2:].strip()), list(read_blocks(rest, directive)))
    except ValueError as error:
        raise ValueError(f"chapter {name}: {error}") from None


def read_blocks(text: str, directive: Directive) -> Iterator[Block]:
    """The blocks of a text."""
    pieces = list(split_blocks(text))
    for place, piece in enumerate(pieces):
        if piece.startswith("! "):
            continue                                        # an answer, which its question has taken
        following = pieces[place + 1] if place + 1 < len(pieces) else ""
        if piece.startswith("? "):
            if not following.startswith("! "):
                raise ValueError(f"a question needs an answer, a block that begins with '! ': {piece[:50]!r}")
            yield Exercise(inline(joined(piece[2:])), [Paragraph(inline(joined(following[2:])))])
        elif found := DIRECTIVE.fullmatch(piece):
            yield from directive(found[1], found[2], inline(joined(found[3] or "")))
        else:
            yield from read_block(piece)


def split_blocks(text: str) -> Iterator[str]:
    """Pieces between blank lines; a fence of code and a group of equations keep theirs. Headings, questions, answers
    and figures need no blank line before them, and a heading is one line."""
    piece, fence = [], ""
    for line in [*text.splitlines(), ""]:
        opens = not fence and (line.startswith((*OPENS, "```")) or line.strip() == "$$")
        if piece and not fence and (opens or not line.strip() or piece[0].startswith("#")):
            yield "\n".join(piece)
            piece = []
        closes = fence and line.startswith(fence)
        if closes or opens:
            fence = "" if closes else next((mark for mark in ("```", "$$") if line.startswith(mark)), "")
        if line.strip() or fence:
            piece.append(line)
        if closes:
            yield "\n".join(piece)
            piece = []
    if fence:
        raise ValueError(f"{fence} is opened and not closed")


def read_block(piece: str) -> list[Block]:
    """One piece that is not a directive."""
    if piece.startswith("#"):
        marks, _, title = piece.partition(" ")
        if marks not in ("##", "###"):
            raise ValueError(f"a heading must begin with '## ' or '### ': got {piece[:40]!r}")
        title, label = labelled(joined(title))
        return [Heading(len(marks), inline(title), label)]
    if piece.startswith("```"):
        language, *lines = piece.split("\n")
        return [Code("\n".join(lines[:-1]), language[3:].strip() or "text")]
    if piece.startswith("$$"):
        return read_formulas(piece)
    if piece.startswith("|"):
        return [read_table(piece.split("\n"))]
    if piece.startswith("> "):
        title, _, words = joined(re.sub(r"^> ?", "", piece, flags=re.MULTILINE)).partition(":")
        return [Box(title, inline(words.strip()))]
    if re.match(r"- |1\. ", piece):
        items = re.split(r"^(?:- |\d+\. )", piece, flags=re.MULTILINE)[1:]
        return [Items(piece[0] != "-", [inline(joined(item)) for item in items])]
    return [Paragraph(inline(joined(piece)))]


def read_formulas(piece: str) -> list[Block]:
    """`$$ a = b $$ {#label}`, or a line for each equation between two lines of $$."""
    if "\n" in piece:
        lines = [labelled(line) for line in piece.split("\n")[1:-1] if line.strip()]
        return [Formula([Span("math", text.strip())], label) for text, label in lines]
    text, label = labelled(piece)
    if not text.endswith("$$") or len(text) < 5:
        raise ValueError(f"an equation must stand between $$ and $$: got {piece[:50]!r}")
    return [Formula([Span("math", text[2:-2].strip())], label)]


def read_table(lines: list[str]) -> Table:
    """Lines of cells between bars, the second a rule; perhaps a caption at the end."""
    caption, label = "", ""
    for place, line in enumerate(lines):
        if line.startswith("Table:"):
            caption, label = labelled(joined("\n".join(lines[place:]).removeprefix("Table:").strip()))
            lines = lines[:place]
            break
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
    if len(cells) < 3 or not all(re.fullmatch(r":?-+:?", cell) for cell in cells[1]):
        raise ValueError(f"a table needs a head, a rule |---|---:| and rows: got {lines[0][:50]!r}")
    if len({len(row) for row in cells}) > 1:
        raise ValueError(f"the rows of a table must have as many cells as its head: {lines[0][:50]!r}")
    return Table([[inline(cell.replace("\\|", "|")) for cell in row] for row in [cells[0], *cells[2:]]],
                 [rule.endswith(":") for rule in cells[1]], inline(caption), label)


def labelled(text: str) -> tuple[str, str]:
    """(the text, its label or "")."""
    found = LABELLED.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")


def joined(text: str) -> str:
    """Lines as one."""
    return " ".join(text.split())


def inline(text: str) -> Spans:
    """Text with marks as spans."""
    return list(spans_of(curly(text)))


def inline_row(*cells: str) -> list[Spans]:
    """A row of a table."""
    return [inline(cell) for cell in cells]


def spans_of(text: str) -> Iterator[Span]:
    """Spans of text whose quotes are typographic."""
    end = 0
    words = ""
    for found in SPAN.finditer(text):
        words += text[end:found.start()]
        end = found.end()
        if found["escaped"]:
            words += found["escaped"]
            continue
        if words:
            yield Span("text", words)
            words = ""
        yield from marked(found)
    if words + text[end:]:
        yield Span("text", words + text[end:])


def marked(found: re.Match) -> list[Span]:
    """The spans of one mark."""
    if found["words"]:
        return [Span("link", (list(spans_of(found["words"])), found["address"]))]
    if found["kind"] == "term":
        return [Span("emphasis", [Span("text", found["value"])]), Span("index", found["value"])]
    if found["kind"] == "cite":
        return [Span("cite", [key.strip() for key in found["value"].split(",")])]
    if found["kind"] == "ref":
        return [Span("ref", found["value"].strip().replace("_", "-"))]              # of a figure by its file's name
    if found["kind"]:
        return [Span(found["kind"], found["value"].strip())]
    kind = found.lastgroup or ""
    return [Span(kind, found[kind] if kind in ("code", "math") else list(spans_of(found[kind])))]


def curly(text: str) -> str:
    """Straight quotes of prose as typographic ones."""
    def quote(found: re.Match) -> str:
        if found[0] not in "\"'":
            return found[0]
        opens = found.start() == 0 or text[found.start() - 1] in " \n([*\u2014"
        if found.start() and text[found.start() - 1] == "*":           # after emphasis, or before it?
            opens = text[:found.start()].rstrip("*")[-1:] in ("", " ", "(")
        return {'"': "\u201c\u201d", "'": "\u2018\u2019"}[found[0]][not opens]
    return QUOTES.sub(quote, text)
