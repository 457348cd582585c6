"""Records of files: lines, lists, tables and archives give the same, each with its place; what is broken is named."""
import gzip
import io
import json

import pytest
from chats import CHAT, talk, write

from minillm.data.sources import record_files
from minillm.data.sources.conversations import read_examples
from minillm.data.sources.record_files import convert_records, read_jsonl, records

ROWS = [{"messages": talk(), "tools": None}, {"messages": talk("says?", "cluck"), "tools": None}]


def test_lines_lists_tables_and_archives_give_the_same(tmp_path):
    lines = "\ufeff" + "\n".join(map(json.dumps, ROWS))
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "lines.json").write_text(lines, encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0], indent=1), encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert [list(records(tmp_path / name)) for name in ("a.jsonl", "lines.json", "a.jsonl.gz")] == [
        list(enumerate(ROWS, 1))] * 3
    assert [record for _, record in records(tmp_path / "list.json")] == ROWS
    assert list(records(tmp_path / "one.json")) == [(1, ROWS[0])]


def test_tables_of_nested_columns(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    turns = [[{"from": who, "value": m["content"]} for who, m in zip(("human", "gpt"), row["messages"])]
             for row in ROWS]
    columns = {"conversations": turns, "system": [None, "be brief"]}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    told = []
    first, second = read_examples(tmp_path / "a.parquet", CHAT, told.append)
    assert told == ["read        2 ShareGPT conversations"]
    assert CHAT.decode(first.ids) == "<|user|>what is a hen?<|end|><|assistant|>a bird<|end|>"
    assert CHAT.decode(second.ids).startswith("<|system|>be brief<|end|><|user|>says?")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match="b.parquet: unreadable"):
        read_examples(tmp_path / "b.parquet", CHAT)


def test_the_lines_of_a_list_are_those_of_the_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n  {"a": 1},\n\n  [2], {"a":\n 3},\n  "x"\n]\n')
    found, problems = convert_records(path, lambda record: record["a"])
    assert found == [1, 3]
    assert problems == [f"{path}:4: expected a JSON object: got list", f"{path}:6: expected a JSON object: got str"]
    path.write_text('[\n  {"a": 1},\n  {"a": 2,}, {"a": 3}]')
    found, problems = convert_records(path, lambda record: record["a"])
    assert found == [1] and problems == [f"{path}:3: no JSON: the list breaks off here, and the rest is not read"]
    path.write_text('[{"a": 1}')
    assert convert_records(path, dict)[0] == [{"a": 1}]


def test_lines_are_read_by_the_block(tmp_path, monkeypatch):
    """Not a byte at a time, as a file without a buffer would be."""
    write(tmp_path / "a.jsonl", [{"a": "x" * 100}] * 1000)
    reads = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            reads.append(len(buffer))
            return super().readinto(buffer)

        def read(self, size=-1):
            reads.append(size)
            return super().read(size)
    monkeypatch.setattr(record_files, "opened", lambda path, name: Counted(path))
    assert len(list(records(tmp_path / "a.jsonl"))) == 1000 and 0 < len(reads) < 100


def test_a_long_list_is_read_in_one_pass(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join(['{"a": 1}'] * 50_000) + "]")
    found = list(records(path))
    assert len(found) == 50_000 and found[-1] == (50_000, {"a": 1})


@pytest.mark.parametrize("name, text", [("a.jsonl", ""), ("a.json", "[]"), ("a.json", ""), ("a.jsonl", "\n")], ids=str)
def test_a_file_without_records_says_so(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: no records"):
        convert_records(tmp_path / name, dict)


def test_damaged_archives_and_missing_files(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode())[:-12])
    with pytest.raises(ValueError, match="a.jsonl.gz: unreadable"):
        read_jsonl(tmp_path / "a.jsonl.gz", dict)
    with pytest.raises(FileNotFoundError):
        read_jsonl(tmp_path / "none.jsonl", dict)


def test_what_must_hold_all_of_its_records_is_strict(tmp_path):
    with pytest.raises(ValueError, match="malformed records\n.*a.jsonl:2: no JSON"):
        read_jsonl(write(tmp_path / "a.jsonl", [{"a": 1}, "{"]), dict)
