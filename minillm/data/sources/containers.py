"""Documents in container formats: HTML, Parquet, WARC, Zstandard, most by a library of the extra `data`.

    .html .htm        main text or all of it, by resiliparse (html.py)
    .parquet          a row is a document, by pyarrow
    .warc .warc.gz    web archives: HTML responses become text (warc.py)
    .deb              Debian packages: their documentation, and its licences (deb.py)
    .zst              a compressed .txt, .md or .jsonl, by zstandard

A missing library is a reason to skip a file, like any other, so that the report says so. What a file of some size may
become is bounded: a document by LONGEST_LINE or LARGEST_PAGE, the whole of it by LEAST and RATIO.
"""
import io
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ...storage.atomic import printable
from .deb import deb_files
from .html import html_text
from .parquet_pages import BYTE_ARRAY, Chunk, column_chunks, page_sizes
from .plain_text import LONGEST_LINE, text_and_record, text_pieces
from .report import NEEDS_EXTRA, Report, Unusable
from .warc import LARGEST_PAGE, warc_pages

LEAST, RATIO = 2 ** 26, 200   # a compressed file may expand to the larger of these: bytes, times its size
BOMB = f"expands to more than {RATIO} times its size"


def library(name: str) -> Any:
    """A module of the extra `data`. Raises Unusable where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise Unusable(NEEDS_EXTRA) from None


def html(path: Path, field: str, all_text: bool) -> Iterator[tuple[str, str, dict]]:
    """The text of a page as one document."""
    if path.stat().st_size > LARGEST_PAGE:
        raise Unusable("page too large")
    text = html_text(path.read_bytes(), all_text)
    yield printable(path), text, {field: text, "source": printable(path)}


def warc(file: Any, name: str, field: str, report: Report, all_text: bool) -> Iterator[tuple[str, str, dict]]:
    """The HTML responses of an archive, named by their addresses."""
    for address, date, page in warc_pages(file, name, report):
        try:
            text = html_text(page, all_text)
        except Unusable as error:
            report.skip(address, str(error))
            continue
        yield address, text, {field: text, "url": address, "date": date}


def deb(file: Any, name: str, field: str, report: Report, all_text: bool) -> Iterator[tuple[str, str, dict]]:
    """The documentation of a package, its pages by their main text."""
    for path, data, licence in deb_files(file, name, report, Expanding, zstd_stream):
        try:
            is_page = path.removesuffix(".gz").endswith((".html", ".htm"))
            pieces = [("", html_text(data, all_text))] if is_page else list(text_pieces(buffered(data), ""))
        except Unusable as error:
            report.skip(f"{name}/{path}", str(error))
            continue
        except UnicodeDecodeError:
            report.skip(f"{name}/{path}", "not UTF-8")
            continue
        for piece, text in pieces:
            yield f"{name}/{path}{piece}", text, {field: text, "source": f"{name}/{path}{piece}", "license": licence}


def buffered(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))              # type: ignore[arg-type]


def parquet(path: Path, field: str, report: Report, whole: bool) -> Iterator[tuple[str, str, dict]]:
    """The rows of a table, named "NAME:ROW", each checked as a line of a .jsonl file is. whole: all of its columns."""
    for number, line in parquet_lines(path, field, whole):
        try:
            if line is None:
                raise Unusable("line too long")
            yield f"{printable(path)}:{number}", *text_and_record(line, field)
        except Unusable as error:
            report.skip(f"{printable(path)}:{number}", str(error))


def parquet_lines(path: Path, field: str | None = None, whole: bool = True) -> Iterator[tuple[int, bytes | None]]:
    """The rows of a table, counted from 1, as lines of a .jsonl file; None for one that is too long. field: a column
    that must be there, the only one that is read unless `whole`.

    Strings stay in the dictionaries that a file holds them in, where a megabyte may stand for many, until their rows
    are drawn.
    """
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    left = max(LEAST, RATIO * path.stat().st_size)
    try:
        with parquet.ParquetFile(path) as table:
            if field is not None and field not in table.schema_arrow.names:
                raise Unusable(f"without a text field {field!r}")
            chunks = checked_chunks(path, [column.path for column in table.schema], None if whole else field, left)
        strings = sorted({chunk.path for chunk in chunks if chunk.kind == BYTE_ARRAY})
        with parquet.ParquetFile(path, read_dictionary=strings) as table:
            batches = table.iter_batches(batch_size=256, columns=None if whole else [field])
            for number, row in enumerate((row for batch in batches for row in rows_of(batch)), 1):
                line = None if row is None else json.dumps(row, default=str).encode()
                left -= len(line or b"")
                if left < 0:
                    raise Unusable(BOMB)
                yield number, line
    except UnicodeDecodeError:
        raise
    except (arrow.ArrowException, ValueError, OverflowError, RecursionError):
        raise Unusable("unreadable") from None


def checked_chunks(path: Path, columns: list[str], field: str | None, most: int) -> list[Chunk]:
    """The columns in each row group. Raises Unusable where that one, or any, is too large: Arrow may hold it whole."""
    with open(path, "rb") as file:
        chunks = column_chunks(file)
        if [chunk.path for chunk in chunks] != columns * (len(chunks) // len(columns)):
            raise Unusable("unreadable")
        for chunk in chunks:
            if field in (None, chunk.path):
                total = 8 * chunk.values
                for size, values in page_sizes(file, chunk.start, chunk.length):
                    total += size + 8 * values
                    if total > most:
                        raise Unusable(BOMB)
    return chunks


def rows_of(batch: Any) -> Iterator[dict | None]:
    """The rows of an Arrow batch, as many at a time as LONGEST_LINE bytes; None for one that is longer."""
    if sum(map(bytes_of, batch.columns)) <= LONGEST_LINE:
        yield from batch.to_pylist()
    elif len(batch) == 1:
        yield None
    else:
        yield from rows_of(batch.slice(0, len(batch) // 2))
        yield from rows_of(batch.slice(len(batch) // 2))


def bytes_of(array: Any) -> int:
    """Bytes of the values of an Arrow array, each string of a dictionary counted as often as it is named."""
    types, compute = library("pyarrow.types"), library("pyarrow.compute")
    if types.is_dictionary(array.type):
        return compute.sum(compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    if types.is_map(array.type):                                    # its keys and items are those of the whole column
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(bytes_of(part.slice(start, end - start)) for part in (array.keys, array.items))
    if types.is_struct(array.type):
        return sum(map(bytes_of, array.flatten()))
    if types.is_nested(array.type):
        return bytes_of(array.flatten())
    return array.nbytes


def zstd(path: Path) -> tuple[Any, type[Exception]]:
    """(file object over the decompressed bytes, the exception type of a damaged file)."""
    return zstd_stream(open(path, "rb")), library("zstandard").ZstdError


def zstd_stream(file: Any) -> Any:
    """A file object over the decompressed bytes of another."""
    return library("zstandard").ZstdDecompressor().stream_reader(file, read_across_frames=True)


class Expanding(io.RawIOBase):
    """A raw file object that raises Unusable for a bomb: far more bytes than its compressed file has."""

    def __init__(self, file: Any, compressed: int, damaged: type[Exception] | tuple = ()) -> None:
        self.file, self.left, self.damaged = file, max(LEAST, RATIO * compressed), damaged

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read(len(buffer))
        except self.damaged:
            raise Unusable("unreadable") from None
        buffer[:len(data)] = data
        self.left -= len(data)
        if self.left < 0:
            raise Unusable(BOMB)
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()
