"""No text takes quadratic time or unbounded memory."""
import random
import time
import tracemalloc

import numpy as np
import pytest
from tokenizer_texts import ENGLISH, needs_core

from minillm.tokenizer import Tokenizer

pytestmark = needs_core


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
    assert tok._fast.cache_bytes() < 64 << 20
    assert tok.encode(ENGLISH[:20_000]) == Tokenizer(*tok._parts(), backend="python").encode(ENGLISH[:20_000])


def test_streams_take_constant_memory(pair):
    """3 MB; benchmarks/tokenizer.py measures the whole process on 1 GB."""
    lines = (ENGLISH[i % 1000:i % 1000 + 1000] for i in range(3000))
    tracemalloc.start()
    count = sum(1 for _ in pair[0].encode_iterable(lines))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 600_000 and peak < 2e6 and pair[0]._fast.cache_bytes() < 64 << 20
