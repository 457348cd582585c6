"""Every reader of data/sources: whatever a file holds, its documents, or a reason to skip it; and cleaning them."""

import gzip
import io
import json
import zlib

from minillm.data.cleaning.document import CleanOptions, clean_batch
from minillm.data.sources.files import read_records
from minillm.data.sources.report import Report

from . import mutations as m
from .targets import Missing, target

PAGE = (
    b"<!doctype html><html><head><meta charset='utf-8'><title>t</title><script>x</script></head><body><nav>menu</nav>"
    b"<main><h1>Head</h1><p>A paragraph of text with <b>bold</b> words &amp; more.</p><ul><li>one<li>two</ul>"
    b"<table><tr><td>1<td>2</table></main><!-- c --></body></html>"
)
TEXT = (
    "A text of two paragraphs, with naïve words.\n\nAnd the second one: call +44 20 7946 0958, or a@example.org.\n" * 5
).encode()
RECORD = {"text": "a text\r\nof two lines", "id": 3, "meta": {"tags": ["x", None, 1.5]}}


def documents(path, all_text):
    """All that is read, which must be text and JSON; that nothing is usable is the one error of a file."""
    report = Report()
    for name, text, record in read_records([path], report, "text", all_text):
        text.encode(), name.encode(), json.dumps(record, allow_nan=False)
        assert "\r" not in text and text.strip(), text


def reader(name, changed, suffixes):
    def make(folder):
        paths = [folder / f"a{suffix}" for suffix in suffixes]

        def draw(rng):
            path, all_text = rng.choice(paths), rng.random() < 0.5
            path.write_bytes(packed(rng, changed(rng), path.suffix))
            return path.stat().st_size, lambda: documents(path, all_text)

        return draw

    make.__name__ = name
    return target(ValueError)(make)


def packed(rng, data: bytes, suffix: str) -> bytes:
    if suffix in (".gz", ".zst"):
        data = compress(data, suffix) * rng.choice((1, 1, 1, 3))
        return m.bytes_(rng, data) if rng.random() < 0.5 else data
    return data


def compress(data, suffix):
    if suffix == ".gz":
        return gzip.compress(data, 1)
    try:
        import zstandard
    except ImportError:
        return data
    return zstandard.compress(data)


def changed_text(rng):
    text = m.text(rng, 200) * rng.choice((1, 1, 50))
    data = text.encode(rng.choice(("utf-8", "utf-16", "utf-16-be", "utf-8-sig")), "surrogatepass")
    return m.bytes_(rng, rng.choice((TEXT, data)))


def changed_lines(rng):
    lines = [m.json_text(rng, m.json_(rng, RECORD) if rng.random() < 0.6 else RECORD) for _ in range(rng.randint(1, 5))]
    return rng.choice((b"\n", b"\r\n", b"\r", b"")).join(lines)


def changed_page(rng):
    """With tags doubled, nested, cut, and attributes without end; as bytes of any encoding."""
    data = PAGE
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(data))
        piece = rng.choice(
            (
                b"<div>" * rng.choice((1, 100, 3000)),
                b"</div></p>" * 50,
                b"<table><tr>" * 200,
                b"<!--",
                b"<![CDATA[",
                b"<script>",
                b"<a " + b"x=1 " * 2000,
                b"&#x110000;&#0;&#xd800;&nosuch;",
                b"<p \0>",
                b"<svg><math>" * 99,
                b"<meta charset=utf-7>",
                b"<select><template>",
                m.text(rng).encode("utf-8", "surrogatepass"),
            )
        )
        data = data[:start] + piece + data[start:]
    return m.bytes_(rng, data) if rng.random() < 0.6 else data


def changed_archive(rng):
    records = []
    for _ in range(rng.randint(1, 4)):
        body, headers = changed_page(rng), [b"Content-Type: text/html"]
        coding = rng.choice(("", "gzip", "deflate", "br", "chunked"))
        if coding == "chunked":
            headers.append(b"Transfer-Encoding: chunked")
            body = b"%x;e\r\n" % rng.choice((len(body), len(body), 0, 2**31)) + body + b"\r\n0\r\n\r\n"
        elif coding:
            headers.append(b"Content-Encoding: " + coding.encode())
            body = zlib.compress(body) if coding == "deflate" else gzip.compress(body)
        block = b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"", body])
        length = rng.choice((len(block), len(block), len(block), 0, len(block) + 5, 2**40, -1))
        lines = [
            b"WARC/1.0",
            b"WARC-Type: response",
            b"WARC-Target-URI: http://x.example/",
            b"Content-Length: %d" % length,
        ]
        rng.shuffle(lines[1:])
        records.append(b"\r\n".join([*lines[: rng.choice((4, 4, 4, 3, 2))], b"", block, b"", b""]))
    data = b"".join(records)
    return m.bytes_(rng, data) if rng.random() < 0.5 else data


text_files = reader("text_files", changed_text, (".txt", ".md", ".py", ".txt.gz", ".md.zst", ".bin"))
json_lines = reader("json_lines", changed_lines, (".jsonl", ".jsonl.gz", ".jsonl.zst"))
web_pages = reader("web_pages", changed_page, (".html", ".htm"))
web_archives = reader("web_archives", changed_archive, (".warc", ".warc.gz"))


@target(ValueError)
def parquet(folder):
    try:
        import pyarrow
        from pyarrow import parquet as files
    except ImportError as error:
        raise Missing("pyarrow") from error
    tables = [
        {
            "text": ["one", "two", None, "a" * 300] * 30,
            "n": [1.5, None, 2, 3] * 30,
            "tags": [["x"], [], None, ["y", "z"]] * 30,
            "m": [{"a": 1, "b": [None]}] * 120,
        },
        {"text": ["x"]},
        {"other": [1]},
    ]
    valid = []
    for columns in tables:
        for compression in ("none", "zstd", "gzip"):
            sink = io.BytesIO()
            files.write_table(
                pyarrow.table(columns),
                sink,
                compression=compression,
                row_group_size=50,
                data_page_version=("1.0", "2.0")[len(valid) % 2],
            )
            valid.append(sink.getvalue())
    path = folder / "a.parquet"

    def draw(rng):
        data = rng.choice(valid)
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        if rng.random() < 0.5:  # the footer alone: it says where all is
            data = data[:footer] + m.bytes_(rng, data[footer:-8]) + data[-8:]
        else:
            data = m.bytes_(rng, data[:footer]) + data[footer:] if rng.random() < 0.5 else m.bytes_(rng, data)
        path.write_bytes(data)
        return len(data), lambda: documents(path, False)

    return draw


@target(ValueError)
def cleaning(folder):
    """Filters, masks and scores of any text."""
    options = [CleanOptions(), CleanOptions(families=())]

    def draw(rng):
        text = (TEXT.decode() + m.text(rng, 100)) * rng.choice((1, 1, 20))
        return len(text.encode("utf-8", "surrogatepass")), lambda: clean_batch([text], rng.choice(options))

    return draw
