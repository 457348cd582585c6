"""Web archives: what is read from a whole one, and that a damaged or hostile one costs little and kills no run."""
import gzip
import io
import tracemalloc
import zlib

import pytest

from minillm.data.sources import warc
from minillm.data.sources.files import read_records
from minillm.data.sources.report import Report, Unusable

PAGE = b"<p>five is a text</p>"


def record(block, kind=b"response", length=None, uri=b"http://x.example/"):
    return (b"WARC/1.0\r\n" + (b"WARC-Type: " + kind + b"\r\n" if kind else b"") + b"WARC-Target-URI: " + uri
            + b"\r\nWARC-Date: 2020-01-01T00:00:00Z\r\nContent-Length: " + (length or b"%d" % len(block)) + b"\r\n\r\n"
            + block + b"\r\n\r\n")


def response(body=PAGE, *headers, kind=b"text/html"):
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Type: " + kind, *headers, b"", body])


def pages(data):
    """(pages, reasons of skips, whether the archive ends with damage)."""
    report, found, damaged = Report(), [], False
    try:
        for _, _, page in warc.warc_pages(io.BufferedReader(io.BytesIO(data)), "a.warc", report):
            found.append(page)
    except Unusable:
        damaged = True
    return found, report.skipped, damaged


FINE = record(response())
CHUNKED = b"5\r\n<p>fi\r\n10;x=y\r\nve is a text</p>\r\n0\r\n\r\n"


@pytest.mark.parametrize("block", [
    response(), response(PAGE, b"Content-Encoding: identity"), response(CHUNKED, b"Transfer-Encoding: chunked"),
    response(PAGE, b"Transfer-Encoding: chunked"), response(gzip.compress(PAGE), b"Content-Encoding: gzip"),
    response(PAGE, b"content-encoding: GZIP"), response(zlib.compress(PAGE), b"Content-Encoding: deflate"),
    response(zlib.compress(PAGE)[2:-4], b"Content-Encoding: deflate")])
def test_a_body_is_decoded(block):
    assert pages(record(block)) == ([PAGE], {}, False)


@pytest.mark.parametrize("other", [record(b"", b"warcinfo"), record(b"GET / HTTP/1.1\r\n\r\n", b"request"),
                                   record(response(b"\x89PNG", kind=b"image/png")), record(b"dns: a", b"response")])
def test_other_records_are_passed_over(other):
    assert pages(FINE + other + FINE) == ([PAGE, PAGE], {}, False)


@pytest.mark.parametrize("broken, reason", [
    (record(response(), b""), "without WARC-Type"), (record(response(b"", b"X" * 2 ** 17)), "unreadable"),
    (record(response(b"br", b"Content-Encoding: br")), "of another content encoding"),
    (record(response(b"\x1f\x8bnot", b"Content-Encoding: gzip")), "unreadable"),
    (record(response(b"a" * (warc.LARGEST_PAGE + 1))), "page too large")])
def test_a_broken_record_is_skipped_and_the_next_one_read(broken, reason):
    assert pages(FINE + broken + FINE) == ([PAGE, PAGE], {reason: 1}, False)


@pytest.mark.parametrize("broken", [
    record(response(), length=b"99999999999999999999999"), record(response(), length=b"1000000000000"),
    record(response(), length=b"-1"), record(response(), length=b"\xb2"), b"WARC/1.0\r\n\r\n", b"no record\r\n",
    b"WARC/1.0\r\nWARC-Type: " + b"a" * 2 ** 20, b"WARC/1.0\r\n" + b"a: b\r\n" * 2 ** 18])
def test_behind_a_broken_header_nothing_is_read(broken):
    assert pages(FINE + broken + FINE) == ([PAGE], {}, True)


def test_gzip_in_gzip_stays_small():
    """A quarter of a megabyte that claims a quarter of a gigabyte."""
    body = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(body.compress(bytes(2 ** 24)) for _ in range(16)), body.flush()])
    data = record(response(bomb, b"Content-Encoding: gzip"))
    tracemalloc.start()
    try:
        assert pages(data) == ([], {"page too large": 1}, False)
        assert tracemalloc.get_traced_memory()[1] < 6 * warc.LARGEST_PAGE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end, pack", [("warc", bytes), ("warc.gz", gzip.compress)])
def test_a_file_becomes_documents(tmp_path, end, pack):
    pytest.importorskip("resiliparse")
    path, report = tmp_path / f"a.{end}", Report()
    path.write_bytes(pack(FINE) + pack(record(response(b"<p> </p>"))) + pack(FINE[:-20]))
    (found,) = read_records(path, report)
    assert found == ("http://x.example/", "five is a text", {
        "text": "five is a text", "url": "http://x.example/", "date": "2020-01-01T00:00:00Z"})
    assert report.skipped == {"without main text": 1, "unreadable": 1}


def test_as_warcio_writes_and_reads_it():
    writing, reading = pytest.importorskip("warcio.warcwriter"), pytest.importorskip("warcio.archiveiterator")
    from warcio.statusandheaders import StatusAndHeaders
    out, bodies = io.BytesIO(), [b"<p>%d</p>" % i * i for i in range(9)]
    writer = writing.WARCWriter(out, gzip=False)
    for body in bodies:
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.0")
        writer.write_record(writer.create_warc_record("http://x.example/", "response", io.BytesIO(body),
                                                      http_headers=headers))
    theirs = [item.content_stream().read() for item in reading.ArchiveIterator(io.BytesIO(out.getvalue()))]
    assert pages(out.getvalue()) == (theirs, {}, False) and theirs == bodies
