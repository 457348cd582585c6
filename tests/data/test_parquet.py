"""Parquet files become documents; small ones that stand for gigabytes are skipped before they fill the memory."""
import pytest

from minillm.data.sources import containers
from minillm.data.sources.files import read_documents, read_records
from minillm.data.sources.report import Report

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def read(path, columns, reader=read_records, **options):
    """(what is read of a table with these columns, what was skipped)."""
    report = Report()
    parquet.write_table(pa.table(columns), path, **options)
    try:
        return list(reader(path, report)), report.skipped
    except ValueError:
        return [], report.skipped


def repeated(text, count):
    """A column that holds a text once and names it often."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def test_rows_become_records(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"text": ["one\r\ntwo", "", None, "three"], "id": [1, 2, 3, 4], "tags": [["x", "y"], [], None, ["z"]],
               "score": [float("nan"), 1.5, None, float("inf")], "raw": [b"\xff"] * 4,
               "meta": [{"a": "q", "b": [1, 2]}, None, None, {"a": None, "b": []}],
               "map": pa.array([[("k", "v")], [], None, []], pa.map_(pa.string(), pa.string()))}
    found, skipped = read(path, columns)
    assert found == [
        (f"{path}:1", "one\ntwo", {"text": "one\ntwo", "id": 1, "tags": ["x", "y"], "score": None, "raw": "b'\\xff'",
                                   "meta": {"a": "q", "b": [1, 2]}, "map": [["k", "v"]]}),
        (f"{path}:4", "three", {"text": "three", "id": 4, "tags": ["z"], "score": None, "raw": "b'\\xff'",
                                "meta": {"a": None, "b": []}, "map": []})]
    assert skipped == {"empty": 1, "without a text field 'text'": 1}


def test_only_the_text_is_decoded_where_only_that_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "LEAST", 2 ** 20)
    columns = {"text": ["fine"], "pad": ["a" * 2 ** 22]}
    options = {"compression": "zstd", "use_dictionary": False}
    assert read(tmp_path / "a.parquet", columns, read_documents, **options)[0] == [(f"{tmp_path}/a.parquet:1", "fine")]
    assert read(tmp_path / "a.parquet", columns, **options) == ([], {containers.BOMB: 1})


@pytest.mark.parametrize("columns, reason", [
    ({"text": ["a" * 2 ** 23]}, "expands"), ({"text": ["a"], "ids": [[7] * 2 ** 20]}, "expands"),
    ({"text": repeated("a" * 2 ** 20, 9999)}, "expands"),
    ({"text": ["a"], "tags": pa.ListArray.from_arrays(pa.array([0, 9999], pa.int32()), repeated("a" * 2 ** 20, 9999))},
     "line too long")])
def test_bombs(tmp_path, monkeypatch, columns, reason):
    monkeypatch.setattr(containers, "LEAST", 2 ** 22)
    before = pa.default_memory_pool().max_memory()
    found, skipped = read(tmp_path / "a.parquet", columns, compression="zstd", store_schema=False)       # plain strings
    assert len(found) < 4 and [reason in key for key in skipped] == [True]
    assert pa.default_memory_pool().max_memory() - before < 2 ** 26


def test_rows_of_a_large_batch_are_drawn_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "LONGEST_LINE", 1000)
    texts = ["word " * (1 + i % 7) for i in range(99)] + ["long " * 400, "last"]
    columns = {"text": texts, "map": pa.array([[("k", "v" * 20)]] * 101, pa.map_(pa.string(), pa.string()))}
    found, skipped = read(tmp_path / "a.parquet", columns)
    assert [text for _, text, _ in found] == texts[:99] + ["last"] and skipped == {"line too long": 1}
