"""Token files of nanoGPT and llm.c as --data: recognised, held to the tokenizer, split, trained on, resumed."""
import json
from types import SimpleNamespace

import numpy as np
import pytest

from minillm import GPTConfig, Tokenizer, TrainConfig
from minillm.data.shards.llmc import header
from minillm.data.shards.token_files import shards_of, side_of, token_files
from minillm.recipes.train_on_files import train_on_files

TEXTS = [f"{i}. the cat sat on the mat and said hello to the dog. " * 9 for i in range(12)]
TOK = Tokenizer.train(TEXTS, 300, stop_early=True)
IDS = np.concatenate([[TOK.eot_token, *TOK.encode(text)] for text in TEXTS])
TEXT_BYTES = sum(len(text) for text in TEXTS)
LARGE = SimpleNamespace(vocab_size=128_256, eot_token=7, special_tokens={"<end>": 7}, fingerprint="large",
                        token_bytes=lambda id: b"xy")


def nano(path, ids):
    np.asarray(ids, "<u2").tofile(path)
    return path


def llmc(path, ids, dtype="<u2"):
    path.write_bytes(header(len(ids), np.dtype(dtype)) + np.asarray(ids, dtype).tobytes())
    return path


@pytest.mark.parametrize("write", [nano, llmc])
def test_both_files_of_a_folder(tmp_path, write):
    write(tmp_path / "train.bin", IDS[:-200]), write(tmp_path / "val.bin", IDS[-200:])
    (tmp_path / "prepare.py").write_text("import os")                               # lies beside nanoGPT's
    shards = shards_of(token_files([tmp_path]), TOK)
    assert np.array_equal(np.concatenate(shards.train.arrays), IDS[:-200])
    assert np.array_equal(np.concatenate(shards.val.arrays), IDS[-200:])
    assert shards.train.bytes + shards.val.bytes == TEXT_BYTES and shards.train.tokens == len(IDS) - 200
    assert shards.train.documents + shards.val.documents == pytest.approx(len(TEXTS), abs=1)


def test_shards_of_llmc(tmp_path):
    names = ["fineweb_train_000001.bin", "fineweb_train_000002.bin", "fineweb_val_000000.bin"]
    for name, ids in zip(names, np.array_split(IDS, 3)):
        llmc(tmp_path / name, ids)
    files = [tmp_path / name for name in reversed(names)]
    shards = shards_of(token_files(files), TOK)
    assert [path.name for path in shards.train.files] == names[1::-1] and shards.val.files == [files[0]]
    assert [side_of(tmp_path / name) for name in ("tiny_val.bin", "validation.bin", "interval.bin", "a.bin")] == [
        "val", "val", "train", "train"]


def test_what_another_process_has_read_is_not_read_again(tmp_path, monkeypatch):
    files = [nano(tmp_path / "train.bin", IDS)]
    shards = shards_of(files, TOK)
    note = json.loads(json.dumps(shards.meta["read"]))                              # as ranks tell each other
    monkeypatch.setattr("minillm.data.shards.token_files.read_piece", None)
    again = shards_of(files, TOK, known=note)
    for one, other in ((shards.train, again.train), (shards.val, again.val)):
        assert np.array_equal(one.arrays[0], other.arrays[0])
        assert (one.tokens, one.documents, one.bytes, one.files, one.checksums) == (
            other.tokens, other.documents, other.bytes, other.files, other.checksums)


def test_llama_3s_are_of_uint32(tmp_path):
    ids = np.array([5, 70_000, 128_255, 7] * 50)
    shards = shards_of([llmc(tmp_path / "train.bin", ids, "<u4")], LARGE)
    assert np.array_equal(np.concatenate([*shards.train.arrays, *shards.val.arrays]), ids)
    assert shards.train.bytes + shards.val.bytes == 2 * 150


def test_the_end_of_one_file_is_held_out(tmp_path):
    shards = shards_of([nano(tmp_path / "all.bin", IDS)], TOK)
    assert shards.val.tokens == int(0.05 * len(IDS))
    assert np.array_equal(np.concatenate([*shards.train.arrays, *shards.val.arrays]), IDS)


BAD = {
    "an id of another tokenizer": (lambda p: nano(p, [*IDS[:50], 50_256]), "holds id 50256, but the tokenizer has"),
    "half an id": (lambda p: p.write_bytes(b"\1\0\2"), "3 bytes are no uint16 ids"),
    "empty": (lambda p: p.write_bytes(b""), "0 bytes"),
    "cut short": (lambda p: p.write_bytes(llmc(p, IDS).read_bytes()[:-2]), "damaged or was truncated"),
    "another version": (lambda p: p.write_bytes(np.array([20240520, 3, 5], "<i4").tobytes().ljust(1034, b"\0")),
                        "version 3 of llm.c"),
    "a wrong count": (lambda p: p.write_bytes(np.array([20240520, 1, -5], "<i4").tobytes().ljust(1034, b"\0")),
                      "damaged or was truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path, name):
    damage, words = BAD[name]
    damage(tmp_path / "train.bin")
    with pytest.raises(ValueError, match=words) as error:
        shards_of([tmp_path / "train.bin"], TOK)
    assert "train.bin" in str(error.value)


def test_only_validation_or_other_files_beside(tmp_path):
    val = nano(tmp_path / "val.bin", IDS)
    with pytest.raises(ValueError, match="no token file to train on"):
        shards_of([val], TOK)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"a.txt: token files \(.bin\) cannot be mixed"):
        token_files([val, tmp_path / "a.txt"])
    assert token_files([tmp_path / "a.txt"]) == []


def test_what_lies_in_a_folder(tmp_path):
    (tmp_path / "input.txt").write_text("text")
    nano(tmp_path / "weights.bin", IDS)
    assert token_files([tmp_path]) == []                                            # a folder of text
    nano(tmp_path / "train.bin", IDS), nano(tmp_path / "val.bin", IDS)
    assert [path.name for path in token_files([tmp_path])] == ["train.bin", "val.bin"]
    (tmp_path / "tokens").mkdir()
    assert token_files([tmp_path / "tokens"]) == []
    assert token_files([tmp_path / "tokens"]) == [] and token_files([nano(tmp_path / "tokens" / "a.bin", IDS).parent])


def test_several_folders(tmp_path):
    for name in ("a", "b", "text"):
        (tmp_path / name).mkdir()
    files = [nano(tmp_path / "a" / "train.bin", IDS), nano(tmp_path / "b" / "train.bin", IDS)]
    (tmp_path / "text" / "input.txt").write_text("text")
    assert token_files([tmp_path / "a", tmp_path / "b"]) == files
    with pytest.raises(ValueError, match=r"text: token files \(.bin\) cannot be mixed"):       # not left out in silence
        token_files([tmp_path / "a", tmp_path / "text"])
    nano(tmp_path / "text" / "train.bin", IDS)
    (tmp_path / "b" / "train.bin").unlink()
    assert token_files([tmp_path / "b", tmp_path / "text"]) == []


def test_training_on_them_and_going_on(tmp_path, monkeypatch):
    monkeypatch.setattr("minillm.recipes.train_on_files.plot_losses", lambda run: None)
    data, said = tmp_path / "data", []
    data.mkdir()
    nano(data / "train.bin", IDS[:-300]), nano(data / "val.bin", IDS[-300:])
    (tmp_path / "tok").mkdir()
    TOK.save(tmp_path / "tok")

    def trained(steps, tokenizer=tmp_path / "tok"):
        return train_on_files([data], tmp_path / "run", GPTConfig(1, 1, 16, 16, 300), TrainConfig(steps, batch_size=2),
                              tokenizer, say=said.append)
    with pytest.raises(ValueError, match="do not say what their ids stand for: name the tokenizer"):
        trained(1, None)
    assert 4 < trained(1)["val_loss"] < 7
    assert "documents" in said[1], said
    assert trained(2)["steps"] == 2 and "resuming from step 1" in "\n".join(said)
    assert json.loads((tmp_path / "run" / "origin.json").read_text())["data"] == str(data)
    nano(data / "val.bin", IDS[-200:])
    with pytest.raises(ValueError, match="trained on other data"):
        trained(3)
