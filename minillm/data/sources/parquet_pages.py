"""How large the columns of a Parquet file are by the headers of their pages, before a library believes the footer.

A footer may say anything, and pyarrow 26 ends the whole process at some that are damaged. Footer and page headers are
structs of Thrift's compact protocol (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md) with the fields of
FileMetaData and PageHeader in parquet.thrift; a page's sizes are those by which it is decompressed.
"""
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

ROW_GROUPS, COLUMNS, META_DATA = 4, 1, 3                                # fields from the footer to a column
KIND, PATH, VALUES_IN_ALL, LENGTH, DATA_START, DICTIONARY_START = 1, 3, 5, 7, 9, 11
UNCOMPRESSED, COMPRESSED, DATA, DATA_V2, VALUES = 2, 3, 5, 8, 1         # fields of a page's header, and of its parts
BOOLEANS, BYTE, INTEGERS, DOUBLE, BINARY, LISTS, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
DEEPEST = 12
BYTE_ARRAY = 6              # a kind of column: strings


class Chunk(NamedTuple):
    """A column within a row group: "tags.list.element", where its pages are, how many values the footer claims."""

    path: str
    kind: int
    start: int
    length: int
    values: int


def column_chunks(file: io.BufferedReader) -> list[Chunk]:
    """By the footer, which ends with its length and "PAR1". Raises ValueError if it is damaged or chunks overlap."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 8))
    end = file.read()
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > size - 8:
        raise ValueError("no Parquet footer")
    file.seek(size - 8 - length)
    try:
        footer = CompactReader(file, length).struct()
        found = [chunk_of(column[META_DATA]) for group in footer[ROW_GROUPS] for column in group[COLUMNS]]
        if any(min(chunk[1:]) < 0 for chunk in found) or sum(chunk.length for chunk in found) > size:
            raise KeyError
    except (EOFError, LookupError, TypeError, AttributeError, ValueError):
        raise ValueError("damaged Parquet footer") from None
    return found


def chunk_of(meta: dict) -> Chunk:
    start = min(filter(None, (meta.get(DICTIONARY_START), meta[DATA_START])))
    path = b".".join(meta[PATH]).decode("utf-8", "replace")
    return Chunk(path, meta[KIND], start, meta[LENGTH], meta[VALUES_IN_ALL])


def page_sizes(file: io.BufferedReader, start: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield (bytes when decompressed, values) of the pages in a part of a file. Raises ValueError if it is damaged."""
    left = length
    while left > 0:
        file.seek(start + length - left)
        reader = CompactReader(file, left)
        try:
            header = reader.struct()
            size, values = header[UNCOMPRESSED], (header.get(DATA) or header.get(DATA_V2) or {VALUES: 0})[VALUES]
            left = reader.left - header[COMPRESSED]
            if min(size, values, header[COMPRESSED]) < 0:
                raise KeyError
        except (EOFError, LookupError, TypeError, AttributeError):
            raise ValueError("damaged page header") from None
        yield size, values


class CompactReader:
    """Reads one struct of at most `left` bytes. Raises EOFError where it goes on behind that, or is none."""

    def __init__(self, file: io.BufferedReader, left: int):
        self.file, self.left = file, left

    def struct(self, depth: int = 0) -> dict:
        """{number of a field: its value}; that of a boolean or double is None."""
        fields, number = dict[int, Any](), 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            fields[number] = self.value(head & 15, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        if kind == STRUCT and depth < DEEPEST:
            return self.struct(depth + 1)
        if kind == BYTE:
            return self.byte()
        if kind in INTEGERS:
            return self.integer()
        if kind in LISTS and depth < DEEPEST:
            head = self.byte()
            count, kind = head >> 4 if head >> 4 < 15 else self.varint(), head & 15
            return [self.byte() if kind in BOOLEANS else self.value(kind, depth + 1) for _ in range(count)]
        if kind == BINARY:
            return self.read(self.varint())
        if kind not in (*BOOLEANS, DOUBLE):
            raise EOFError
        return self.read(8) and None if kind == DOUBLE else None

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0 or len(data := self.file.read(size)) < size:
            raise EOFError
        return data

    def byte(self) -> int:
        return self.read(1)[0]

    def varint(self) -> int:
        """Seven bits a byte, the lowest first; the eighth says that more follow."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise EOFError

    def integer(self) -> int:
        """Zigzag: 0, -1, 1, -2, ..."""
        number = self.varint()
        return number >> 1 ^ -(number & 1)
