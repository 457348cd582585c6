"""Training a vocabulary: equal to the definition that counts every pair afresh, and to Hugging Face's trainer."""
import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_texts import ENGLISH, MIXED

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.formats import BYTE_ORDER, bytes_to_chars
from minillm.tokenizer.train import count_words, learn_merges


def naive_merges(words, n_merges):
    """The definition: count every pair afresh, merge the most frequent (ties: smaller ids), repeat."""
    words = [([BYTE_ORDER.index(byte) for byte in word.encode()], count) for word, count in words.items()]
    merges = []
    while len(merges) < n_merges:
        counts = Counter()
        for ids, count in words:
            for pair in pairwise(ids):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        new = 256 + len(merges)
        merges.append(best)
        words = [(replaced(ids, best, new), count) for ids, count in words]
    return merges


def replaced(ids, pair, new):
    out = []
    for id in ids:
        out.append(id)
        if tuple(out[-2:]) == pair:
            out[-2:] = [new]
    return out


@settings(derandomize=True, deadline=None, max_examples=150)
@given(words=st.dictionaries(st.text("ab", min_size=1, max_size=14) | st.text("abcé", min_size=1, max_size=8),
                             st.integers(1, 5), max_size=12), n_merges=st.integers(0, 60))
@example(words={"aaaaaaa": 2, "aaa": 1}, n_merges=9)
def test_incremental_training_equals_rescanning(words, n_merges):
    assert learn_merges(words, n_merges) == naive_merges(words, n_merges)


def test_training_equals_rescanning_on_prose():
    words = count_words(ENGLISH[:20_000], "gpt2", frozenset())
    assert learn_merges(words, 150) == naive_merges(words, 150)


def test_training_is_deterministic_and_takes_texts_and_files(tmp_path, tok):
    text = ENGLISH[:30_000] + "\r\n" + MIXED
    (tmp_path / "a.txt").write_bytes(text.encode("utf-8"))
    (tmp_path / "b.txt").write_bytes(b"more words")
    one = Tokenizer.train([text, "more words"], 500)
    two = Tokenizer.train(iter([tmp_path / "a.txt", tmp_path / "b.txt"]), 500)
    assert one.merges == two.merges and one.vocab_size == two.vocab_size == 500
    assert Tokenizer.train(text, 500).merges == Tokenizer.train(tmp_path / "a.txt", 500).merges


def test_training_stops_when_no_pair_is_left():
    most = r"vocab_size.* at most 259 tokens \(256 bytes, 2 merges, 1 special\): got 260"
    with pytest.raises(ValueError, match=most):
        Tokenizer.train("ab ab", vocab_size=260)
    assert Tokenizer.train("ab ab", vocab_size=259).vocab_size == 259
    tok = Tokenizer.train("ab ab", vocab_size=10_000, stop_early=True)
    assert tok.merges == [(b"a", b"b"), (b" ", b"ab")]
    assert tok.vocab_size == 259 and tok.eot_token == 258
    assert Tokenizer.train("", 257).merges == []


def test_training_reports_progress():
    seen = []
    Tokenizer.train(ENGLISH[:20_000], 457, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (64, 200) and seen[-1] == (200, 200) and seen == sorted(seen)


@pytest.mark.parametrize("arguments, named", [
    ({"vocab_size": 256}, "vocab_size"), ({"vocab_size": "big"}, "vocab_size"), ({"vocab_size": True}, "vocab_size"),
    ({"vocab_size": 257, "special_tokens": ["<a>", "<b>"]}, "vocab_size"),
    ({"vocab_size": 2000}, "vocab_size.*at most 264"), ({"pattern": "gpt9"}, "pattern"),
    ({"special_tokens": "<a>"}, "special_tokens"),
    ({"special_tokens": ["<a>", "<a>"]}, "special_tokens"), ({"special_tokens": [""]}, "special_tokens"),
    ({"special_tokens": ["a"], "vocab_size": 260}, "special token 'a'"), ({"files_or_texts": []}, "files_or_texts"),
    ({"files_or_texts": ""}, "files_or_texts"), ({"files_or_texts": 5}, "files_or_texts"),
    ({"files_or_texts": b"abc"}, "files_or_texts")])
def test_training_refuses(arguments, named):
    with pytest.raises(ValueError, match=named):
        Tokenizer.train(**({"files_or_texts": "some text", "vocab_size": 300} | arguments))


def test_training_refuses_files_that_are_no_text(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"abc\xff\xfe")
    with pytest.raises(ValueError, match="bad.txt"):
        Tokenizer.train(tmp_path / "bad.txt", 300)
    with pytest.raises(FileNotFoundError, match="none.txt"):
        Tokenizer.train(tmp_path / "none.txt", 300)


@pytest.mark.parametrize("text", [ENGLISH, MIXED * 3 + ENGLISH[:20_000], "aaaa aaaaaaa aaa aa abab ababab"],
                         ids=["english", "mixed", "runs"])
def test_merges_equal_hugging_face_training(text):
    hf = pytest.importorskip("tokenizers")
    theirs = hf.Tokenizer(hf.models.BPE())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.train_from_iterator([text], hf.trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet()))
    ours = Tokenizer.train(text, 1500, stop_early=True)
    merges = [tuple(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]
    assert [tuple(map(bytes_to_chars, pair)) for pair in ours.merges] == merges
    # They put the special token first, we put it last: the order of all others is the same.
    by_id = sorted(theirs.get_vocab(), key=theirs.get_vocab().get)
    assert [bytes_to_chars(ours.token_bytes(i)) for i in range(ours.vocab_size - 1)] == by_id[1:]
