"""Documents in container formats: HTML, Parquet, WARC, Zstandard. Each needs a library of the extra `data`.

    .html .htm        main text by resiliparse (Bevendorff et al. 2018), which also finds the encoding
    .parquet          a row is a document, by pyarrow
    .warc .warc.gz    web archives (ISO 28500) by warcio: HTML responses become text
    .zst              a compressed .txt, .md or .jsonl, by zstandard

A missing library is a reason to skip a file, like any other, so that the report says so.
"""
import io
import json
from collections.abc import Iterator
from importlib import import_module

from .plain_text import text_and_record
from .report import Unusable

LARGEST_PAGE = 2 ** 26        # bytes of one HTML page; a larger one is skipped
LEAST, RATIO = 2 ** 26, 200   # a compressed file may expand to the larger of these: bytes, times its size


def library(name: str):
    """A module of the extra `data`. Raises Unusable where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise Unusable("of a kind that needs pip install 'minillm[data]'") from None


def html_text(data: bytes) -> str:
    """The main text of a page. Raises Unusable if there is none."""
    encoding, extract = library("resiliparse.parse.encoding"), library("resiliparse.extract.html2text")
    text = extract.extract_plain_text(encoding.bytes_to_str(data, encoding.detect_encoding(data)), main_content=True,
                                      alt_texts=False)
    if not text.strip():
        raise Unusable("without main text")
    return text


def html(path, field: str) -> Iterator[tuple[str, str, dict]]:
    """The main text of a page as one document."""
    if path.stat().st_size > LARGEST_PAGE:
        raise Unusable("page too large")
    text = html_text(path.read_bytes())
    yield str(path), text, {field: text, "source": str(path)}


def parquet(path, field: str) -> Iterator[tuple[str, str, dict]]:
    """The rows of a table, named "NAME:ROW", each checked as a line of a .jsonl file is."""
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    try:
        table = parquet.ParquetFile(path)
        if field not in table.schema_arrow.names:
            raise Unusable(f"without a text field {field!r}")
        number = 0
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", *text_and_record(json.dumps(row, default=str).encode(), field)
    except arrow.ArrowException:
        raise Unusable("unreadable") from None


def warc(path, field: str, report) -> Iterator[tuple[str, str, dict]]:
    """The HTML responses of an archive, named by their addresses."""
    iterator = library("warcio.archiveiterator")
    exceptions = library("warcio.exceptions")
    with open(path, "rb") as file:
        try:
            for item in iterator.ArchiveIterator(file):
                kind = item.http_headers.get_header("Content-Type", "") if item.http_headers else ""
                if item.rec_type != "response" or "html" not in kind:
                    continue
                address = item.rec_headers.get_header("WARC-Target-URI", str(path))
                try:
                    text = html_text(item.content_stream().read(LARGEST_PAGE))
                except Unusable as error:
                    report.skip(address, str(error))
                    continue
                yield address, text, {field: text, "url": address, "date": item.rec_headers.get_header("WARC-Date")}
        except exceptions.ArchiveLoadFailed:
            raise Unusable("unreadable") from None


def zstd(path):
    """(file object over the decompressed bytes, the exception type of a damaged file)."""
    zstandard = library("zstandard")
    return zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True), zstandard.ZstdError


class Expanding(io.RawIOBase):
    """A raw file object that raises Unusable for a bomb: far more bytes than its compressed file has."""

    def __init__(self, file, compressed, damaged=()):
        self.file, self.left, self.damaged = file, max(LEAST, RATIO * compressed), damaged

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            data = self.file.read(len(buffer))
        except self.damaged:
            raise Unusable("unreadable") from None
        buffer[:len(data)] = data
        self.left -= len(data)
        if self.left < 0:
            raise Unusable(f"expands to more than {RATIO} times its size")
        return len(data)

    def close(self):
        self.file.close()
        super().close()
