"""Text out of the reader's own files: folders and files in, documents out, and a count of what was left out.

Nothing is held whole but one piece: a big .txt comes out as pieces of about a megabyte, cut where a paragraph or a
line ends, whose concatenation is the file's text (but for pieces of white space alone); a .jsonl comes out record
by record. A file that cannot be used is never an error by itself (one broken file in a million should not stop a
night's work): it is skipped, and `Report` says how many and why.
"""
import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from stat import S_ISREG

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".txt.gz", ".md.gz", ".jsonl.gz", ".txt.zst", ".md.zst", ".jsonl.zst", ".html",
            ".htm", ".parquet", ".warc", ".warc.gz")
PIECE_CHARACTERS = 2**20    # characters of a text file that become one document
LONGEST_LINE = 2**26        # bytes of one .jsonl line; a longer one is skipped unread
EXAMPLES = 3                # names kept for each reason to skip
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")   # but not white space, form feed, terminal escapes
READ_ERRORS = (OSError, EOFError, zlib.error)                # the last two: a damaged .gz


@dataclass
class Report:
    """What was read, `documents` and their UTF-8 `bytes`; `skipped` {reason: count}; `examples` {reason: names}."""
    documents: int = 0
    bytes: int = 0
    skipped: dict[str, int] = dataclass_field(default_factory=dict)
    examples: dict[str, list[str]] = dataclass_field(default_factory=dict)

    def skip(self, name: str, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        names = self.examples.setdefault(reason, [])
        if len(names) < EXAMPLES:
            names.append(name)

    def __str__(self) -> str:
        read = f"{self.documents} documents, {self.bytes / 1e6:.2f} MB of text"
        if not self.skipped:
            return f"{read}; nothing skipped."
        reasons = [f"{count} {reason} ({', '.join(self.examples[reason])}{', ...' if count > EXAMPLES else ''})"
                   for reason, count in sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))]
        return f"{read}; skipped {sum(self.skipped.values())}: {'; '.join(reasons)}."


class Unusable(Exception):
    """A file or record that cannot be used; the message is the reason counted in the report."""


def read_documents(paths: str | os.PathLike | Iterable[str | os.PathLike], report: Report | None = None,
                   field: str = "text") -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every usable document in `paths`, in a fixed order: as given, folders by sorted names.

    Folders are searched for .txt, .md, .py and .jsonl, the text files and .jsonl also as .gz and .zst, for .html,
    .parquet and .warc(.gz) (those by libraries of the extra `data`, see readers.py); hidden files and folders are
    passed over, links are followed, and no file is read twice. A file named itself may be hidden and have any suffix
    (it is tried as text). Text is UTF-8, or UTF-16 with a byte order mark; newlines become "\\n". A .jsonl line is an
    object whose `field` is the text. A text file that turns undecodable or binary only after its first pieces keeps
    those. `report` is filled while the documents are drawn.

    Raises FileNotFoundError, at once, for a path that does not exist; ValueError, at the end, when nothing was usable.
    """
    return ((name, text) for name, text, _ in read_records(paths, report, field))


def read_records(paths: str | os.PathLike | Iterable[str | os.PathLike], report: Report | None = None,
                 field: str = "text") -> Iterator[tuple[str, str, dict]]:
    """As `read_documents`, but (name, text, record): the .jsonl line's object, or {field: text, "source": name}."""
    paths = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
    return _read_all(paths, Report() if report is None else report, field)


def _read_all(paths: list[Path], report: Report, field: str) -> Iterator[tuple[str, str, dict]]:
    before = report.documents
    for path in find_files(paths, report):
        yield from read_file(path, report, field)
    if report.documents == before:
        raise ValueError(f"no usable text in {', '.join(map(str, paths)) or 'an empty list of paths'}: {report} "
                         f"Expected text (UTF-8) in {', '.join(SUFFIXES)}")


def read_file(path: Path, report: Report, field: str = "text") -> Iterator[tuple[str, str, dict]]:
    """The (name, text, record) of one file; none of a file that cannot be used, `report` says why."""
    for name, text, record in _read_file(path, report, field):
        report.documents += 1
        report.bytes += utf8_length(text)
        yield name, text, record


def utf8_length(text: str) -> int:
    """Its bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def find_files(paths: list[Path], report: Report) -> Iterator[Path]:
    """The files to read, in order, each once, whichever way it is reached."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        candidates = _folder_files(path, report) if path.is_dir() else [path]
        for candidate in candidates:
            try:
                status = candidate.stat()
            except OSError:
                report.skip(str(candidate), "unreadable")
                continue
            if (status.st_dev, status.st_ino) in seen:
                report.skip(str(candidate), "already read under another name")
                continue
            seen.add((status.st_dev, status.st_ino))
            if candidate is not path and not S_ISREG(status.st_mode):   # a pipe would block; named itself, it is meant
                report.skip(str(candidate), "not a regular file")
            else:
                yield candidate


def _folder_files(root: Path, report: Report) -> Iterator[Path]:
    """Readable kinds of file under `root` by sorted names; every folder is entered once, so loops of links end."""
    entered: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        report.skip(str(error.filename), "unreadable")

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unreadable):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.lower().endswith(SUFFIXES):
                yield Path(folder, name)
            else:
                report.skip(str(Path(folder, name)), "of another kind")


def _read_file(path: Path, report: Report, field: str) -> Iterator[tuple[str, str, dict]]:
    try:
        yield from _documents(path, path.name.lower(), report, field)
    except Unusable as error:
        report.skip(str(path), str(error))
    except UnicodeDecodeError:
        report.skip(str(path), "not UTF-8")
    except READ_ERRORS:
        report.skip(str(path), "unreadable")


def _documents(path: Path, name: str, report: Report, field: str) -> Iterator[tuple[str, str, dict]]:
    """The documents of a file, by its suffix."""
    from . import readers
    if name.endswith((".html", ".htm")):
        yield from readers.html(path, field)
    elif name.endswith(".parquet"):
        yield from readers.parquet(path, field, lambda line: _record(line, field))
    elif name.endswith((".warc", ".warc.gz")):
        yield from readers.warc(path, field, report)
    else:
        with _opened(path, name) as raw, io.BufferedReader(raw) as file:
            if name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
                yield from _records(file, str(path), report, field)
            else:
                for piece_name, text in _pieces(file, str(path)):
                    yield piece_name, text, {field: text, "source": piece_name}


def _opened(path: Path, name: str):
    """The bytes of a file, expanded if it is compressed."""
    from . import readers
    if name.endswith(".gz"):
        return readers.Expanding(gzip.open(path, "rb"), path.stat().st_size)
    if name.endswith(".zst"):
        file, damaged = readers.zstd(path)
        return readers.Expanding(file, path.stat().st_size, damaged)
    return open(path, "rb")


def _pieces(file: io.BufferedReader, name: str) -> Iterator[tuple[str, str]]:
    """A text file as documents of about PIECE_CHARACTERS; the second is named "NAME#2"."""
    number, rest = 0, ""
    text_file = io.TextIOWrapper(file, encoding=_encoding(file), errors="strict")
    while fresh := text_file.read(PIECE_CHARACTERS):
        _check_is_text(fresh)
        pending = rest + fresh
        cut = last_break(pending) if len(fresh) == PIECE_CHARACTERS else len(pending)
        piece, rest = pending[:cut], pending[cut:]
        if piece.strip():
            number += 1
            yield (name if number == 1 else f"{name}#{number}"), piece
    if rest.strip():
        number += 1
        yield (name if number == 1 else f"{name}#{number}"), rest
    if number == 0:
        raise Unusable("empty")


def last_break(text: str) -> int:
    """Where best to cut `text`: behind its last paragraph, else its last line, else its last word, else at its end.

    A paragraph's end in the first half is passed over for a line's end in the second, and so on: pieces stay large.
    """
    for mark in ("\n\n", "\n", " "):
        cut = text.rfind(mark, len(text) // 2)
        if cut >= 0:
            return cut + len(mark)
    return len(text)


def _encoding(file: io.BufferedReader) -> str:
    """By the byte order mark: UTF-16, else UTF-8 (with or without one)."""
    head = file.peek(8192)[:8192]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise Unusable("binary")
    return "utf-8-sig"


def _check_is_text(text: str) -> None:
    """A NUL, or control characters by more than one in a hundred, are the marks of a binary file."""
    if "\0" in text or len(CONTROL.findall(text)) > len(text) / 100:
        raise Unusable("binary")


def _records(file: io.BufferedReader, name: str, report: Report, field: str) -> Iterator[tuple[str, str, dict]]:
    """The texts of a .jsonl file, named "NAME:LINE"; bad lines are skipped one by one."""
    number = filled = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        filled += bool(line.strip())
        try:
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                _skip_line(file)
                raise Unusable("line too long")
            if line.strip():
                yield f"{name}:{number}", *_record(line, field)
        except Unusable as error:
            report.skip(f"{name}:{number}", str(error))
    if not filled:
        raise Unusable("empty")


def _record(line: bytes, field: str) -> tuple[str, dict]:
    try:
        record = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
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
    return text, record


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _skip_line(file: io.BufferedReader) -> None:
    while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
        pass
