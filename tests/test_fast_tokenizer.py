"""The C++ tokenizer against the readable one, `regex`, tiktoken and Hugging Face; bad cases; threads; hostile files."""
import json
import random
import time
import tracemalloc
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_tokenizer import ENGLISH, MIXED, SPECIALS, characters, fussy, texts

from minillm.tokenizer import Tokenizer, fast, pretokenize
from minillm.tokenizer.bpe import learn
from minillm.tokenizer.formats import BYTE_ORDER, parse_merge
from minillm.tokenizer.pretokenize import PATTERNS, compile_pattern

core = fast.load_extension()
needs_core = pytest.mark.skipif(core is None, reason="the C++ tokenizer is not built")
pytestmark = needs_core
BUILT_IN = ("gpt2", "cl100k", "o200k")
often = settings(derandomize=True, deadline=None, max_examples=200)
seldom = settings(derandomize=True, deadline=None, max_examples=60)

awkward = st.sampled_from(["'s", "'S", "'ſ", "'ll", "'Re", "\u0301", "ǅ", "ʰ", "\u00a0", "\u3000", "\u2028", "\r", "\n", " ", "  ",
                           "/", "A", "bc", "1234", "٣", "中", "É", "é", "😀", "<|", "\x1c", "\x85"])
fussy_texts = st.lists(fussy | awkward | characters, max_size=40).map("".join)


def words(text, pattern):
    """The text cut by C++."""
    data = text.encode("utf-8")
    starts = core.word_starts(text, pattern).tolist() + [len(data)]
    return [data[start:end].decode("utf-8") for start, end in pairwise(starts)]


# ---- pre-tokenizer

@pytest.mark.parametrize("pattern", BUILT_IN)
@often
@given(text=st.text(st.characters(exclude_categories=("Cs",))) | fussy_texts)
def test_words_equal_regex(pattern, text):
    assert words(text, pattern) == compile_pattern(pattern).findall(text)


@pytest.mark.parametrize("pattern", BUILT_IN)
def test_words_equal_regex_across_chunks(pattern):
    """Long runs and random mixtures longer than a chunk, so that every kind of word meets a chunk's end."""
    rng = random.Random(1)
    alphabet = list("aBst'12 .,-\n\r\t/中ſ😀é\u0301\u3000") + ["'s", "'LL", "\u00a0", "A", "the "]
    for _ in range(25):
        text = "".join(rng.choice(alphabet) * rng.choice([1] * 9 + [rng.randint(1, 300)]) for _ in range(8000))
        assert words(text, pattern) == compile_pattern(pattern).findall(text)


LONG = ["a" * 60_000, " " * 60_000, "\n" * 50_000 + "x", " " * 20_000 + "x" + "\n" * 20_000 + " " * 20_000 + "a",
        "中" * 20_000, "A" * 30_000 + "b" * 30_000, "!" * 30_000 + "\n" * 30_000, "\u0301" * 20_000 + "A",
        "中" * 9000 + "A" * 20_000, "'" * 40_000, "1" * 40_000, "\u3000" * 20_000 + "x"]


@pytest.mark.parametrize("pattern", BUILT_IN)
def test_endless_words_equal_regex(pattern):
    for text in LONG:
        assert words(text, pattern) == compile_pattern(pattern).findall(text), text[:3]


CONTEXTS = ["{0}a{0}1 {0}", "\n{0}A{0}'s", " '{0}{0}\n!", "\t {0}\u0301/"]
COMMON = [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200)]
REST = [*range(0x34000, 0xE0000), *range(0xE0200, 0x110000)]


@pytest.mark.parametrize("pattern", BUILT_IN)
def test_every_character_is_cut_as_by_regex(pattern):
    """All code points, those that may be assigned in several contexts; equal to the installed `regex`, or, where that
    knows another Unicode than the tables, at least for all characters that had a class when the tables were made."""
    same_unicode = core.REGEX_VERSION == regex.__version__
    known = COMMON if same_unicode else [c for c in COMMON if regex.match(r"[\p{L}\p{M}\p{N}\p{Z}]", chr(c), regex.V0)
                                         and c < 0x3000]
    for start in range(0, len(known), 60_000):
        some = "".join(map(chr, known[start:start + 60_000]))
        text = "".join(context.replace("{0}", char) for char in some for context in CONTEXTS)
        assert cut_places(text, pattern) == regex_places(text, pattern)
    text = "a".join(map(chr, REST))
    assert cut_places(text, pattern) == regex_places(text, pattern)


def cut_places(text, pattern):
    starts = core.word_starts(text, pattern)
    lead = (np.frombuffer(text.encode("utf-8"), np.uint8) & 0xC0) != 0x80
    return (np.cumsum(lead)[starts] - 1).tolist()


def regex_places(text, pattern):
    lengths = list(map(len, compile_pattern(pattern).findall(text)))
    return [0, *np.cumsum(lengths[:-1]).tolist()]


def test_a_pattern_of_ones_own_goes_through_regex():
    pretokenize.register_pattern("pairs", r"[\s\S]{1,2}")
    pretokenize.register_pattern("pairs", r"[\s\S]{1,2}")
    with pytest.raises(ValueError, match="known already"):
        pretokenize.register_pattern("pairs", r".")
    with pytest.raises(ValueError, match="regular expression"):
        pretokenize.register_pattern("broken", r"(")
    both = [Tokenizer.train("abcabdabxab\n" * 9, 260, pattern="pairs", backend=backend) for backend in ("cpp", "python")]
    assert both[0].merges == both[1].merges
    text = "abcab\nd<|endoftext|>😀ab"
    assert both[0].encode(text, "all") == both[1].encode(text, "all")
    assert both[0].encode_batch([text, "", "ab"], "all") == both[1].encode_batch([text, "", "ab"], "all")
    assert list(both[0].encode_iterable([text, text], "all")) == both[1].encode(text + text, "all")
    del PATTERNS["pairs"]


# ---- encoding

@pytest.fixture(scope="module", params=BUILT_IN)
def pair(request):
    """The same vocabulary, encoded by C++ and by Python."""
    cpp = Tokenizer.train([ENGLISH, MIXED * 3], 1500, SPECIALS, request.param, backend="cpp")
    parts = [cpp.token_bytes(i) for i in range(cpp.vocab_size)], cpp.merges, cpp.special_tokens, cpp.pattern
    return cpp, Tokenizer(*parts, backend="python")


def test_who_encodes_is_known(pair):
    assert [tok.backend for tok in pair] == ["cpp", "python"]
    with pytest.raises(ValueError, match="backend must be one of"):
        Tokenizer.train("abc" * 9, 260, backend="rust")


@often
@given(text=fussy_texts | texts, chosen=st.sets(st.sampled_from(SPECIALS)))
@example(text=ENGLISH[:100_000], chosen=set())
@example(text="<|user|><|again|><|user|>  <|endoftext|>", chosen=set(SPECIALS))
def test_ids_equal_python(pair, text, chosen):
    cpp, python = pair
    assert cpp.encode(text, chosen, ()) == python.encode(text, chosen, ())
    assert cpp.encode_ordinary(text) == python.encode_ordinary(text) == cpp.encode_ordinary(text)      # cold, warm
    assert cpp.encode_array(text, "all").dtype == python.encode_array(text, "all").dtype == np.uint16
    assert cpp.decode(cpp.encode_array(text, chosen, ())) == text


@seldom
@given(chunks=st.lists(fussy | awkward | st.sampled_from(SPECIALS), max_size=30),
       letters=st.text("abcdefghijklmnopqrstuvwxyz", min_size=30, max_size=120))
def test_long_words_equal_python(pair, chunks, letters):
    text = letters + "".join(chunks) + letters * 3
    assert pair[0].encode(text, "all") == pair[1].encode(text, "all")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_equal_single_texts(pair, threads):
    rng = random.Random(threads)
    batch = [ENGLISH[i:i + rng.choice([0, 1, 10, 1000, 20_000])] for i in rng.sample(range(200_000), 150)] + [MIXED, ""]
    expected = [pair[1].encode(text, "all") for text in batch]
    assert pair[0].encode_batch(batch, "all", threads=threads) == expected
    ids, ends = pair[0].encode_batch_array(batch, "all", threads=threads)
    assert ids.tolist() == list(chain(*expected)) and ends.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert pair[0].encode_batch([], threads=threads) == [] == pair[1].encode_batch([])


def test_batches_of_anything_but_text_are_refused(pair):
    for tok in pair:
        with pytest.raises(ValueError, match="text must be str"):
            tok.encode_batch(["a", b"b"])
        with pytest.raises(ValueError, match="text must be str"):
            tok.encode(None)
        with pytest.raises(ValueError, match="threads"):
            tok.encode_batch(["a"], threads=0)


def test_surrogates_are_joined_or_replaced(pair):
    for text in ("\ud83d\ude00", "a\ud83d z\ude00", "\ude00\ud83d"):
        assert pair[0].encode(text) == pair[1].encode(text)
        assert pair[0].encode_batch([text, "x"]) == pair[1].encode_batch([text, "x"])


def test_disallowed_special_tokens(pair):
    for tok in pair:
        with pytest.raises(ValueError, match="user.*at 2"):
            tok.encode("hi<|user|>")
        with pytest.raises(ValueError, match="user"):
            tok.encode_batch(["hi", "<|user|>"])
        with pytest.raises(ValueError, match="user"):
            list(tok.encode_iterable(["hi <|us", "er|>"]))
        with pytest.raises(ValueError, match="forbidden"):
            tok.encode_batch(["ok", "a forbidden word"], disallowed_special={"forbidden"})
        with pytest.raises(ValueError, match="disallowed_special"):
            tok.encode("x", disallowed_special="<|user|>")
        with pytest.raises(ValueError, match="disallowed_special"):
            tok.encode("x", disallowed_special=["", 5])
        assert tok.encode("hi<|user|>", {"<|user|>"})[-1] == tok.special_tokens["<|user|>"]
        ordinary = tok.encode_ordinary("hi<|user|>")
        assert ordinary == tok.encode("hi<|user|>", disallowed_special=()) and tok.decode(ordinary) == "hi<|user|>"
        assert ordinary == list(tok.encode_iterable(["hi<|us", "er|>"], disallowed_special=()))
        assert not set(ordinary) & set(tok.special_tokens.values())


@often
@given(text=fussy_texts)
def test_offsets_say_where_tokens_lie(pair, text):
    cpp, python = pair
    ids, offsets = cpp.encode_with_offsets(text, "all")
    assert ids == cpp.encode(text, "all") and offsets.tolist() == python.encode_with_offsets(text, "all")[1].tolist()
    for id, (start, end) in zip(ids, offsets.tolist()):
        assert cpp.token_bytes(id) in text[start:end].encode("utf-8") and end > start
    assert not ids or (offsets[0, 0] == 0 and offsets[-1, 1] == len(text))


def test_offsets_equal_hugging_face(pair, tmp_path):
    hf = pytest.importorskip("tokenizers")
    pair[0].save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    steps = document["pre_tokenizer"].get("pretokenizers", [document["pre_tokenizer"]])
    steps[-1]["trim_offsets"] = False
    theirs = hf.Tokenizer.from_str(json.dumps(document)).encode(MIXED + ENGLISH[:5000])
    ids, offsets = pair[0].encode_with_offsets(MIXED + ENGLISH[:5000], "all")
    assert theirs.ids == ids and list(map(tuple, offsets.tolist())) == theirs.offsets


@often
@given(text=fussy_texts)
def test_a_decoded_stream_never_splits_a_character(pair, text):
    for tok in pair:
        pieces = list(tok.decode_stream(tok.encode(text)))
        assert "".join(pieces) == text and "" not in pieces and not any("\ufffd" in p for p in pieces if "\ufffd" not in text)


def test_decoding_half_a_character_and_bad_ids(pair):
    cpp = pair[0]
    half = cpp.encode("😀")[:1]
    assert "".join(cpp.decode_stream(half)) == "\ufffd" == cpp.decode(np.array(half))
    for tok in pair:
        for bad in ([-1], np.array([tok.vocab_size]), np.array([3, 2 ** 40])):
            with pytest.raises(ValueError, match="not in the vocabulary"):
                tok.decode(bad)
    assert cpp.decode(np.array(cpp.encode(MIXED), np.int32).reshape(1, -1)[0]) == MIXED


def test_threads_may_share_a_tokenizer(pair):
    from concurrent.futures import ThreadPoolExecutor
    cpp = pair[0]
    batch = [ENGLISH[i:i + 50_000] for i in range(0, 200_000, 10_000)]
    expected = [cpp.encode(text) for text in batch]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(cpp.encode, batch)) == expected


# ---- bad cases

def random_bytes(n):
    return random.Random(0).randbytes(n).decode("latin-1")


BAD = {"a letter": lambda n: "a" * n, "spaces": lambda n: " " * n, "two letters": lambda n: "ab" * (n // 2),
       "random bytes": random_bytes, "random letters": lambda n: "".join(random.Random(0).choices("abcdefgh", k=n)),
       "newlines": lambda n: "\n" * n, "apostrophes": lambda n: "'" * n, "one wide letter": lambda n: "中" * (n // 3),
       "combining marks": lambda n: "a" + "\u0301" * (n // 2), "capitals and marks": lambda n: "A\u0301" * (n // 3),
       "no white space": lambda n: "".join(random.Random(0).choices("abXYZ0189+/=-_.,'", k=n)),
       "spaces and newlines": lambda n: " \n" * (n // 2) + "x", "half specials": lambda n: "<|endoftext|" * (n // 12)}
SECONDS = 5         # for 1 MB, which takes 0.01 to 0.2: what is quadratic needs 10^12 steps


@pytest.mark.parametrize("case", BAD)
def test_no_text_takes_quadratic_time(pair, case):
    text = BAD[case](1_000_000)
    start = time.process_time()
    ids = pair[0].encode_array(text, "all")
    assert time.process_time() - start < SECONDS
    assert pair[0].decode(ids) == text


@pytest.mark.parametrize("case", BAD)
def test_no_stream_or_corpus_takes_quadratic_time(pair, case):
    text = BAD[case](300_000)
    start = time.process_time()
    ids = list(pair[0].encode_iterable((text[i:i + 50] for i in range(0, len(text), 50)), "all"))
    Tokenizer.train(text, 356, [], pair[0].pattern, stop_early=True, backend="cpp")
    assert time.process_time() - start < SECONDS
    assert ids == pair[0].encode(text, "all")


def test_the_cache_is_bounded():
    tok = Tokenizer.train(ENGLISH[:50_000], 500, backend="cpp")
    rng = np.random.default_rng(0)
    for _ in range(6):                                      # 6 x 600,000 distinct words
        letters = rng.integers(97, 123, (600_000, 9), dtype=np.uint8)
        letters[:, 8] = 32
        tok.encode_array(letters.tobytes().decode())
    assert tok._fast.core.cache_bytes() < 64 << 20
    assert tok.encode(ENGLISH[:20_000]) == Tokenizer(*tok._parts(), backend="python").encode(ENGLISH[:20_000])


def test_streams_take_constant_memory(pair):
    """3 MB; benchmarks/tokenizer.py measures the whole process on 1 GB."""
    lines = (ENGLISH[i % 1000:i % 1000 + 1000] for i in range(3000))
    tracemalloc.start()
    count = sum(1 for _ in pair[0].encode_iterable(lines))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 600_000 and peak < 2e6 and pair[0]._fast.core.cache_bytes() < 64 << 20


# ---- training

corpora = st.lists(st.tuples(st.lists(st.sampled_from(["a", "b", "ab", "aa", "é", " ", "'s", "\n", "xyz", "<|user|>"]),
                                      max_size=12).map("".join), st.integers(1, 20)), min_size=1, max_size=12)


@pytest.mark.parametrize("ties", ["ids", "values", "bytes"])
@pytest.mark.parametrize("pattern", BUILT_IN)
@seldom
@given(corpus=corpora)
@example(corpus=[(ENGLISH[:30_000], 1), (MIXED, 2)])
@example(corpus=[("aaaa aaaaaaa aaa aa abab ababab", 1), ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 3)])
def test_merges_equal_python(pattern, ties, corpus):
    documents = [text for text, times in corpus for _ in range(times)]
    args = documents, pattern, frozenset(SPECIALS), 300, None, ties
    try:
        expected = learn(*args, "python", None)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            learn(*args, "cpp", None)
    else:
        assert learn(*args, "cpp", 1) == learn(*args, "cpp", 3) == expected


def test_ties_by_bytes_are_the_textbook_rule():
    """The example of many a course: the lexicographically greater pair wins."""
    text = "low low low low low lower lower widest widest widest newest newest newest newest newest newest"
    merges = Tokenizer.train(text.split(), 262, [], ties="bytes").merges
    assert merges == [(b"s", b"t"), (b"e", b"st"), (b"o", b"w"), (b"l", b"ow"), (b"w", b"est"), (b"n", b"e")]
    with pytest.raises(ValueError, match="ties must be"):
        Tokenizer.train(text, 262, ties="random")


@pytest.fixture(scope="module")
def real_text():
    """4.7 MB: the standard library's own modules, and some of other scripts."""
    files = sorted(Path(json.__file__).parents[1].glob("*.py"))
    return MIXED + "".join(path.read_text(encoding="utf-8") for path in files)


def test_merges_at_1k_8k_and_32k_equal_hugging_face(real_text):
    """Once at 32k: what a smaller vocabulary has are its first merges, there as here."""
    hf = pytest.importorskip("tokenizers")
    theirs = hf.Tokenizer(hf.models.BPE())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.train_from_iterator([real_text], hf.trainers.BpeTrainer(
        vocab_size=32_000, show_progress=False, initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet()))
    merges = [parse_merge(merge) for merge in json.loads(theirs.to_str())["model"]["merges"]]
    assert len(merges) == 31_744
    for vocab_size in (1000, 8000, 32_000):
        assert Tokenizer.train(real_text, vocab_size, [], backend="cpp").merges == merges[:vocab_size - 256]


def test_merges_equal_rustbpe(real_text):
    """Its ties: the smaller ids, a byte's id being its value."""
    rustbpe = pytest.importorskip("rustbpe")
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter([real_text]), 8000, pattern=PATTERNS["gpt2"])
    ours = Tokenizer.train(real_text, 8000, [], ties="values")
    assert [first + second for first, second in ours.merges] == \
        [bytes(token) for token, _ in theirs.get_mergeable_ranks() if len(token) > 1]


def test_words_are_counted_as_by_python(tmp_path):
    from minillm.tokenizer.train import count_words
    path = tmp_path / "text.txt"
    path.write_text((ENGLISH + MIXED + "<|user|>") * 2 + "a" * 40_000, encoding="utf-8", newline="")
    for pattern in BUILT_IN:
        args = [path, MIXED, "\ud83d\ude00 \ud83d", "x" * 20], pattern, frozenset(SPECIALS)
        expected = {word.encode("utf-8"): count for word, count in count_words(*args).items()}
        assert fast.count(core, *args, 2).words() == expected


def test_training_errors_name_the_problem(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for backend in ("cpp", "python"):
        with pytest.raises(ValueError, match="no text"):
            Tokenizer.train([], 300, backend=backend)
        with pytest.raises(ValueError, match="at least 257"):
            Tokenizer.train("abc", 256, backend=backend)
        with pytest.raises(ValueError, match="not UTF-8"):
            Tokenizer.train(tmp_path / "latin.txt", 300, backend=backend)
        with pytest.raises(FileNotFoundError):
            Tokenizer.train(tmp_path / "nowhere.txt", 300, backend=backend)
        with pytest.raises(ValueError, match="at most 257 tokens"):
            Tokenizer.train("ab", 1000, [], backend=backend)
        assert Tokenizer.train("ab", 1000, [], backend=backend, stop_early=True).vocab_size == 257


# ---- tiktoken's rank file

@pytest.fixture(scope="module")
def rank_file(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "ours.tiktoken"
    pair[0].save_tiktoken(path)
    return path


def test_a_rank_file_comes_back(pair, rank_file):
    cpp = pair[0]
    again = Tokenizer.from_tiktoken(rank_file, cpp.special_tokens, cpp.pattern)
    assert again._parts() == cpp._parts()
    with_gap = Tokenizer.from_tiktoken(rank_file, {"<|far|>": cpp.vocab_size + 20}, cpp.pattern)
    assert with_gap.vocab_size == cpp.vocab_size + 21 and with_gap.encode("<|far|>", "all") == [cpp.vocab_size + 20]
    with pytest.raises(ValueError, match="not in the vocabulary"):
        with_gap.decode([cpp.vocab_size + 3])
    with_gap.save(rank_file.parent / "gap")
    assert Tokenizer.from_pretrained(rank_file.parent / "gap")._parts() == with_gap._parts()


def test_tiktoken_reads_what_we_write(pair, rank_file):
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import load_tiktoken_bpe
    theirs = tiktoken.Encoding("ours", pat_str=PATTERNS[pair[0].pattern], mergeable_ranks=load_tiktoken_bpe(str(rank_file)),
                               special_tokens=pair[0].special_tokens)
    text = MIXED * 2 + ENGLISH[:100_000] + "<|user|><|again|><|endoftext|>"
    assert theirs.encode(text, allowed_special="all") == pair[0].encode(text, "all")
    for wrong in ("<|user|>",):
        with pytest.raises(ValueError):
            theirs.encode(wrong)
        with pytest.raises(ValueError):
            pair[0].encode(wrong)


def test_a_vocabulary_out_of_order_has_no_rank_file(tmp_path):
    tokens = [b"bc", b"ab"] + [bytes([byte]) for byte in BYTE_ORDER]
    tok = Tokenizer(tokens, [(b"a", b"b"), (b"b", b"c")], {})
    with pytest.raises(ValueError, match="order of the merges"):
        tok.save_tiktoken(tmp_path / "x.tiktoken")


hostile_lines = st.lists(st.binary(max_size=30) | st.sampled_from(
    [b"YWI= 300", b"YWI= 256", b"YWJj 257", b"!!!! 3", b"YQ== 99999999999", b"YQ== -1", b" 5", b"YQ==", b"\xff 1", b"YWI= \xd9\xa3"]),
    max_size=5)


@seldom
@given(extra=hostile_lines, drop=st.integers(0, 1500), cut=st.integers(0, 20))
def test_hostile_rank_files_give_one_clear_error(pair, rank_file, extra, drop, cut):
    lines = rank_file.read_bytes().split(b"\n")
    data = b"\n".join(lines[:drop] + lines[drop + (drop % 2):] + extra)
    path = rank_file.parent / "hostile.tiktoken"
    path.write_bytes(data[:len(data) - cut])
    try:
        tok = Tokenizer.from_tiktoken(path, {}, pair[0].pattern)
    except ValueError as error:
        assert "hostile.tiktoken" in str(error)
    else:
        assert tok.decode(tok.encode(MIXED)) == MIXED


@pytest.fixture(scope="module")
def sound_json(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    Tokenizer.train("the cat sat on the mat " * 3, 264).save(directory)
    return (directory / "tokenizer.json").read_bytes()


@often
@given(data=st.data())
def test_hostile_tokenizer_json_gives_one_clear_error(sound_json, tmp_path_factory, data):
    """Damage anywhere in the file: the same ids from both backends, or a ValueError that names the file."""
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    raw = bytearray(sound_json)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at:at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3) | st.sampled_from([b"null", b"-1", b"1e9", b"[[", b'"']))
    path.write_bytes(raw)
    try:
        both = [Tokenizer.from_pretrained(path, backend=backend) for backend in ("cpp", "python")]
    except ValueError as error:
        assert "tokenizer.json" in str(error)
    else:
        assert both[0].encode(MIXED, "all") == both[1].encode(MIXED, "all")


def test_files_larger_than_any_tokenizer_are_refused(tmp_path, monkeypatch):
    from minillm.tokenizer import formats
    Tokenizer.train("abab", 257, []).save(tmp_path)
    with pytest.raises(ValueError, match="folder"):
        Tokenizer.from_vocab_merges(tmp_path, tmp_path)
    monkeypatch.setattr(formats, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="tokenizer.json.*larger"):
        Tokenizer.from_pretrained(tmp_path)
