"""Documents of HTML, Parquet, WARC and compressed files; damaged ones and bombs are skipped."""
import gzip

import pytest

from minillm.data.sources import containers
from minillm.data.sources.files import read_documents
from minillm.data.sources.report import Report


def read(path):
    report = Report()
    try:
        return dict(read_documents([path], report)), report
    except ValueError:
        return {}, report


def test_web_pages_become_their_text(tmp_path):
    pytest.importorskip("resiliparse")
    page = tmp_path / "page.html"
    page.write_bytes("<html><head><meta charset='latin-1'><script>x()</script></head>"
                     "<body><nav>Home</nav><main><h1>Käse</h1>"
                     "<p>Ein Satz über Käse.</p></main></body></html>".encode("latin-1"))
    (text,) = read(page)[0].values()
    assert "Ein Satz über Käse." in text and "x()" not in text and "Home" not in text


def test_parquet_zstd_and_warc(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet
    zstandard, warcio = pytest.importorskip("zstandard"), pytest.importorskip("warcio.warcwriter")
    from io import BytesIO

    from warcio.statusandheaders import StatusAndHeaders
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two", ""], "id": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "three"}\n{"text": "four"}\n'))
    with open(tmp_path / "c.warc.gz", "wb") as file:
        writer = warcio.WARCWriter(file)
        for kind, body in (("text/html", b"<p>five is a text</p>"), ("image/png", b"\x89PNG")):
            headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.0")
            record = writer.create_warc_record("http://x.example/", "response", BytesIO(body), http_headers=headers)
            writer.write_record(record)
    found, report = read(tmp_path)
    assert sorted(found.values()) == ["five is a text", "four", "one", "three", "two"]
    assert report.skipped == {"empty": 1} or report.documents == 5


def test_damaged_containers_are_skipped_and_counted(tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("a.parquet", "b.warc", "c.txt.zst", "d.txt.gz"):
        (tmp_path / name).write_bytes(b"not what it says\n" * 10)
    found, report = read(tmp_path)
    assert not found and sum(report.skipped.values()) == 4, report


def test_a_bomb_is_skipped_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "LEAST", 2 ** 20)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"words and more words\n" * 400_000))
    (tmp_path / "fine.txt.gz").write_bytes(gzip.compress(b"One small text."))
    found, report = read(tmp_path)
    assert report.skipped == {"expands to more than 200 times its size": 1}
    assert str(tmp_path / "fine.txt.gz") in found
