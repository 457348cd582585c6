"""Text that follows a JSON schema: which tokens may come next, by llguidance (https://github.com/guidance-ai/llguidance).

A token counts by its bytes: it may come if what stands and the token are the beginning of a valid text, however the
tokenizer would have cut that (so no_forcing). One end token of our own stands behind the vocabulary; where
llguidance allows it, so are the tokens that end an answer. Special tokens are no text and never allowed; between two
parts of the JSON there is one space at most, so that it has an end.
"""
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..tokenizer import Tokenizer

FORM = {"x-guidance": {"whitespace_pattern": " "}}           # instead of the schema's own
LEXER_STATES = 20_000                                        # of 1 or 2 KB each
MAX_SCHEMA, MAX_MULTIPLE = 1 << 16, 100_000                  # characters; states of a lexer, half a second


class Grammar:
    """A JSON schema, compiled. Raises ImportError without llguidance, ValueError for a schema that it cannot follow."""

    def __init__(self, tokenizer: Tokenizer, schema: dict):
        guidance, source = need_llguidance(), json.dumps(schema | FORM)
        if len(source) > MAX_SCHEMA:
            raise ValueError(f"the schema must be of at most {MAX_SCHEMA} characters: it has {len(source)}")
        if prod(multiples(schema)) > MAX_MULTIPLE:
            raise ValueError(f"the product of all multipleOf must be at most {MAX_MULTIPLE}")
        text = f'%llguidance {{"no_forcing": true}}\nstart: %json {source}'
        limits = guidance.LLParserLimits(max_lexer_states=LEXER_STATES, verbose_errors=False)
        self.matcher = guidance.LLMatcher(token_table(tokenizer), text, log_level=0, limits=limits)
        self.vocab_size = tokenizer.vocab_size
        if self.matcher.is_error():
            raise ValueError(f"the schema cannot be followed: {self.matcher.get_error()}")

    def begin(self, ends: Iterable[int] = ()) -> "Follower":
        """For one answer. ends: the tokens that may end it."""
        return Follower(self.matcher.deep_copy(), self.vocab_size, [end for end in ends if end < self.vocab_size])


class Follower:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocab_size: int, ends: list[int]):
        self.matcher, self.vocab_size, self.ends = matcher, vocab_size, ends

    def allowed(self) -> np.ndarray:
        """A mask (V,) of the tokens that may come next. Raises ValueError where the grammar has become too complex."""
        bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        if self.matcher.is_error():
            raise ValueError(f"the schema cannot be followed: {self.matcher.get_error()}")
        mask = np.unpackbits(bits, count=self.vocab_size + 1, bitorder="little").astype(bool)
        mask[self.ends] = mask[-1]
        return mask[:-1]

    def push(self, token: int) -> None:
        """A token that was allowed, and is none of the ends, has come."""
        if not self.matcher.consume_token(token):
            raise ValueError(f"token {token} is not allowed by the grammar")

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but the end."""
        return bool(self.matcher.is_stopped())


def multiples(schema: Any) -> Iterator[int]:
    """Every multipleOf in a schema, as whole numbers: 0.25 is of hundredths, and counts as 25 times 100."""
    if isinstance(schema, dict) and isinstance(schema.get("multipleOf"), (int, float)):
        _, digits, exponent = Decimal(str(schema["multipleOf"])).as_tuple()
        yield int("".join(map(str, digits))) * 10 ** abs(int(exponent))
    if isinstance(schema, (dict, list)):
        for inside in schema.values() if isinstance(schema, dict) else schema:
            yield from multiples(inside)


@lru_cache(maxsize=8)
def token_table(tokenizer: Tokenizer) -> Any:
    """llguidance's form of a vocabulary; ids that are no text have no bytes."""
    special = set(tokenizer.special_tokens.values())

    class Table:
        eos_token_id, bos_token_id, special_token_ids = tokenizer.vocab_size, None, [tokenizer.vocab_size]
        tokens = [b"" if i in special else text_of(tokenizer, i) for i in range(tokenizer.vocab_size)] + [b"<end>"]

        def __call__(self, text: str | bytes) -> list[int]:
            return tokenizer.encode_ordinary(text if isinstance(text, str) else text.decode(errors="replace"))
    guidance = need_llguidance()
    return guidance.LLTokenizer(guidance.TokenizerWrapper(Table()))


def text_of(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a token, none where the vocabulary has a hole."""
    try:
        return tokenizer.token_bytes(token) or b""
    except ValueError:
        return b""


def need_llguidance() -> Any:
    """The package. Raises ImportError with the extra to install."""
    try:
        import llguidance
    except ImportError:
        raise ImportError("answers that follow a schema need llguidance: pip install 'minillm[grammar]'") from None
    return llguidance
