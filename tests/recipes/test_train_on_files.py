"""Resuming a run on one's own files: contents decide whether they are the same, not times, places or other files."""
import os
import shutil

import pytest

from minillm import GPTConfig, Tokenizer, TrainConfig
from minillm.recipes.train_on_files import train_on_files

SHAPE = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=16, vocab_size=300)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "t"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.md"):
        (folder / name).write_text(f"The text of {name}, which is read again and again.\n" * 30)
    return folder


def trained(data, out, steps=2, tokenizer=None, vocab_size=300, resume="auto"):
    """What was said while training so many steps in all."""
    said = []
    train_on_files([data], out, SHAPE, TrainConfig(steps=steps, batch_size=2), tokenizer, vocab_size, resume,
                   said.append)
    return "\n".join(said)


def touch(texts, tmp_path):
    os.utime(texts / "a.txt", (1, 1))
    return texts


def beside(texts, tmp_path):
    (texts / ".DS_Store").write_bytes(b"\0\0")
    (texts / "picture.png").write_bytes(b"\0\0")
    return texts


def copied(texts, tmp_path):
    return shutil.copytree(texts, tmp_path / "elsewhere")


def relative(texts, tmp_path):
    return os.path.relpath(texts)


@pytest.mark.parametrize("change", [touch, beside, copied, relative])
def test_the_same_contents_are_the_same_data(texts, tmp_path, change):
    trained(texts, tmp_path / "r")
    assert "as tokenized before" in trained(change(texts, tmp_path), tmp_path / "r", 3)


def test_a_run_inside_its_data_is_not_read(texts):
    assert "2 documents" in trained(texts, texts / "r")
    assert "as tokenized before" in trained(texts, texts / "r", 3)
    assert "2 documents" in trained(texts, texts / "another")
    with pytest.raises(ValueError, match="is a folder of --data"):
        trained(texts, texts)


@pytest.mark.parametrize("name, content, words", [
    ("a.txt", b"The text of a.txt, which is read again and AGAIN.\n" * 30, "a.txt has changed"),
    ("a.txt", b"short", "a.txt has changed"),
    ("new.txt", b"a new one", "new.txt is new"),
    ("a.txt", None, "a.txt is gone")])
def test_what_changed_is_named(texts, tmp_path, name, content, words):
    trained(texts, tmp_path / "r")
    (texts / name).write_bytes(content) if content else (texts / name).unlink()
    with pytest.raises(ValueError, match=f"trained on other files: {words}; use another --out, or --resume never"):
        trained(texts, tmp_path / "r", 3)
    assert "as tokenized before" not in trained(texts, tmp_path / "r", 2, resume="never")


def test_another_tokenizer_is_named_as_such(texts, tmp_path):
    trained(texts, tmp_path / "r")
    with pytest.raises(ValueError, match="was trained with --vocab-size 300, not 280"):
        trained(texts, tmp_path / "r", vocab_size=280)
    for name, text in (("one", "some words"), ("two", "other letters")):
        (tmp_path / name).mkdir()
        Tokenizer.train([text * 9], 260).save(tmp_path / name)
    with pytest.raises(ValueError, match="was trained with another --tokenizer"):
        trained(texts, tmp_path / "r", tokenizer=tmp_path / "one")
    trained(texts, tmp_path / "s", tokenizer=tmp_path / "one")
    assert "as tokenized before" in trained(texts, tmp_path / "s", 3, f"{tmp_path / 'one'}/")
    with pytest.raises(ValueError, match="was trained with another --tokenizer"):
        trained(texts, tmp_path / "s", tokenizer=tmp_path / "two")


def test_documents_are_counted_once(tmp_path):
    (tmp_path / "one.txt").write_text("".join(f"{i:05}" for i in range(18_155 // 5)))
    assert trained(tmp_path / "one.txt", tmp_path / "r").startswith("1 document, 0.02 MB of text; nothing skipped.")


def test_a_damaged_tokenizer_or_shard_is_found_when_the_run_goes_on(texts, tmp_path):
    trained(texts, tmp_path / "r")
    shard = tmp_path / "r" / "data" / "val_00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ValueError, match="val_00000.bin"):
        trained(texts, tmp_path / "r", 3)
    shard.write_bytes(whole)
    Tokenizer.train(["other letters"], 280, stop_early=True).save(tmp_path / "r")
    with pytest.raises(ValueError, match="tokenizer.json is not the tokenizer that wrote the shards"):
        trained(texts, tmp_path / "r", 3)


@pytest.mark.parametrize("copies", [2, 8, 20])
def test_documents_on_both_sides_are_noticed(tmp_path, copies):
    (tmp_path / "copies").mkdir()
    for i in range(copies):                                  # a part of the last, or the last, is held out
        (tmp_path / "copies" / f"{i}.txt").write_text("".join(f"Line {i} of every file.\n" for i in range(60)))
    said = trained(tmp_path / "copies", tmp_path / "r")
    assert "ATTENTION: 1 of 1 validation documents are also in the training" in said
    assert "ATTENTION" not in trained(tmp_path / "copies" / "0.txt", tmp_path / "other")
