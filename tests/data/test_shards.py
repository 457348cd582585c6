"""Token shards: every document once, on the side that its hash says, and damage is noticed."""
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from byte_tokenizer import TEXTS, ByteTokenizer, documents_of, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.shards.format import open_shards
from minillm.data.shards.split import split_of
from minillm.data.shards.write import write_shards

quick = settings(derandomize=True, deadline=None, max_examples=40)


def test_shards_hold_every_document_once_and_count_exactly(tmp_path):
    ticks = []
    meta = write_shards(TEXTS, ByteTokenizer(), tmp_path, 0.1, seed=3, shard_tokens=1000,
                               progress=lambda *tick: ticks.append(tick))
    opened = open_shards(tmp_path)
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
    write_shards(TEXTS[:40], ByteTokenizer(), one, 0.3, seed)
    write_shards([TEXTS[i] for i in order], ByteTokenizer(), two, 0.3, seed)
    for split in ("train", "val"):
        first, second = (getattr(open_shards(folder), split) for folder in (one, two))
        assert sorted(documents_of(first)) == sorted(documents_of(second))


@quick
@given(st.lists(st.text(alphabet="ab \né", min_size=1, max_size=60), min_size=1, max_size=4),
       st.sampled_from([0.05, 0.3]))
def test_few_documents_are_cut(tmp_path_factory, texts, fraction):
    folder = tmp_path_factory.mktemp("few")
    if sum(map(len, texts)) < 2:
        with pytest.raises(ValueError, match="too little text"):
            write_shards(texts, ByteTokenizer(), folder, fraction)
        return
    write_shards(texts, ByteTokenizer(), folder, fraction)
    opened = open_shards(folder)
    both = "".join(documents_of(opened.train) + documents_of(opened.val))
    assert sorted(both) == sorted("".join(texts))          # nothing lost, nothing twice
    assert opened.train.tokens and opened.val.tokens
    assert opened.train.bytes + opened.val.bytes == sum(len(text.encode()) for text in texts)


def test_the_seed_moves_the_split_and_the_fraction_sets_its_size():
    first, second = ([split_of(f"text {i}", 0.2, seed) == "val" for i in range(5000)] for seed in (1, 2))
    for chosen in (first, second):
        assert abs(sum(chosen) - 1000) < 4 * math.sqrt(5000 * 0.2 * 0.8)
    both = sum(map(min, first, second))                     # as often as chance would have it
    assert abs(both - 200) < 4 * math.sqrt(5000 * 0.04 * 0.96)


def test_one_long_document_is_cut_at_a_paragraph(tmp_path):
    text = "One paragraph of some length.\n\n" * 100
    write_shards([("only", text)], ByteTokenizer(), tmp_path)
    opened = open_shards(tmp_path)
    (train,), (val,) = documents_of(opened.train), documents_of(opened.val)
    assert train + val == text and train.endswith("\n\n") and 0.03 < len(val) / len(text) < 0.08


def test_a_stream_whose_beginning_has_no_validation(tmp_path, monkeypatch):
    monkeypatch.setattr("minillm.data.shards.split.HOLD_BYTES", 2000)
    texts = [text for _, text in TEXTS if split_of(text, 0.02, 0) == "train"]
    write_shards(iter(texts), ByteTokenizer(), tmp_path, 0.02)
    opened = open_shards(tmp_path)
    assert sorted("".join(documents_of(opened.train) + documents_of(opened.val))) == sorted("".join(texts))
    assert 0 < opened.val.bytes < 200


def test_large_vocabulary_and_no_end_token(tmp_path):
    class Wide(ByteTokenizer):
        vocab_size, eot_token, fingerprint = 2**16 + 1, None, "wide"

        def encode(self, text):
            return np.array([2**16] * len(text))
    write_shards(TEXTS, Wide(), tmp_path)
    opened = open_shards(tmp_path)
    opened.check()
    assert opened.dtype == np.dtype("<u4") and opened.fingerprint == "wide" and tokens_of(opened.val).min() == 2**16


def test_bad_arguments(tmp_path):
    class Wrong(ByteTokenizer):
        vocab_size = 100
    for documents, tokenizer, fraction, message in [
            (TEXTS, ByteTokenizer(), 0.0, "val_fraction"), (TEXTS, Wrong(), 0.05, "vocabulary"),
            ([], ByteTokenizer(), 0.05, "no text"), ([("n", "\ud800")], ByteTokenizer(), 0.05, "surrogate")]:
        with pytest.raises(ValueError, match=message):
            write_shards(documents, tokenizer, tmp_path, fraction)
        with pytest.raises(FileNotFoundError, match="no finished shards"):
            open_shards(tmp_path)


def test_damaged_shards(tmp_path):
    write_shards(TEXTS, ByteTokenizer(), tmp_path, 0.1)
    path = tmp_path / "train_00000.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match=rf"train_00000.bin has {len(whole) - 2} bytes, expected {len(whole)}"):
        open_shards(tmp_path)
    for damage, message in [(b"\0\0", "checksum"), (b"\xff\xff", "65535, outside the vocabulary")]:
        path.write_bytes(damage + whole[2:])
        with pytest.raises(ValueError, match=message):
            open_shards(tmp_path).check()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train_00000.bin"):
        open_shards(tmp_path)
    (tmp_path / "shards.json").write_text('{"format": "minillm shards 1"')
    with pytest.raises(ValueError, match="damaged"):
        open_shards(tmp_path)


WRITER = """
import itertools, sys
from minillm.data.shards.write import write_shards
class T:
    vocab_size, eot_token = 257, 256
    def encode(self, text): return list(text.encode())
endless = (("name", f"document {i} " * 40) for i in itertools.count())
write_shards(endless, T(), sys.argv[1], shard_tokens=5000)
"""


def test_a_killed_writer_leaves_no_sidecar(tmp_path):
    write_shards(TEXTS, ByteTokenizer(), tmp_path)    # an earlier, whole set must not vouch for the new files
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
        open_shards(tmp_path)
    write_shards(TEXTS[:20], ByteTokenizer(), tmp_path, 0.3)      # a new writer clears up behind it
    assert sorted(os.listdir(tmp_path)) == ["shards.json", "train_00000.bin", "val_00000.bin"]
