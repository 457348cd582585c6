"""The tokenizer: round trips, agreement with a naive trainer, with Hugging Face's and with tiktoken."""
import json
import pydoc_data.topics
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.tokenizer import Tokenizer, pretokenize
from minillm.tokenizer import merge as merging
from minillm.tokenizer.formats import BYTE_ORDER, bytes_to_chars
from minillm.tokenizer.merge import merge_long, merge_short
from minillm.tokenizer.pretokenize import PATTERNS, compile_pattern, safe_pieces, split_special
from minillm.tokenizer.train import count_words, learn_merges

SPECIALS = ["<|endoftext|>", "<|user|>", "<|user|><|again|>"]
MIXED = ("Don't they've 'll I'D  end.\n\n\tdef f(x):\r\n    return x**2 + 12345.678\n  \n"
         "naïve café Ünïcödé 中文，没有空格。日本語テキスト русский текст עברית हिन्दी 😀👩‍👩‍👧 \u3000 \x85 \x1c 'ſ a\u0301 ")
ENGLISH = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))[:300_000]

# Letters, blanks and apostrophes that patterns care about, then any character that has been in Unicode for long.
fussy = st.sampled_from(list("aBstl'12 .,-\n\r\t\u3000\u00e9中ſ😀") + ["'s", "'LL", "  ", "\n\n", "the", " of", "123"])
characters = st.characters(exclude_categories=("Cs", "Cn", "Co"))
texts = st.lists(fussy | characters, max_size=30).map("".join)
seldom = settings(derandomize=True, deadline=None, max_examples=60)
often = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.fixture(scope="module", params=sorted(PATTERNS))
def tok(request):
    return Tokenizer.train([ENGLISH, MIXED * 3], vocab_size=1200, special_tokens=SPECIALS, pattern=request.param)


# ---- round trip

@often
@given(text=st.text(st.characters(exclude_categories=("Cs",))) | texts)
@example(text="")
def test_every_text_comes_back(tok, text):
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert tok.decode_bytes(ids) == text.encode("utf-8")
    assert tok.encode_ordinary(text) == ids and tok.decode(tok.encode(text, allowed_special="all")) == text
    assert b"".join(map(tok.token_bytes, ids)) == text.encode("utf-8")


@often
@given(data=st.binary())
def test_any_bytes_have_ids(tok, data):
    ids = [BYTE_ORDER.index(byte) for byte in data]
    assert tok.decode_bytes(ids) == data
    assert tok.decode(ids) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["a" * 100_000, " " * 100_000, "\n" * 50_000 + "x", "😀" * 20_000, "ab" * 50_000,
                                  "'" * 50_000, "1" * 50_000, "the" * 30_000], ids=lambda text: repr(text[:6]))
def test_endless_words_come_back_quickly(tok, text):
    assert tok.decode(tok.encode(text)) == text


def test_surrogates_are_joined_or_replaced(tok):
    assert tok.encode("\ud83d\ude00") == tok.encode("😀")
    assert tok.encode("a\ud83d z\ude00") == tok.encode("a\ufffd z\ufffd")
    assert list(tok.encode_iterable(["a\ud83d", "\ude00z"])) == tok.encode("a😀z")
    assert count_words("x\ud83d\ude00 \ud83d", "gpt2", frozenset()) == count_words("x😀 \ufffd", "gpt2", frozenset())


def test_the_ways_of_encoding_agree(tok):
    ids = tok.encode(ENGLISH + MIXED)
    assert len(ids) < len(ENGLISH) / 2
    assert tok.encode_batch([ENGLISH + MIXED, "", "a"]) == [ids, [], tok.encode("a")]
    array = tok.encode_array(ENGLISH + MIXED)
    assert array.dtype == np.uint16 and array.tolist() == ids
    assert tok.decode(array) == ENGLISH + MIXED
    assert tok.encode(ENGLISH + MIXED) == ids       # warm cache


def test_large_vocabularies_need_uint32():
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    specials = {f"<{i}>": i for i in range(256, 70_000)}
    tok = Tokenizer(tokens + [text.encode() for text in specials], [], specials)
    assert tok.encode_array("a<69999>", {"<69999>"}, ()).dtype == np.uint32
    assert tok.encode_array("a<69999>", {"<69999>"}, ()).tolist() == [BYTE_ORDER.index(ord("a")), 69_999]


def test_the_cache_is_bounded_and_does_not_matter(tok, monkeypatch):
    text = ENGLISH[:20_000]
    ids = tok.encode(text)
    monkeypatch.setattr(merging, "CACHED_WORDS", 10)
    tok._words.clear()
    assert tok.encode(text) == ids
    assert len(tok._words) <= 10
    tok.encode("q" * 1000)
    assert "q" * 1000 not in tok._words


# ---- special tokens

def test_specials_come_last_and_only_when_allowed(tok):
    end, user, again = (tok.special_tokens[text] for text in SPECIALS)
    assert [end, user, again] == [1197, 1198, 1199] and tok.eot_token == end and tok.vocab_size == 1200
    text = "hi<|endoftext|><|user|>there"
    assert not set(tok.encode_ordinary(text)) & {end, user, again}
    assert tok.decode(tok.encode_ordinary(text)) == text
    assert tok.encode(text, {"<|user|>"}, ()) == tok.encode_ordinary("hi<|endoftext|>") + [user] + tok.encode("there")
    assert tok.encode(text, "all") == tok.encode("hi") + [end, user] + tok.encode("there")
    assert tok.encode("<|user|><|again|><|user|>", "all") == [again, user]      # the longest first
    assert tok.token_bytes(end) == b"<|endoftext|>"


def test_specials_are_not_learned():
    with_special = Tokenizer.train("ab<|endoftext|>" * 50, 258)
    assert with_special.merges == [(b"a", b"b")]


@pytest.mark.parametrize("allowed", ["<|endoftext|>", {"<|nobody|>"}])
def test_wrong_allowed_special(tok, allowed):
    with pytest.raises(ValueError, match="allowed_special"):
        tok.encode("x", allowed)


# ---- streams

pieces_of_text = st.lists(fussy | characters | st.sampled_from([*SPECIALS, "<|", "|>", "\ud83d", "\ude00"]), max_size=40)


@pytest.mark.parametrize("allowed", [frozenset(), frozenset(SPECIALS)], ids=["plain", "specials"])
@pytest.mark.parametrize("size", [1, 5, 30])
@settings(derandomize=True, deadline=None, max_examples=150)
@given(chunks=pieces_of_text)
@example(chunks=["x\n", "\n-"])
@example(chunks=["'l", "l"])
@example(chunks=["<|user|>", "<|again|>"])
@example(chunks=["a", "\ud835", "\udc1a"])
def test_a_stream_gives_the_words_and_ids_of_the_joined_text(tok, size, allowed, chunks):
    text = "".join(chunks)
    pretokenize.PIECE, before = size, pretokenize.PIECE     # tiny pieces: every kind of cut comes up
    try:
        pieces = list(safe_pieces(chunks, allowed, tok.pattern))
        streamed = list(tok.encode_iterable(chunks, allowed, ()))
    finally:
        pretokenize.PIECE = before
    assert "".join(pieces) == text
    assert [word for piece in pieces for word in words_of(tok, piece, allowed)] == words_of(tok, text, allowed)
    assert streamed == tok.encode(text, allowed, ())


def words_of(tok, text, allowed):
    find_words = compile_pattern(tok.pattern).findall
    return [word for segment, is_special in split_special(text, allowed)
            for word in ([segment] if is_special else find_words(segment))]


@pytest.mark.parametrize("line", ["The quick brown fox, 12 times.\n", "中文，没有空格。\n", "x=1\r\n", "<|endoftext|>"])
def test_a_stream_is_held_in_small_pieces(line):
    pieces = list(safe_pieces([line] * 30_000, frozenset(SPECIALS)))
    assert "".join(pieces) == line * 30_000
    assert max(map(len, pieces)) <= pretokenize.PIECE + len(line)


def test_a_stream_without_a_safe_cut_is_still_right(tok):
    assert list(tok.encode_iterable(["-\n"] * 100_000)) == tok.encode("-\n" * 100_000)


# ---- pre-tokenization

@pytest.mark.parametrize("name, published", [
    ("gpt2", r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    ("cl100k", (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
               r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"))])
@often
@given(text=texts)
@example(text="a\n  ")
@example(text="a \n\n  b")
def test_patterns_split_like_the_published_ones(name, published, text):
    words = compile_pattern(name).findall(text)
    assert words == regex.findall(published, text)
    assert "".join(words) == text


def test_pattern_samples():
    split = compile_pattern("gpt2").findall
    assert split("I'll  go,\n\n 42x") == ["I", "'ll", " ", " go", ",", "\n\n", " 42", "x"]
    assert compile_pattern("cl100k").findall("I'LL 1234.\n\nb") == ["I", "'LL", " ", "123", "4", ".\n\n", "b"]


# ---- training

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
    with pytest.raises(ValueError, match=r"vocab_size.* at most 259 tokens \(256 bytes, 2 merges, 1 special\): got 260"):
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
    ({"vocab_size": 2000}, "vocab_size.*at most 264"), ({"pattern": "gpt9"}, "pattern"), ({"special_tokens": "<a>"}, "special_tokens"),
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


# ---- merging and decoding

@often
@given(word=st.text("abcdé", max_size=60) | st.text("a", max_size=60))
def test_the_heap_merges_like_the_plain_loop(word):
    counts = {"abcab": 3, "aaaa": 2, "cdé": 2, "bcd": 4, "aab": 1, "dédé": 1}
    merges = learn_merges(counts, 40)
    ranks, made = {pair: rank for rank, pair in enumerate(merges)}, list(range(256, 256 + len(merges)))
    ids = [BYTE_ORDER.index(byte) for byte in word.encode()]
    assert merge_long(ids, ranks, made) == merge_short(ids, ranks, made)


@pytest.mark.parametrize("bad", [-1, 1200, 10**12, "a", None])
def test_unknown_ids_are_named(tok, bad):
    with pytest.raises(ValueError, match=str(bad)):
        tok.decode([1, bad])
    with pytest.raises(ValueError, match=str(bad)):
        tok.token_bytes(bad)


def test_only_text_can_be_encoded(tok):
    with pytest.raises(ValueError, match="bytes"):
        tok.encode(b"abc")


# ---- against the tokenizers that everybody uses

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


@pytest.fixture(scope="module")
def saved(tok, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    tok.save(directory)
    tok.save_vocab_merges(directory)
    return directory


@pytest.fixture(scope="module")
def theirs(saved):
    return pytest.importorskip("tokenizers").Tokenizer.from_file(str(saved / "tokenizer.json"))


@often
@given(text=texts)
@example(text=MIXED)
@example(text=ENGLISH[:50_000])
@example(text="a\n  ")
@example(text="hi <|endoftext|>\n<|user|><|again|>  x")
def test_ids_equal_hugging_face(tok, theirs, text):
    encoding = theirs.encode(text, add_special_tokens=False)
    assert encoding.ids == tok.encode(text, allowed_special="all")
    assert theirs.decode(encoding.ids, skip_special_tokens=False) == text


def test_ids_equal_transformers(tok, saved):
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(saved / "tokenizer.json"))
    text = MIXED + ENGLISH[:50_000] + "<|endoftext|>"
    assert fast(text)["input_ids"] == tok.encode(text, "all")
    assert fast.vocab_size == tok.vocab_size - len(SPECIALS) or fast.vocab_size == tok.vocab_size


def test_hugging_face_reads_vocab_and_merges(tok, saved):
    hf = pytest.importorskip("tokenizers")
    model = hf.models.BPE.from_file(str(saved / "vocab.json"), str(saved / "merges.txt"))
    theirs = hf.Tokenizer(model)
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if tok.pattern == "gpt2":
        assert theirs.encode(MIXED).ids == tok.encode(MIXED)


def test_we_read_what_hugging_face_writes(tmp_path):
    hf = pytest.importorskip("tokenizers")
    theirs = hf.Tokenizer(hf.models.BPE())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = hf.decoders.ByteLevel()
    theirs.train_from_iterator([ENGLISH], hf.trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<|endoftext|>", "<|pad|>"], show_progress=False,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet()))
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.special_tokens == {"<|endoftext|>": 0, "<|pad|>": 1} and ours.vocab_size == 800
    text = MIXED + ENGLISH[:30_000] + "<|pad|>"
    assert ours.encode(text, "all") == theirs.encode(text).ids


@pytest.fixture(scope="module")
def encoding(tok):
    """tiktoken with our ranks and its own form of the pattern."""
    pytest.importorskip("tiktoken")
    import tiktoken
    published = {"gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
                 "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
                           r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
                 "o200k": PATTERNS["o200k"]}
    special_ids = set(tok.special_tokens.values())
    ranks = {tok.token_bytes(i): i for i in range(tok.vocab_size) if i not in special_ids}
    return tiktoken.Encoding("ours", pat_str=published[tok.pattern], mergeable_ranks=ranks,
                             special_tokens=tok.special_tokens)


@often
@given(text=texts)
@example(text=MIXED)
@example(text=ENGLISH[:50_000])
@example(text="a\n  ")
@example(text="\ud83d\ude00 \ud83d 'ſ")
@example(text="a" * 1000)
def test_ids_equal_tiktoken(tok, encoding, text):
    assert encoding.encode(text, disallowed_special=()) == encoding.encode_ordinary(text) == tok.encode_ordinary(text)
    assert encoding.encode(text + "<|user|>", allowed_special="all") == tok.encode(text + "<|user|>", "all")
