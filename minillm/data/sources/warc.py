"""The HTML pages of a web archive (WARC, ISO 28500), read within bounds: nothing that a header claims is believed.

A record is a version line, header lines, an empty line, and as many bytes as Content-Length says. In a response these
are an HTTP message (RFC 9112), whose body may be chunked and compressed. A page that is damaged or too large is skipped
and counted; after a header that is no header nobody knows where the next record begins, so the rest of the file is.
"""
import io
import re
import zlib
from collections.abc import Iterator

from .report import Report, Unusable

LARGEST_PAGE = 2 ** 24        # bytes of one HTML page; a larger one is skipped
LARGEST_HEADER = 2 ** 16      # bytes of one record's header lines, and of HTTP's
CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[^\n]{0,256}\n")
GZIP = b"\x1f\x8b"


def warc_pages(file: io.BufferedReader, name: str, report: Report) -> Iterator[tuple[str, str | None, bytes]]:
    """Yield (address, date, page) of every HTML response. Raises Unusable where the archive is damaged."""
    while (header := record_header(file)) is not None:
        address, kind = header.get("warc-target-uri", name), header.get("warc-type")
        if not re.fullmatch("[0-9]{1,18}", header.get("content-length", "")):
            raise Unusable("unreadable")
        length = int(header["content-length"])
        block = file.read(min(length, LARGEST_PAGE + LARGEST_HEADER)) if kind == "response" else b""
        pass_over(file, length - len(block))
        try:
            if kind is None:
                raise Unusable("without WARC-Type")
            if kind == "response" and (page := html_page(block)) is not None:
                yield address, header.get("warc-date"), page
        except Unusable as error:
            report.skip(address, str(error))


def record_header(file: io.BufferedReader) -> dict[str, str] | None:
    """The header of the next record, or None at the end of the file."""
    while (line := file.readline(LARGEST_HEADER)) in (b"\r\n", b"\n"):
        pass
    if not line:
        return None
    if not line.startswith(b"WARC/"):
        raise Unusable("unreadable")
    return header_lines(file)


def header_lines(file: io.BufferedIOBase) -> dict[str, str]:
    """{name in lower case: value} of the lines up to an empty one."""
    found, left = {}, LARGEST_HEADER
    while (line := file.readline(left)) not in (b"\r\n", b"\n"):
        left -= len(line)
        if not line.endswith(b"\n") or not left:
            raise Unusable("unreadable")
        name, _, value = line.decode("utf-8", "replace").partition(":")
        found[name.strip().lower()] = value.strip()
    return found


def pass_over(file: io.BufferedReader, size: int) -> None:
    while size > 0:
        if not (passed := len(file.read(min(size, 2 ** 20)))):
            raise Unusable("unreadable")
        size -= passed


def html_page(block: bytes) -> bytes | None:
    """The body of an HTTP response, decoded; None if it is not HTML."""
    message = io.BytesIO(block)
    if not message.readline(LARGEST_HEADER).startswith(b"HTTP/"):
        return None
    header = header_lines(message)
    if "html" not in header.get("content-type", "").lower():
        return None
    body = message.read()
    if "chunked" in header.get("transfer-encoding", "").lower():
        body = without_chunks(body)
    page = expanded(body, header.get("content-encoding", "").lower())
    if len(page) > LARGEST_PAGE:
        raise Unusable("page too large")
    return page


def without_chunks(body: bytes) -> bytes:
    """The chunks joined; a body that has none as it is: many archives store it joined, under the header as it was."""
    parts, at = [], 0
    while match := CHUNK.match(body, at):
        at = match.end() + int(match[1], 16) + 2                            # behind the chunk stands a line's end
        parts.append(body[match.end():at - 2])
    return b"".join(parts) if parts else body


def expanded(body: bytes, coding: str) -> bytes:
    """The page in a compressed body, at most one byte more than LARGEST_PAGE; one stored expanded as it is."""
    if coding in ("", "identity") or coding in ("gzip", "x-gzip") and not body.startswith(GZIP):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Unusable("of another content encoding")
    for window in (47, -15):                               # by its header gzip or zlib; deflate without one
        try:
            return zlib.decompressobj(window).decompress(body, LARGEST_PAGE + 1)
        except zlib.error:
            continue
    raise Unusable("unreadable")
