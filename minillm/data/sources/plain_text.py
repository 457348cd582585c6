"""Documents of plain text files and JSON Lines, decoded piece by piece and line by line.

A large text file becomes pieces of about a megabyte, cut where a paragraph or a line ends, whose concatenation is the
file's text (but for pieces of white space alone); a .jsonl file yields a document a line. Nothing is held whole.
"""
import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from ..batches import encodable
from .report import Report, Unusable

PIECE_CHARACTERS = 2**20    # characters of a text file that become one document
LONGEST_LINE = 2**26        # bytes of one .jsonl line; a longer one is skipped unread
DEEPEST = 600               # levels of objects and lists in a .jsonl line; far more would end a writer's recursion
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")   # but not white space, form feed, terminal escapes


def text_pieces(file: io.BufferedReader, name: str) -> Iterator[tuple[str, str]]:
    """A text file as (name, text) of about PIECE_CHARACTERS each; the second is named "NAME#2"."""
    number = 0
    for piece in _cut(io.TextIOWrapper(file, encoding=_encoding(file), errors="strict")):
        if piece.strip():
            number += 1
            yield (name if number == 1 else f"{name}#{number}"), piece
    if number == 0:
        raise Unusable("empty")


def _cut(text_file: io.TextIOWrapper) -> Iterator[str]:
    rest = ""
    while fresh := text_file.read(PIECE_CHARACTERS):
        _check_is_text(fresh)
        pending = rest + fresh
        size = len(pending)
        cut = last_break(pending, size // 2, size) if len(fresh) == PIECE_CHARACTERS else size
        yield pending[:cut]
        rest = pending[cut:]
    yield rest


def last_break(text: str, start: int, end: int) -> int:
    """Where best to cut in text[start:end]: behind the last paragraph, else the last line, the last word, at its end.

    A paragraph's end before `start` is passed over for a line's end behind it, and so on: pieces stay large.
    """
    for mark in ("\n\n", "\n", " "):
        cut = text.rfind(mark, start, end)
        if cut >= 0:
            return cut + len(mark)
    return end


def json_lines(file: io.BufferedReader, name: str, report: Report, field: str) -> Iterator[tuple[str, str, dict]]:
    """The (name, text, record) of a .jsonl file, named "NAME:LINE"; bad lines are skipped one by one."""
    number = 0
    for number, line in numbered_lines(file):
        try:
            if line is None:
                raise Unusable("line too long")
            yield f"{name}:{number}", *text_and_record(line, field)
        except Unusable as error:
            report.skip(f"{name}:{number}", str(error))
    if not number:
        raise Unusable("empty")


def numbered_lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not empty, counted from 1; None for one longer than LONGEST_LINE, which is not held."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif line.strip():
            yield number, line


def text_and_record(line: bytes, field: str) -> tuple[str, dict]:
    """The text under `field` of a JSON object, newlines as "\\n", and the object, in which NaN becomes null.

    Raises Unusable with the reason to skip it.
    """
    try:
        record = json.loads(line.removeprefix(codecs.BOM_UTF8).decode(), parse_constant=lambda _: None)
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None
    except (ValueError, RecursionError):
        raise Unusable("bad JSON") from None
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise Unusable(f"without a text field {field!r}")
    if not text.strip():
        raise Unusable("empty")
    if not encodable(text):          # JSON may spell half a surrogate pair; no UTF-8 text holds one
        raise Unusable("not UTF-8")
    _check_is_text(text)
    if line.count(b"[") + line.count(b"{") > DEEPEST and is_deep(record):
        raise Unusable("nested too deep")
    if "\r" in text:
        record[field] = text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, record


def is_deep(value: Any) -> bool:
    """Whether objects and lists are nested deeper than DEEPEST."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        level = [item for part in level if isinstance(part, (dict, list))
                 for item in (part.values() if isinstance(part, dict) else part)]
        depth += 1
    return depth > DEEPEST


def utf8_length(text: str) -> int:
    """Length of the text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _encoding(file: io.BufferedReader) -> str:
    """By the byte order mark: UTF-16, else UTF-8 (with or without one)."""
    head = file.peek(8192)[:8192]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise Unusable("binary")
    return "utf-8-sig"


def _check_is_text(text: str) -> None:
    """A NUL, or more than one control character in a hundred, marks a binary file."""
    if "\0" in text or len(CONTROL.findall(text)) > len(text) / 100:
        raise Unusable("binary")
