"""The documentation in a Debian package (.deb): prose that is free to use, with the licence that comes with it.

A .deb is an `ar` archive (deb(5)): "!<arch>", and members with a header of 60 bytes each, of which data.tar, which is
compressed, holds the files. Of these are read texts and pages under usr/share/doc, no changelogs, and the copyright
file there, whose "License:" lines (Debian's machine-readable form, DEP-5) go into each record.
"""
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from .report import Report, Unusable
from .warc import LARGEST_PAGE

MAGIC, HEADER = b"!<arch>\n", 60
LICENSE = re.compile(r"^License:[ \t]*(\S.*)", re.MULTILINE)
PROSE = re.compile(r"\.(txt|text|md|rst|html?)$|^(README|FAQ|HOWTO|INTRO)[^.]*$", re.IGNORECASE)
NO_PROSE = re.compile(r"/_sources/|/(changelog|genindex|py-modindex|search|copyright|ChangeLog)[^/]*$")
UNSTATED = "see the package's copyright file"
Expand = Callable[[Any, int], Any]


def deb_files(file: io.BufferedReader, name: str, report: Report, expand: Expand,
              zstd: Callable) -> Iterator[tuple[str, bytes, str]]:
    """Yield (path, contents, licences) of every file of prose. Raises Unusable for a file that is no package.

    expand(file, compressed bytes): the same file, which raises Unusable where it becomes far larger. zstd: opens one.
    """
    licences = UNSTATED
    for path, member, read in tar_members(file, expand, zstd):     # once for the licence, which may come last
        if re.fullmatch("usr/share/doc/[^/]+/copyright", path) and member.size <= LARGEST_PAGE:
            licences = licences_in(read().decode("utf-8", "replace"))
    for path, member, read in tar_members(file, expand, zstd):
        try:
            if is_prose(path):
                if member.size > LARGEST_PAGE:
                    raise Unusable("page too large")
                yield path, unzipped(path, read(), expand), licences
        except (Unusable, OSError, EOFError, ValueError) as error:
            report.skip(f"{name}/{path}", str(error) if isinstance(error, Unusable) else "unreadable")


def is_prose(path: str) -> bool:
    """Whether a file of a package is text to read."""
    name = PurePosixPath(path).name.removesuffix(".gz")
    return (path.startswith("usr/share/doc/") and bool(PROSE.search(name))
            and not NO_PROSE.search("/" + path))


def licences_in(copyright: str) -> str:
    """'Expat, GPL-2+': the short names of a copyright file in Debian's machine-readable form."""
    return ", ".join(sorted({line.strip() for line in LICENSE.findall(copyright)})) or UNSTATED


def unzipped(path: str, data: bytes, expand: Expand) -> bytes:
    return expand(gzip.GzipFile(fileobj=io.BytesIO(data)), len(data)).read() if path.endswith(".gz") else data


def tar_members(file: io.BufferedReader, expand: Expand,
                zstd: Callable) -> Iterator[tuple[str, tarfile.TarInfo, Callable[[], bytes]]]:
    """(path, header, how to read it) of each plain file in the package's data."""
    kind, size = to_data(file)
    openers: dict[str, Any] = {"": lambda f: f, ".gz": gzip.open, ".xz": lzma.open, ".zst": zstd}
    if kind not in openers:
        raise Unusable("unreadable")
    raw = openers[kind](io.BytesIO(file.read(size)))
    try:
        with tarfile.open(fileobj=io.BufferedReader(expand(raw, size)), mode="r|") as tar:
            for member in tar:
                if member.isfile():
                    yield member.name.removeprefix("./"), member, partial(contents, tar, member)
    except (tarfile.TarError, lzma.LZMAError, ValueError, OverflowError):
        raise Unusable("unreadable") from None


def contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None                                 # it is a plain file
    return file.read()


def to_data(file: io.BufferedReader) -> tuple[str, int]:
    """Leave the file where the package's data.tar begins; its suffix and its size in bytes."""
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise Unusable("unreadable")
    while len(header := file.read(HEADER)) == HEADER and re.fullmatch(rb"\d{1,12} *", header[48:58]):
        name, size = header[:16].decode("latin-1").strip(" /"), int(header[48:58])
        if name.startswith("data.tar"):
            return name.removeprefix("data.tar"), size
        file.seek(size + size % 2, io.SEEK_CUR)
    raise Unusable("unreadable")
