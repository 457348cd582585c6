"""Documents of Parquet and compressed files; damaged ones and bombs are skipped."""
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


def test_parquet_and_zstd(tmp_path):
    pyarrow, zstandard = pytest.importorskip("pyarrow"), pytest.importorskip("zstandard")
    import pyarrow.parquet
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two", ""], "id": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "three"}\n{"text": "four"}\n'))
    found, report = read(tmp_path)
    assert sorted(found.values()) == ["four", "one", "three", "two"] and report.skipped == {"empty": 1}


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
