"""Candidates on texts: a row for each, and other ids than minillm's are told."""
import json
import sys

import pytest

from benchmarks import tokenizer_scripts
from minillm.tokenizer import Tokenizer


def test_a_run_measures_arrays_and_lists(tmp_path, monkeypatch, capsys):
    Tokenizer.train("so it goes, 中文 " * 50, 280, stop_early=True).save(tmp_path)
    (tmp_path / "some.txt").write_text("so it goes 文字\n" * 20, encoding="utf-8")
    monkeypatch.setattr(tokenizer_scripts, "WHO", ("minillm",))
    monkeypatch.setattr(sys, "argv", ["", "--rounds", "1", "--seconds", "0", "--texts", str(tmp_path), "--out",
                                      str(tmp_path / "out.json"), str(tmp_path / "tokenizer.json")])
    tokenizer_scripts.main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["text"], row["form"], row["same_ids"]) for row in rows] == [
        ("some", "array", True), ("some", "list", True)]
    assert all(row["warm"] > 0 and len(row["runs"][0]["seconds"]) == 3 for row in rows)
    assert "same ids: True" in capsys.readouterr().out


def test_other_ids_are_told():
    def run(digest):
        return [{"bytes": 10, "seconds": [1, 1, 1], "ids": 3, "tenth": "a", "digest": digest}]
    rows = tokenizer_scripts.summary("x", {("minillm", "some/array"): run("b"), ("gigatoken", "some/array"): run("c"),
                                           ("tiktoken", "some/array"): run("c")})
    assert [row["same_ids"] for row in rows] == [True, False, True]         # tiktoken had a tenth of it


@pytest.mark.parametrize("options, word", [("nothing", "nothing"), ("x.json --rounds 0", "--rounds"),
                                           ("x.json --texts .", "--texts"), ("x.json --out no/where.json", "--out")])
def test_what_cannot_be_measured_is_told_at_once(tmp_path, monkeypatch, capsys, options, word):
    (tmp_path / "x.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tokenizer_scripts, "measure", None)             # it must not come so far
    monkeypatch.setattr(sys, "argv", ["", *options.split()])
    with pytest.raises(SystemExit) as ended:
        tokenizer_scripts.main()
    assert ended.value.code == 2 and f"error: {word}" in capsys.readouterr().err
