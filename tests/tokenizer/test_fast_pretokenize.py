"""Words cut by C++ are those that `regex` cuts, for every character and pattern."""
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import BUILT_IN, core, fussy_texts, needs_core, often

from minillm.tokenizer import Tokenizer, pretokenize
from minillm.tokenizer.pretokenize import PATTERNS, word_finder

pytestmark = needs_core


def words(text, pattern):
    """The text cut by C++."""
    data = text.encode("utf-8")
    starts = core.word_starts(text, pattern).tolist() + [len(data)]
    return [data[start:end].decode("utf-8") for start, end in pairwise(starts)]


@pytest.mark.parametrize("pattern", BUILT_IN)
@often
@given(text=st.text(st.characters(exclude_categories=("Cs",))) | fussy_texts)
def test_words_equal_regex(pattern, text):
    assert words(text, pattern) == word_finder(pattern)(text)


@pytest.mark.parametrize("pattern", BUILT_IN)
def test_words_equal_regex_across_chunks(pattern):
    """Long runs and random mixtures longer than a chunk, so that every kind of word meets a chunk's end."""
    rng = random.Random(1)
    alphabet = list("aBst'12 .,-\n\r\t/中ſ😀é\u0301\u3000") + ["'s", "'LL", "\u00a0", "A", "the "]
    for _ in range(25):
        text = "".join(rng.choice(alphabet) * rng.choice([1] * 9 + [rng.randint(1, 300)]) for _ in range(8000))
        assert words(text, pattern) == word_finder(pattern)(text)


LONG = ["a" * 60_000, " " * 60_000, "\n" * 50_000 + "x", " " * 20_000 + "x" + "\n" * 20_000 + " " * 20_000 + "a",
        "中" * 20_000, "A" * 30_000 + "b" * 30_000, "!" * 30_000 + "\n" * 30_000, "\u0301" * 20_000 + "A",
        "中" * 9000 + "A" * 20_000, "'" * 40_000, "1" * 40_000, "\u3000" * 20_000 + "x"]


@pytest.mark.parametrize("pattern", BUILT_IN)
def test_endless_words_equal_regex(pattern):
    for text in LONG:
        assert words(text, pattern) == word_finder(pattern)(text), text[:3]


CONTEXTS = ["{0}a{0}1 {0}", "\n{0}A{0}'s", " '{0}{0}\n!", "\t {0}\u0301/"]
COMMON = [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200)]
REST = [*range(0x34000, 0xE0000, 13), *range(0xE0200, 0x110000, 13)]       # planes without letters; their ends, too
REST += [code for plane in range(3, 17) for code in (plane << 16, (plane << 16) - 1)]


@pytest.mark.parametrize("pattern", BUILT_IN)
def test_every_character_is_cut_as_by_regex(pattern):
    """All code points that may be assigned, in several contexts, and some of the rest, whatever `regex` knows."""
    codes = COMMON if pattern in ("gpt2", "cl100k", "o200k") else COMMON[::11]         # the classes are the same
    for start in range(0, len(codes), 60_000):
        some = "".join(map(chr, codes[start:start + 60_000]))
        text = "".join(context.replace("{0}", char) for char in some for context in CONTEXTS)
        assert cut_places(text, pattern) == regex_places(text, pattern)
    text = "a".join(map(chr, REST))
    assert cut_places(text, pattern) == regex_places(text, pattern)


def cut_places(text, pattern):
    starts = core.word_starts(text, pattern)
    lead = (np.frombuffer(text.encode("utf-8"), np.uint8) & 0xC0) != 0x80
    return (np.cumsum(lead)[starts] - 1).tolist()


def regex_places(text, pattern):
    lengths = list(map(len, word_finder(pattern)(text)))
    return [0, *np.cumsum(lengths[:-1]).tolist()]


def test_a_pattern_of_ones_own_goes_through_regex():
    pretokenize.register_pattern("pairs", r"[\s\S]{1,2}")
    pretokenize.register_pattern("pairs", r"[\s\S]{1,2}")
    with pytest.raises(ValueError, match="known already"):
        pretokenize.register_pattern("pairs", r".")
    with pytest.raises(ValueError, match="regular expression"):
        pretokenize.register_pattern("broken", r"(")
    both = [Tokenizer.train("abcabdabxab\n" * 9, 260, pattern="pairs", backend=backend)
            for backend in ("cpp", "python")]
    assert both[0].merges == both[1].merges
    text = "abcab\nd<|endoftext|>😀ab"
    assert both[0].encode(text, "all") == both[1].encode(text, "all")
    assert both[0].encode_batch([text, "", "ab"], "all") == both[1].encode_batch([text, "", "ab"], "all")
    assert list(both[0].encode_iterable([text, text], "all")) == both[1].encode(text + text, "all")
    del PATTERNS["pairs"]
