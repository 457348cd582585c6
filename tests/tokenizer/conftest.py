"""Tokenizers that several test files share."""
import pytest
from tokenizer_texts import BUILT_IN, ENGLISH, MIXED, SPECIALS

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.pretokenize import PATTERNS


@pytest.fixture(scope="session", params=sorted(PATTERNS))
def tok(request):
    return Tokenizer.train([ENGLISH, MIXED * 3], vocab_size=1200, special_tokens=SPECIALS, pattern=request.param)


@pytest.fixture(scope="session", params=BUILT_IN)
def pair(request):
    """The same vocabulary, encoded by C++ and by Python."""
    cpp = Tokenizer.train([ENGLISH, MIXED * 3], 1500, SPECIALS, request.param, backend="cpp")
    parts = [cpp.token_bytes(i) for i in range(cpp.vocab_size)], cpp.merges, cpp.special_tokens, cpp.pattern
    return cpp, Tokenizer(*parts, backend="python")
