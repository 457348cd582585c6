"""Any file name works, also bytes that are no UTF-8; what is printed and written escapes them."""
import json
import os

import pytest

from minillm.__main__ import main

NAME = os.fsdecode(b"na\xefve")             # Latin-1
SHAPE = [f"--set={k}={v}" for k, v in {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 16, "steps": 1}.items()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / NAME).mkdir()
    for i in range(5):
        (tmp_path / NAME / f"{i}{NAME}.txt").write_text(f"Text {i} is a line that is not very long.\n" * 20)
    (tmp_path / NAME / f"{NAME}.jsonl").write_text('{"text": "a record", "other": "\\ud800"}\nno JSON\n')
    (tmp_path / NAME / f"{NAME}.bin").write_text("of another kind")
    return tmp_path


def test_every_data_command_and_train(folder, capfd):
    raw, run = folder / NAME, folder / f"run{NAME}"
    clean, kept, shards = (folder / f"{step}{NAME}" for step in ("clean.jsonl", "kept.jsonl", "shards"))
    clean, kept = clean.with_suffix(".jsonl"), kept.with_suffix(".jsonl")
    for command in (["train", "--data", raw, "--out", run, "--vocab-size", 300, *SHAPE],
                    ["train", "--data", raw, "--out", run, "--vocab-size", 300, *SHAPE, "--set=steps=2"],
                    ["data", "clean", raw, "-o", clean, "--rules", "", "--processes", 1],
                    ["data", "dedup", raw, "-o", kept],
                    ["data", "tokenize", raw, "--tokenizer", run, "-o", shards],
                    ["data", "card", clean.with_suffix(".report.json"), shards / "shards.json", "-o",
                     folder / f"{NAME}.md"],
                    ["generate", run, "-n", 1]):
        assert main([str(argument) for argument in command]) == 0, capfd.readouterr().err
    assert r"na\xefve.jsonl:2" in capfd.readouterr().out
    records = [json.loads(line) for line in clean.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 6 and {"\ud800"} == {record["other"] for record in records if "other" in record}
    assert any(record.get("source", "").endswith(r"0na\xefve.txt") for record in records)
