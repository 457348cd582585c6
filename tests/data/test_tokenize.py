"""Shards of large corpora: resumed without a lost or doubled document, weights, llm.c's files, and the card."""
import json

import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm import Tokenizer
from minillm.__main__ import main
from minillm.data.shards import llmc
from minillm.data.shards import tokenize as stage
from minillm.data.shards.format import open_shards
from minillm.data.shards.split import split_of
from minillm.data.shards.write import write_shards

TOK = Tokenizer.train(["some words to learn, some words to read"], 264)


def write(path, count, start=0):
    path.write_text("".join(json.dumps({"text": f"document {i} " + "words " * (i % 7)}) + "\n"
                            for i in range(start, start + count)), encoding="utf-8")
    return path


def texts_of(split):
    """The documents of a split, decoded."""
    joined = TOK.decode([int(t) for array in split.arrays for t in array])
    return [text for text in joined.split("<|endoftext|>") if text]


def run(tmp_path, sources, **kwargs):
    return stage.tokenize(sources, TOK, tmp_path / "out", val_fraction=0.2, chunk_bytes=500, **kwargs)


def test_every_document_is_on_its_side_once(tmp_path):
    source = write(tmp_path / "a.jsonl", 120)
    meta = run(tmp_path, [([source], 1.0)])
    opened = open_shards(tmp_path / "out")
    opened.check()
    wanted = [json.loads(line)["text"] for line in source.read_text().splitlines()]
    for side, split in (("train", opened.train), ("val", opened.val)):
        assert texts_of(split) == [text for text in wanted if split_of(text, 0.2, 0) == side]
        assert split.documents == meta["splits"][side]["documents"] and len(split.files) > 2
    assert not list((tmp_path / "out").glob("chunk_*"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", [0, 1, 3, 5])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, when):
    source = write(tmp_path / "a.jsonl", 120)
    run(tmp_path, [([source], 1.0)])
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    real, calls = stage.write_side, []

    def dies(directory, side, number, *rest):
        calls.append((number, side))
        if len(calls) == 2 * when + 2:                           # between a chunk's two files
            raise Killed
        return real(directory, side, number, *rest)

    monkeypatch.setattr(stage, "write_side", dies)
    with pytest.raises(Killed):
        run(tmp_path, [([source], 1.0)])
    with pytest.raises(FileNotFoundError):
        open_shards(tmp_path / "out")                            # half a corpus does not look like one
    monkeypatch.setattr(stage, "write_side", real)
    made = []
    monkeypatch.setattr(stage, "write_chunk", lambda d, n, *rest, f=stage.write_chunk: made.append(n) or f(d, n, *rest))
    run(tmp_path, [([source], 1.0)])
    assert made[0] == when                                       # finished chunks were not tokenized again
    assert_same_bits({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}, whole)


def test_changed_input_or_a_damaged_file_is_noticed(tmp_path, monkeypatch):
    source = write(tmp_path / "a.jsonl", 60)
    monkeypatch.setattr(stage, "write_sidecar", lambda *rest, **more: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        run(tmp_path, [([source], 1.0)])
    monkeypatch.undo()
    (tmp_path / "out" / "train_00002.bin").write_bytes(b"short")
    write(source, 30, start=0)                                   # fewer, and the rest other documents
    with open(source, "a", encoding="utf-8") as file:
        file.write(write(tmp_path / "b", 30, start=500).read_text())
    run(tmp_path, [([source], 1.0)])
    opened = open_shards(tmp_path / "out")
    opened.check()
    found = texts_of(opened.train) + texts_of(opened.val)
    assert sorted(found) == sorted(json.loads(line)["text"] for line in source.read_text().splitlines())


def test_weights_repeat_training_documents_only(tmp_path):
    a, b = write(tmp_path / "a.jsonl", 80), write(tmp_path / "b.jsonl", 80, start=1000)
    meta = run(tmp_path, [([a], 2.0), ([b], 0.5)])
    opened = open_shards(tmp_path / "out")
    train, val = texts_of(opened.train), texts_of(opened.val)
    counts = {text: train.count(text) for text in train}
    assert {n for text, n in counts.items() if int(text.split()[1]) < 1000} == {2}
    halved = {n for text, n in counts.items() if int(text.split()[1]) >= 1000}
    assert halved == {1} and 15 <= sum(int(text.split()[1]) >= 1000 for text in train) <= 50
    assert len(val) == len(set(val)) == meta["splits"]["val"]["documents"]
    with pytest.raises(ValueError, match="a weight must be above 0"):
        run(tmp_path, [([a], 0.0)])


def test_one_document_is_cut_as_write_shards_cuts_it(tmp_path):
    """Both entry points have one writer: the same files but for the tokenizer's, and the same keys in the sidecar."""
    text = "some words to read.\n\n" * 50
    (tmp_path / "a.txt").write_text(text)
    meta = stage.tokenize([([tmp_path / "a.txt"], 1.0)], TOK, tmp_path / "out")
    other = write_shards([text], TOK, tmp_path / "other")
    assert meta["splits"] == other["splits"] and meta.keys() - other.keys() == {"source"}
    opened = open_shards(tmp_path / "out")
    assert "".join(texts_of(opened.train) + texts_of(opened.val)) == text
    with pytest.raises(ValueError, match="no document was drawn for train"):
        stage.tokenize([([tmp_path / "a.txt"], 1e-9)], TOK, tmp_path / "out")


def test_files_of_llmc(tmp_path):
    source = write(tmp_path / "a.jsonl", 120)
    run(tmp_path, [([source], 1.0)], header=True)
    opened = open_shards(tmp_path / "out")
    opened.check()
    for path, array in zip(opened.train.files, opened.train.arrays):
        raw = np.fromfile(path, "<i4", 256)
        assert list(raw[:3]) == [20240520, 1, len(array)] and not raw[3:].any()
        assert np.array_equal(np.fromfile(path, "<u2", offset=1024), array)
    assert np.frombuffer(llmc.header(7, np.dtype("<u4")), "<i4")[:3].tolist() == [20240801, 7, 7]
    with pytest.raises(ValueError, match="fewer than 2"):
        llmc.header(2 ** 31, np.dtype("<u2"))


def test_the_commands_from_raw_text_to_a_trained_model_and_a_card(tmp_path, capsys):
    TOK.save(tmp_path / "tok")
    source = write(tmp_path / "a.jsonl", 400)
    clean, kept, out = tmp_path / "clean.jsonl", tmp_path / "kept.jsonl", tmp_path / "shards"
    commands = [["clean", source, "-o", clean, "--rules", "", "--processes", 1], ["dedup", clean, "-o", kept],
                ["tokenize", f"{kept}*2", "--tokenizer", tmp_path / "tok", "-o", out],
                ["card", tmp_path / "clean.report.json", tmp_path / "kept.report.json", out / "shards.json", "-o",
                 tmp_path / "CARD.md", "--license", "a.jsonl=CC0", "--limit", "It is made up."]]
    for arguments in commands:
        assert main(["data", *map(str, arguments)]) == 0, capsys.readouterr().err
    card = (tmp_path / "CARD.md").read_text()
    for words in ("400 documents", "licence of a.jsonl: CC0", "### Cleaning", "### Deduplication", "### Tokens",
                  "It is made up."):
        assert words in card
    shape = [f"--set=model.{k}={v}" for k, v in {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 16}.items()]
    assert main(["train", "--data", str(out), "--out", str(tmp_path / "run"), "--set=train.steps=2", *shape]) == 0
    assert (tmp_path / "run" / "tokenizer.json").exists() and "as tokenized before" in capsys.readouterr().out
