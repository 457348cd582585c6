"""The data room: bundled corpus, stories with a known entropy, reading files, shards, and the loader."""
import gzip
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import corpus, extract, loader, shards, stories

quick = settings(derandomize=True, deadline=None, max_examples=40)


class ByteTokenizer:
    """One id a byte, 256 ends a text."""
    vocab_size, eot_token = 257, 256

    def encode(self, text):
        return list(text.encode())


# ---- corpus --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def documents():
    pytest.importorskip("pydoc_data.topics")
    return corpus.pydoc_corpus()


def test_corpus_is_large_sorted_clean_and_distinct(documents):
    names, texts = zip(*documents)
    assert sum(len(text.encode()) for text in texts) > 1.5e6
    assert list(names) == sorted(names) and len(set(names)) == len(names) and len(set(texts)) == len(texts)
    assert {"topic while", "module argparse"} <= set(names)
    for text in texts:
        assert text == text.strip() != "" and "\r" not in text and "\t" not in text and "\n\n\n" not in text


def test_corpus_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    pytest.importorskip("pydoc_data.topics")
    twins = {"a.py": 1, "b.py": 1, "c/d.py": 2, "e/f.py": 2, "e/g/h.py": 3}      # of one text the first is to stay
    for name, text in twins.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'"""This is the docstring of module number {text}."""')
    expected = corpus.pydoc_corpus(tmp_path)
    assert [name for name, _ in expected[:3]] == ["module a", "module c.d", "module e.g.h"]
    walk = os.walk

    def shuffled(root):
        for folder, subfolders, files in walk(root):
            subfolders.reverse()
            files.reverse()
            yield folder, subfolders, files
    monkeypatch.setattr(corpus.os, "walk", shuffled)
    assert corpus.pydoc_corpus(tmp_path) == expected


def test_describe_corpus():
    line = corpus.describe_corpus([("a", "é" * 1_000_000), ("b", "b" * 500_000)])
    assert line.startswith(f"2 documents, 2.5 MB: Python {sys.version.split()[0]}'s language reference")


SOURCE = '''"""The module's own docstring,

  with an  indented line."""
# A comment of two lines that says in plain words
# what the function below it is good for.
def f(x):
    """Return the argument, which is here only because of its docstring."""
    # x = compute_something(x)
    # return x + offset_of(x)
    text = """
    # not a comment but the inside of a string,
    # although it looks like one at first sight
    """
    return x
class C:
    """Small."""
    def method(self):
        """Return the argument, which is here only because of its docstring."""
'''


def test_module_pieces(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    function = "Return the argument, which is here only because of its docstring."
    assert corpus.module_pieces(path) == [
        "The module's own docstring,\n\nwith an  indented line.",
        "A comment of two lines that says in plain words\nwhat the function below it is good for.", function, function]


def test_corpus_passes_over_bad_files_tests_and_repeats(tmp_path):
    pytest.importorskip("pydoc_data.topics")
    for name, content in {"a.py": SOURCE.encode(), "b.py": SOURCE.encode(), "broken.py": b"def (",
                          "latin.py": b"'\xff'", "nul.py": b"\0",
                          "test/c.py": SOURCE.encode().replace(b"own", b"other"),
                          "p/__init__.py": b'"""A package is a module as well, and it has a docstring."""'}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    names = [name for name, _ in corpus.pydoc_corpus(tmp_path) if name.startswith("module")]
    assert names == ["module a", "module p"]


def test_corpus_without_the_language_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)   # makes the import fail
    with pytest.raises(FileNotFoundError, match="pydoc_data"):
        corpus.pydoc_corpus()


# ---- stories -------------------------------------------------------------------------------------

def test_stories_are_seeded_and_extend():
    assert stories.stories(30, seed=1)[:10] == stories.stories(10, seed=1) != stories.stories(10, seed=2)
    assert stories.stories(0, seed=1) == []
    with pytest.raises(ValueError, match="count"):
        stories.stories(-1, seed=0)


def test_entropy_and_length_agree_with_a_sample():
    sample = stories.stories(4000, seed=0)
    for exact, values in [(stories.entropy_bits(), [-stories.log2_probability(text) for text in sample]),
                          (stories.expected_bytes(), [len(text.encode()) for text in sample])]:
        error = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.mean(values) - exact) < 4 * error
        assert 0 < error < 0.01 * exact
    assert 60 < stories.entropy_bits() < 110 and len(set(sample)) == len(sample)


def test_no_option_begins_another():
    """So every choice can be told from the text as soon as it is read: distinct choices, distinct texts."""
    for name, drawn in stories.STORY.tables.items():
        for options in drawn.choices.values():
            for one, other in itertools.combinations(options, 2):
                common = len(os.path.commonprefix([one, other]))
                first = one[common:common + 1], other[common:common + 1]
                assert all(first) and not set(first) & set("<{"), (name, one, other)
                assert not set(one[:common]) & set("<{"), (name, one, other)


def test_probability_is_that_of_the_choices_made():
    """Record each draw's probability while generating; reading the text must give their product."""
    class Recorder(random.Random):
        def choices(self, population, weights):
            chosen = super().choices(population, weights)
            self.bits += math.log2(weights[population.index(chosen[0])] / sum(weights))
            return chosen
    rng = Recorder(5)
    for _ in range(200):
        rng.bits = 0.0
        text = stories.STORY.generate(rng)
        assert stories.log2_probability(text) == pytest.approx(rng.bits, abs=1e-9)


def test_agreement_over_a_distance_is_checked():
    text = stories.stories(1, seed=3)[0]
    thing = text.split(" from ")[0].split()[-1]
    other = "ball" if thing != "ball" else "key"
    head, tail = text[:-60], text[-60:]
    assert thing in tail
    for wrong in (head + tail.replace(thing, other), text + " ", text[:-1], ""):
        with pytest.raises(ValueError, match="not a story"):
            stories.log2_probability(wrong)


SMALL = stories.Grammar("<who> has <gift>. <end>", {
    "who": stories.table("Ann|Bob|Cyd"),
    "she": stories.table_given("who", {"Ann": "she", "Bob": "he", "Cyd": "she|they"}),
    "gift": stories.table("a <colour> hat|ten <coin>"),
    "colour": stories.table_given("who", {"Ann": "red|blue", "Bob": "green", "Cyd": "red|green|white"}),
    "coin": stories.table("pennies|marks"),
    "end": stories.table("So <she> sings|{who} has nothing")})


def every_text(grammar, template, state):
    """All (text, probability, state) that `template` can write: the grammar once more, by brute force."""
    results = [("", 1.0, state)]
    for kind, value in grammar.tokens(template):
        grown = []
        for text, p, state in results:
            if kind != "draw":
                grown.append((text + (value if kind == "text" else state[value]), p, state))
                continue
            options = grammar.tables[value].options(state)
            for option, weight in options.items():
                for more, q, inner in every_text(grammar, option, {**state, value: option}):
                    grown.append((text + more, p * weight / sum(options.values()) * q, inner))
        results = grown
    return results


def test_a_small_grammar_exhaustively():
    texts = [(text, p) for text, p, _ in every_text(SMALL, SMALL.start, {})]
    assert len({text for text, _ in texts}) == len(texts) > 20
    assert sum(p for _, p in texts) == pytest.approx(1, abs=1e-12)
    for text, p in texts:
        assert SMALL.log2_probability(text) == pytest.approx(math.log2(p), abs=1e-12)
    bits, size = SMALL.expectations
    assert bits == pytest.approx(-sum(p * math.log2(p) for _, p in texts), abs=1e-12)
    assert size == pytest.approx(sum(p * len(text) for text, p in texts), abs=1e-12)


# ---- extract -------------------------------------------------------------------------------------

def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_folder_is_read_in_order_and_skips_are_counted(tmp_path):
    fill(tmp_path, {
        "b.txt": "bee", "a.md": "ay", "sub/c.py": "x = 1\r\ny = 2", "z.txt.gz": gzip.compress(b"zed"),
        "bom.txt": b"\xef\xbb\xbfbom", "wide.txt": "wide é".encode("utf-16"),
        ".hidden.txt": "no", ".git/d.txt": "no", "picture.png": b"\x89PNG", "empty.txt": " \n",
        "nul.txt": b"ab\0cd", "control.txt": b"\x01\x02\x03abc", "latin.txt": b"caf\xe9", "bad.txt.gz": b"no gzip"})
    os.symlink(tmp_path / "missing", tmp_path / "dangling.txt")
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    os.symlink(tmp_path / "b.txt", tmp_path / "twice.txt")
    report = extract.Report()
    documents = list(extract.read_documents(tmp_path, report))
    assert [(os.path.relpath(name, tmp_path), text) for name, text in documents] == [
        ("a.md", "ay"), ("b.txt", "bee"), ("bom.txt", "bom"), ("wide.txt", "wide é"), ("z.txt.gz", "zed"),
        ("sub/c.py", "x = 1\ny = 2")]
    assert report.skipped == {"of another kind": 1, "empty": 1, "binary": 2, "not UTF-8": 1, "unreadable": 2,
                              "already read under another name": 1}
    assert report.documents == 6 and report.bytes == sum(len(text.encode()) for _, text in documents)
    assert "6 documents" in str(report) and "skipped 8: 2 binary (" in str(report) and "control.txt" in str(report)


def test_jsonl_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "LONGEST_LINE", 100)
    lines = [b'{"text": "one"}', b'{"text": "two', b"", b'{"body": "three"}', b'{"text": 4}', b'["text"]',
             b'{"text": ""}', b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b"[" * 99_999,
             b'{"text": "' + b"x" * 250 + b'"}', b'{"text": "last"}']
    fill(tmp_path, {"a.jsonl": b"\n".join(lines), "b.jsonl.gz": gzip.compress(b'{"text": "zipped"}\n')})
    report = extract.Report()
    documents = list(extract.read_documents([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"], report))
    assert [(name.split("/")[-1], text) for name, text in documents] == [
        ("a.jsonl:1", "one"), ("a.jsonl:13", "last"), ("b.jsonl.gz:1", "zipped")]
    assert report.skipped == {"bad JSON": 1, "without a text field 'text'": 3, "empty": 1, "not UTF-8": 2, "binary": 1,
                              "line too long": 2}
    assert [text for _, text in extract.read_documents(tmp_path / "a.jsonl", field="body")] == ["three"]


def test_deep_json_is_a_counted_skip(tmp_path):
    fill(tmp_path, {"a.jsonl": b"[" * 200_000 + b'\n{"text": "after"}'})
    report = extract.Report()
    assert [text for _, text in extract.read_documents(tmp_path, report)] == ["after"]
    assert report.skipped == {"bad JSON": 1}


@quick
@given(st.lists(st.sampled_from(["word", "a", " ", "\n", "\n\n", "é", "🙂"]), max_size=80).map("".join),
       st.integers(4, 20))
def test_pieces_join_to_the_text(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("pieces") / "big.txt"
    path.write_text(text + "end", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "PIECE_CHARACTERS", size)
        pieces = [piece for _, piece in extract.read_documents(path)]
    assert all(len(piece) <= 2 * size for piece in pieces)
    assert "".join(pieces).split() == (text + "end").split()


def test_a_big_text_file_is_cut_at_paragraphs_and_never_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "PIECE_CHARACTERS", 1000)
    paragraph = "A line of text.\nAnd another one.\n\n"
    path = fill(tmp_path, {"big.txt": paragraph * 200}) / "big.txt"
    documents = list(extract.read_documents(path))
    assert "".join(text for _, text in documents) == paragraph * 200
    assert len(documents) >= 6 and all(text.endswith("\n\n") for _, text in documents)
    assert [name for name, _ in documents[:2]] == [str(path), f"{path}#2"]


def test_explicit_files_missing_paths_and_nothing_usable(tmp_path):
    fill(tmp_path, {"notes.weird": "text all the same", "sub/x.png": b"x", "sub/e.txt": ""})
    assert [text for _, text in extract.read_documents([str(tmp_path / "notes.weird")])] == ["text all the same"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        extract.read_documents([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no usable text.*1 empty.*1 of another kind"):
        list(extract.read_documents(tmp_path / "sub"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission_is_a_counted_skip(tmp_path):
    fill(tmp_path, {"a.txt": "a", "secret.txt": "s"})
    (tmp_path / "secret.txt").chmod(0)
    report = extract.Report()
    assert len(list(extract.read_documents(tmp_path, report))) == 1 and report.skipped == {"unreadable": 1}


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
