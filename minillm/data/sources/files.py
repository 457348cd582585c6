"""Documents of the user's own files: folders and files in, (name, text) out, and a report of what was skipped.

A file that cannot be used is no error by itself, since one broken file in a million should not stop a run of hours: it
is skipped, and `Report` says how many and why.
"""
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any

from ...storage.atomic import printable
from ...storage.lock import written_by_us
from . import containers
from .plain_text import json_lines, text_pieces, utf8_length
from .report import Report, Unusable

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".txt.gz", ".md.gz", ".jsonl.gz", ".txt.zst", ".md.zst", ".jsonl.zst",
            ".html", ".htm", ".parquet", ".warc", ".warc.gz", ".deb")
READ_ERRORS = (OSError, EOFError, zlib.error)                # the last two: a damaged .gz


def read_documents(paths: str | os.PathLike | Iterable[str | os.PathLike], report: Report | None = None,
                   field: str = "text", all_text: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every usable document in `paths`, in a fixed order: as given, folders by sorted names.

    Folders are searched for .txt, .md, .py and .jsonl, the text files and .jsonl also as .gz and .zst, for .html,
    .parquet, .warc(.gz) and .deb (those by libraries of the extra `data`, see containers.py); hidden files and folders
    and the directories of runs are passed over, links are followed, and no file is read twice. A file named itself may
    be hidden and have any suffix (it is tried as text). Text is UTF-8, or UTF-16 with a byte order mark; newlines are
    "\\n". A .jsonl line is an object whose `field` is the text. all_text: of a web page, not its main text alone. A
    text file that turns undecodable or binary only after its first pieces keeps those. `report` is filled while the
    documents are drawn.

    Raises FileNotFoundError, at once, for a path that does not exist; ValueError, at the end, when nothing was usable.
    """
    return ((name, text) for name, text, _ in read_records(paths, report, field, all_text, whole=False))


def read_records(paths: str | os.PathLike | Iterable[str | os.PathLike], report: Report | None = None,
                 field: str = "text", all_text: bool = False, whole: bool = True) -> Iterator[tuple[str, str, dict]]:
    """As `read_documents`, but (name, text, record): the .jsonl line's object, or {field: text, "source": name}.

    whole: False promises to look at the text alone, so that nothing else need be decoded.
    """
    found = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    for path in found:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
    return _read_all(found, Report() if report is None else report, field, all_text, whole)


def _read_all(paths: list[Path], report: Report, field: str, all_text: bool,
              whole: bool) -> Iterator[tuple[str, str, dict]]:
    before = report.documents
    for path in find_files(paths, report):
        yield from read_file(path, report, field, all_text, whole)
    if report.documents == before:
        raise ValueError(f"no usable text in {', '.join(map(str, paths)) or 'an empty list of paths'}: {report} "
                         f"Expected text (UTF-8) in {', '.join(SUFFIXES)}")


def read_file(path: Path, report: Report, field: str = "text", all_text: bool = False,
              whole: bool = True) -> Iterator[tuple[str, str, dict]]:
    """The (name, text, record) of one file; none of a file that cannot be used, `report` says why."""
    try:
        for name, text, record in _documents(path, path.name.lower(), report, field, all_text, whole):
            report.documents += 1
            report.bytes += utf8_length(text)
            yield name, text, record
    except Unusable as error:
        report.skip(str(path), str(error))
    except UnicodeDecodeError:
        report.skip(str(path), "not UTF-8")
    except READ_ERRORS:
        report.skip(str(path), "unreadable")


def _documents(path: Path, name: str, report: Report, field: str, all_text: bool,
               whole: bool) -> Iterator[tuple[str, str, dict]]:
    """The documents of a file, by its suffix."""
    if name.endswith((".html", ".htm")):
        yield from containers.html(path, field, all_text)
    elif name.endswith(".parquet"):
        yield from containers.parquet(path, field, report, whole)
    else:
        with opened(path, name) as raw, io.BufferedReader(raw) as file:
            if name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
                yield from json_lines(file, printable(path), report, field)
            elif name.endswith((".warc", ".warc.gz")):
                yield from containers.warc(file, printable(path), field, report, all_text)
            elif name.endswith(".deb"):
                yield from containers.deb(file, printable(path), field, report, all_text)
            else:
                for piece_name, text in text_pieces(file, printable(path)):
                    yield piece_name, text, {field: text, "source": piece_name}


def opened(path: Path, name: str) -> Any:
    """The bytes of a file, expanded if it is compressed."""
    if name.endswith(".gz"):
        return containers.Expanding(gzip.open(path, "rb"), path.stat().st_size)
    if name.endswith(".zst"):
        file, damaged = containers.zstd(path)
        return containers.Expanding(file, path.stat().st_size, damaged)
    return open(path, "rb", buffering=0)


def find_files(paths: list[Path], report: Report) -> Iterator[Path]:
    """The files to read, in order, each once, whichever path or link leads to it."""
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
        for name in [name for name in subfolders if written_by_us(Path(folder, name))]:
            report.skip(str(Path(folder, name)), "directory of a run")
            subfolders.remove(name)
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.lower().endswith(SUFFIXES):
                yield Path(folder, name)
            else:
                report.skip(str(Path(folder, name)), "of another kind")
