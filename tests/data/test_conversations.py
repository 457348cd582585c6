"""Records of JSONL: each line by itself, the malformed ones named."""
import pytest

from minillm.data.sources import plain_text
from minillm.data.sources.conversations import texts_in
from minillm.data.sources.record_files import read_jsonl


def test_a_line_of_any_length_is_named_and_never_held(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_text, "LONGEST_LINE", 100)
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "' + "x" * 950 + '"}\n[2]\n{"a": 2}')
    with pytest.raises(ValueError) as found:
        read_jsonl(path, dict)
    assert str(found.value) == (f"malformed records\n{path}:3: longer than 64 MiB\n"
                                f"{path}:4: expected a JSON object: got list")
    path.write_text('{"a": 1}\n\n{"a": 2}')
    assert read_jsonl(path, dict) == [{"a": 1}, {"a": 2}]


def test_what_must_be_text_is_named():
    assert texts_in({"b": "x", "a": "y"}, "a", "b") == ["y", "x"]
    for wrong in ({"b": "x"}, {"a": "", "b": "x"}, {"a": 3, "b": "x"}):
        with pytest.raises(ValueError, match="a must be text that is not empty"):
            texts_in(wrong, "a", "b")
