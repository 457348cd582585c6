"""What makes C++ fast changes no id: pieces of words without spaces, masks of 64 bytes, windows of long words."""
import random

import numpy as np
import pytest
from tokenizer_texts import core, needs_core

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.pretokenize import word_finder
from minillm.tokenizer.rules import Rules

pytestmark = needs_core

CHARACTERS = ["a", "b", "Z", "'", "'s", "'ll", "'RE", "1", "12345", " ", "  ", "\t", "\n", "\r\n", "(", "!", "/", "é",
              "ж",
              "中", "文", "か", "한", "\u3000", "\u00a0", "\u2028", "😀", "\u0301", "ſ", "٣", "½", "ʰ", "\x00", "\v",
              "鿿", "\u4dc0", "\ud7ff", "・", "゛", "A中", "中A", "\n/"]
WIDE = "中文字符没有空格的文本かなカナ한국어말😀🏽👨\u200d👩ああああ"


def starts(words):
    return np.cumsum([0, *(len(word.encode()) for word in words)])[:-1].tolist()


def mixed_texts(count, seed=1):
    rng = random.Random(seed)
    for _ in range(count):
        some = rng.sample(CHARACTERS, rng.randint(2, 12))
        yield "".join(rng.choice(some) * rng.choice((1, 1, 1, 2, 3, 7)) for _ in range(rng.choice((3, 30, 64, 300))))


@pytest.mark.parametrize("pattern", ["gpt2", "smollm", "cl100k", "llama3", "qwen2", "qwen3.5", "o200k", "deepseek"])
def test_masks_cut_where_the_pattern_does(pattern):
    find = word_finder(pattern)
    for text in [*mixed_texts(150), "x" * 16_400 + "\n   \n  y", "a 1234567" * 3000]:
        assert core.word_starts(text, pattern).tolist() == starts(find(text)), repr(text)


@pytest.fixture(scope="module", params=[False, True])
def wide_pair(request):
    """Trained on such text, so that merges join characters and parts of them; ignore_merges or not."""
    rng = random.Random(2)
    corpus = " ".join("".join(rng.choices(WIDE, k=rng.randint(1, 9))) for _ in range(3000))
    learned = Tokenizer.train(corpus, 700, pattern="cl100k")
    tokens = [learned.token_bytes(id) for id in range(learned.vocab_size)]
    whole = "文字中文字".encode()                        # a word that no merge makes
    if request.param:
        tokens.append(whole)
    parts = tokens, learned.merges, learned.special_tokens, "cl100k"
    return [Tokenizer(*parts, backend=backend, rules=Rules(ignore_merges=request.param))
            for backend in ("cpp", "python")]


def test_pieces_give_the_same_ids(wide_pair):
    rng, (cpp, python) = random.Random(3), wide_pair
    for _ in range(300):
        text = "".join(rng.choices(WIDE + "ab '", k=rng.choice((2, 5, 20, 100)))) + rng.choice(("", "文字中文字", "。"))
        assert cpp.encode(text) == python.encode(text) == cpp.encode(text), text


@pytest.mark.parametrize("unit", ["a", "ab", "abc", "aab", "x" * 7 + "y", ""])
def test_long_words_in_windows_give_the_same_ids(unit):
    rng = random.Random(4)
    tok = Tokenizer.train("aaaaaaaaaaaa abababab abcabc aabaab xxxxxxxyxxxxxxxy " * 40, 290, stop_early=True)
    python = Tokenizer(*[[tok.token_bytes(id) for id in range(tok.vocab_size)], tok.merges, tok.special_tokens],
                       backend="python")
    text = unit * (20_000 // len(unit)) if unit else "".join(rng.choices("abxy", k=20_000))
    assert tok.encode(text) == python.encode(text)
