"""From documents to batches: shards of tokens, and the loader."""
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.shards import loader, format as shards

quick = settings(derandomize=True, deadline=None, max_examples=40)


class ByteTokenizer:
    """One id a byte, 256 ends a text."""
    vocab_size, eot_token = 257, 256

    def encode(self, text):
        return list(text.encode())


# ---- shards --------------------------------------------------------------------------------------

TEXTS = [(f"d{i}", f"Document number {i}: café.\n\n" * (1 + i % 5)) for i in range(200)]


def tokens_of(split):
    return np.concatenate(split.arrays) if split.arrays else np.zeros(0, np.uint16)


def documents_of(split):
    """The texts back from the tokens."""
    return bytes(b if b < 256 else 0 for b in tokens_of(split)).decode().split("\0")[:-1]


def test_shards_hold_every_document_once_and_count_exactly(tmp_path):
    ticks = []
    meta = shards.write_shards(TEXTS, ByteTokenizer(), tmp_path, 0.1, seed=3, shard_tokens=1000,
                               progress=lambda *tick: ticks.append(tick))
    opened = shards.open_shards(tmp_path)
    opened.check()
    assert opened.meta == meta == json.loads((tmp_path / "shards.json").read_text())
    train, val = documents_of(opened.train), documents_of(opened.val)
    assert sorted(train + val) == sorted(text for _, text in TEXTS) and 5 <= len(val) <= 40
    for split, texts in ((opened.train, train), (opened.val, val)):
        assert split.documents == len(texts) and split.bytes == sum(len(text.encode()) for text in texts)
        assert split.tokens == split.bytes + split.documents == sum(map(len, split.arrays))
        assert all(len(array) == 1000 for array in split.arrays[:-1]) and split.arrays[0].dtype == np.dtype("<u2")
    assert len(opened.train.arrays) > 5 and ticks[-1] == (200, 200)


@quick
@given(st.permutations(range(40)), st.integers(-5, 5))
def test_split_does_not_depend_on_order(tmp_path_factory, order, seed):
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    shards.write_shards(TEXTS[:40], ByteTokenizer(), one, 0.3, seed)
    shards.write_shards([TEXTS[i] for i in order], ByteTokenizer(), two, 0.3, seed)
    for split in ("train", "val"):
        first, second = (getattr(shards.open_shards(folder), split) for folder in (one, two))
        assert sorted(documents_of(first)) == sorted(documents_of(second))


@quick
@given(st.lists(st.text(alphabet="ab \né", min_size=1, max_size=60), min_size=1, max_size=4),
       st.sampled_from([0.05, 0.3]))
def test_few_documents_are_cut(tmp_path_factory, texts, fraction):
    folder = tmp_path_factory.mktemp("few")
    if sum(map(len, texts)) < 2:
        with pytest.raises(ValueError, match="too little text"):
            shards.write_shards(texts, ByteTokenizer(), folder, fraction)
        return
    shards.write_shards(texts, ByteTokenizer(), folder, fraction)
    opened = shards.open_shards(folder)
    both = "".join(documents_of(opened.train) + documents_of(opened.val))
    assert sorted(both) == sorted("".join(texts))          # nothing lost, nothing twice
    assert opened.train.tokens and opened.val.tokens
    assert opened.train.bytes + opened.val.bytes == sum(len(text.encode()) for text in texts)


def test_the_seed_moves_the_split_and_the_fraction_sets_its_size():
    first, second = ([shards.split_of(f"text {i}", 0.2, seed) == "val" for i in range(5000)] for seed in (1, 2))
    for chosen in (first, second):
        assert abs(sum(chosen) - 1000) < 4 * math.sqrt(5000 * 0.2 * 0.8)
    both = sum(map(min, first, second))                     # as often as chance would have it
    assert abs(both - 200) < 4 * math.sqrt(5000 * 0.04 * 0.96)


def test_one_long_document_is_cut_at_a_paragraph(tmp_path):
    text = "One paragraph of some length.\n\n" * 100
    shards.write_shards([("only", text)], ByteTokenizer(), tmp_path)
    opened = shards.open_shards(tmp_path)
    (train,), (val,) = documents_of(opened.train), documents_of(opened.val)
    assert train + val == text and train.endswith("\n\n") and 0.03 < len(val) / len(text) < 0.08


def test_a_stream_whose_beginning_has_no_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "HOLD_BYTES", 2000)
    texts = [text for _, text in TEXTS if shards.split_of(text, 0.02, 0) == "train"]
    shards.write_shards(iter(texts), ByteTokenizer(), tmp_path, 0.02)
    opened = shards.open_shards(tmp_path)
    assert sorted("".join(documents_of(opened.train) + documents_of(opened.val))) == sorted("".join(texts))
    assert 0 < opened.val.bytes < 200


def test_large_vocabulary_and_no_end_token(tmp_path):
    class Wide(ByteTokenizer):
        vocab_size, eot_token, fingerprint = 2**16 + 1, None, "wide"

        def encode(self, text):
            return np.array([2**16] * len(text))
    shards.write_shards(TEXTS, Wide(), tmp_path)
    opened = shards.open_shards(tmp_path)
    opened.check()
    assert opened.dtype == np.dtype("<u4") and opened.fingerprint == "wide" and tokens_of(opened.val).min() == 2**16


def test_bad_arguments(tmp_path):
    class Wrong(ByteTokenizer):
        vocab_size = 100
    for documents, tokenizer, fraction, message in [
            (TEXTS, ByteTokenizer(), 0.0, "val_fraction"), (TEXTS, Wrong(), 0.05, "vocabulary"),
            ([], ByteTokenizer(), 0.05, "no text"), ([("n", "\ud800")], ByteTokenizer(), 0.05, "surrogate")]:
        with pytest.raises(ValueError, match=message):
            shards.write_shards(documents, tokenizer, tmp_path, fraction)
        with pytest.raises(FileNotFoundError, match="no finished shards"):
            shards.open_shards(tmp_path)


def test_damaged_shards(tmp_path):
    shards.write_shards(TEXTS, ByteTokenizer(), tmp_path, 0.1)
    path = tmp_path / "train_00000.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match=rf"train_00000.bin has {len(whole) - 2} bytes, expected {len(whole)}"):
        shards.open_shards(tmp_path)
    for damage, message in [(b"\0\0", "checksum"), (b"\xff\xff", "65535, outside the vocabulary")]:
        path.write_bytes(damage + whole[2:])
        with pytest.raises(ValueError, match=message):
            shards.open_shards(tmp_path).check()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train_00000.bin"):
        shards.open_shards(tmp_path)
    (tmp_path / "shards.json").write_text('{"format": "minillm shards 1"')
    with pytest.raises(ValueError, match="damaged"):
        shards.open_shards(tmp_path)


WRITER = """
import itertools, sys
from minillm.data.shards import write_shards
class T:
    vocab_size, eot_token = 257, 256
    def encode(self, text): return list(text.encode())
endless = (("name", f"document {i} " * 40) for i in itertools.count())
write_shards(endless, T(), sys.argv[1], shard_tokens=5000)
"""


def test_a_killed_writer_leaves_no_sidecar(tmp_path):
    shards.write_shards(TEXTS, ByteTokenizer(), tmp_path)    # an earlier, whole set must not vouch for the new files
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "train_00002.bin").exists() and time.monotonic() < deadline and writer.poll() is None:
            time.sleep(0.01)
    finally:
        writer.kill()
    assert writer.wait() == -signal.SIGKILL       # it was at work to the last, and had not failed by itself
    assert (tmp_path / "train_00002.bin").exists() and not (tmp_path / "shards.json").exists()
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        shards.open_shards(tmp_path)
    shards.write_shards(TEXTS[:20], ByteTokenizer(), tmp_path, 0.3)      # a new writer clears up behind it
    assert sorted(os.listdir(tmp_path)) == ["shards.json", "train_00000.bin", "val_00000.bin"]


# ---- loader --------------------------------------------------------------------------------------

@quick
@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 5))
def test_permute_is_one_to_one(size, seed, epoch):
    keys = loader.epoch_keys(seed, epoch)
    assert sorted(loader.permute(i, size, keys) for i in range(size)) == list(range(size))


def test_permute_is_random_enough():
    """Where block 0 goes, over many epochs: every place as often (chi-square), and neighbours part."""
    size, epochs = 20, 4000
    images = np.array([[loader.permute(i, size, loader.epoch_keys(1, e)) for i in (0, 1)] for e in range(epochs)])
    for counts in (np.bincount(images[:, 0], minlength=size), np.bincount((images[:, 0] - images[:, 1]) % size)[1:]):
        expected = epochs / len(counts)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < len(counts) - 1 + 5 * math.sqrt(2 * len(counts))


@quick
@given(st.integers(2, 400), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(0, 3),
       st.lists(st.integers(0, 400), max_size=4))
def test_every_block_once_an_epoch(tokens, block_size, batch_size, micro_batches, seed, cuts):
    stream = np.arange(tokens, dtype=np.uint16)
    parts = np.split(stream, sorted(min(cut, tokens) for cut in cuts))       # several files, some of them empty
    if tokens < block_size + 1:
        with pytest.raises(ValueError, match=f"needs {block_size + 1} tokens, there are {tokens}"):
            loader.Loader(parts, block_size, batch_size, seed, micro_batches)
        return
    load = loader.Loader(parts, block_size, batch_size, seed, micro_batches)
    batches = [load.batch(step, micro) for step in range(-(-2 * load.blocks // (batch_size * micro_batches)))
               for micro in range(micro_batches)]
    x, y = (np.concatenate(side) for side in zip(*batches))                  # (rows, T)
    assert x.dtype == y.dtype == np.int64 and batches[0][0].flags.c_contiguous and batches[0][1].flags.c_contiguous
    assert (x == x[:, :1] + np.arange(block_size)).all() and (y == x + 1).all() and y.max() < tokens
    for epoch in range(2):
        starts = np.sort(x[epoch * load.blocks:(epoch + 1) * load.blocks, 0])
        offset = starts[0]
        assert (starts == offset + block_size * np.arange(load.blocks)).all() and 0 <= offset < block_size
        assert load.blocks * block_size > tokens - 2 * block_size            # less than two blocks are left out


def test_batches_are_a_function_of_seed_and_step():
    tokens = np.random.default_rng(0).integers(0, 1000, 20_000).astype(np.uint16)

    def make(seed=7):
        return loader.Loader([tokens[:9000], tokens[9000:]], 64, 4, seed, micro_batches=2)
    used = make()
    history = {(step, micro): used.batch(step, micro) for step in range(60) for micro in range(2)}
    for step, micro in [(59, 1), (0, 0), (31, 1)]:
        for fresh, old in zip(make().batch(step, micro), history[step, micro]):
            np.testing.assert_array_equal(fresh, old)
    assert not np.array_equal(make(8).batch(0)[0], history[0, 0][0])
    assert not np.array_equal(history[0, 0][0], history[0, 1][0])
    offsets = {used.block_start(epoch * used.blocks) % 64 for epoch in range(20)}
    assert len(offsets) > 10                                                   # block edges move


def test_loader_rejects():
    tokens = np.arange(100)
    for arguments, message in [((tokens, 0, 1, 0), "block_size"), ((tokens, 1, 0, 0), "batch_size"),
                               ((tokens, 1, 1, 0, 0), "micro_batches"), ((tokens.astype(float), 1, 1, 0), "integer"),
                               ((tokens.reshape(10, 10), 1, 1, 0), "one-dimensional"), (([], 1, 1, 0), "2 tokens")]:
        with pytest.raises(ValueError, match=message):
            loader.Loader(*arguments)
    load = loader.Loader(tokens, 8, 2, 0)
    for step, micro in [(-1, 0), (0, 1), (0, -1)]:
        with pytest.raises(ValueError, match="step"):
            load.batch(step, micro)


@quick
@given(st.integers(2, 200), st.integers(1, 30), st.integers(1, 5), st.integers(0, 200))
def test_sequential_predicts_each_token_once(tokens, block_size, batch_size, cut):
    stream = np.arange(tokens, dtype=np.uint16)
    batches = list(loader.sequential(np.split(stream, [min(cut, tokens)]), block_size, batch_size))
    x, y = (np.concatenate(side) for side in zip(*batches))
    np.testing.assert_array_equal(y[y != -1], np.arange(1, tokens))
    np.testing.assert_array_equal(x[y != -1], np.arange(tokens - 1))
    assert (y[:-1] != -1).all() and (y != -1).any(axis=1).all()
    assert all(len(rows) == batch_size for rows, _ in batches[:-1]) and 1 <= len(batches[-1][0]) <= batch_size


def test_sequential_needs_two_tokens():
    with pytest.raises(ValueError, match="at least 2 tokens"):
        loader.sequential(np.arange(1), 4, 4)


def test_from_files_to_batches(tmp_path):
    shards.write_shards(TEXTS, ByteTokenizer(), tmp_path, shard_tokens=700)
    opened = shards.open_shards(tmp_path)
    by_split, by_path = (loader.Loader(source, 32, 4, seed=0) for source in (opened.train, opened.train.files))
    for one, other in zip(by_split.batch(5), by_path.batch(5)):
        np.testing.assert_array_equal(one, other)
    stream = tokens_of(opened.val)
    y = np.concatenate([y.ravel() for _, y in loader.Loader(opened.val, 32, 4, seed=0).sequential()])
    np.testing.assert_array_equal(y[y != -1], stream[1:])
