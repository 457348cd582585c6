"""C++ learns the merges that Python, Hugging Face and rustbpe learn."""
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizer_texts import BUILT_IN, ENGLISH, MIXED, SPECIALS, core, needs_core, seldom

from minillm.tokenizer import Tokenizer, fast
from minillm.tokenizer.bpe import learn
from minillm.tokenizer.formats import parse_merge
from minillm.tokenizer.pretokenize import PATTERNS
from minillm.tokenizer.train import count_words

pytestmark = needs_core


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
    path = tmp_path / "text.txt"
    path.write_text((ENGLISH + MIXED + "<|user|>") * 2 + "a" * 40_000, encoding="utf-8", newline="")
    for pattern in BUILT_IN:
        args = [path, MIXED, "\ud83d\ude00 \ud83d", "x" * 20], pattern, frozenset(SPECIALS)
        expected = {word.encode("utf-8"): count for word, count in count_words(*args).items()}
        assert dict(core.words(fast.count(core, *args, 2))) == expected


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
