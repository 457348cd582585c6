"""Autoregressive decoding: logits give the next token, which joins the context window, which gives the next logits.

The KV cache holds keys and values of the tokens read so far, so a step computes one token. The window is at most
block_size tokens: of a longer prompt the last block_size are read, and when a text outgrows the window its oldest half
is dropped and the rest prefilled again from position 0.
"""
from collections.abc import Iterator, Sequence
from operator import index
from typing import NamedTuple

import numpy as np

from ..models.gpt2 import GPT
from .sampling import Sampling, sample, top_logprobs


def generate(model: GPT, ids: Sequence[int], max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, seed: int = 0, use_cache: bool = True, stop: int | None = None,
             min_p: float | None = None, repetition_penalty: float = 1.0) -> list[int]:
    """Continue a prompt by up to max_new_tokens tokens; returns the list of all ids, prompt included.

    ids: a non-empty sequence of ints. stop: an id that ends the text (it is included). The settings are those of
    `sampling.Sampling`. Raises ValueError naming what is out of range.
    """
    return list(ids) + list(stream(model, ids, max_new_tokens, temperature, top_k, top_p, seed, use_cache, stop, min_p,
                                   repetition_penalty))


def stream(model: GPT, ids: Sequence[int], max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
           top_p: float | None = None, seed: int = 0, use_cache: bool = True, stop: int | None = None,
           min_p: float | None = None, repetition_penalty: float = 1.0) -> Iterator[int]:
    """Like `generate`, but yields each new id as soon as it is drawn."""
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    for step in steps(model, ids, max_new_tokens, sampling, stop, use_cache=use_cache):
        yield step.token


class Step(NamedTuple):
    """One decoded token."""

    token: int
    logprob: float                          # of the token under the model's own softmax, whatever the sampling
    top: list[tuple[int, float]]            # the most probable tokens and their log-probabilities, as many as asked for


def steps(model: GPT, ids: Sequence[int], max_new_tokens: int, sampling: Sampling = Sampling(),
          stop: int | None = None, top: int = 0, use_cache: bool = True) -> Iterator[Step]:
    """Decode token by token: yield a Step for each. top: how many of the most probable tokens to report with it."""
    ids = check_request(ids, max_new_tokens)
    context = Context(model, ids, use_cache)
    for position in range(max_new_tokens):
        logits = context.logits()[-1]
        token, logprob = sample(logits, sampling, position, ids)
        yield Step(token, logprob, top_logprobs(logits, top))
        if token == stop:
            return
        ids.append(token)
        context.extend([token])


def check_request(ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """The prompt as a fresh list of ints. Raises ValueError for an empty one, a negative length, or no integers."""
    try:
        ids, _ = [index(i) for i in ids], index(max_new_tokens)
    except TypeError as error:
        raise ValueError(f"ids and max_new_tokens must be integers: {error}") from None
    if not ids:
        raise ValueError("ids must hold at least one token: start from the end-of-text token for an empty prompt")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0: got {max_new_tokens}")
    return ids


class Context:
    """The context window of one sequence, at most block_size tokens, and the KV cache of those that the model has read.

    Draft tokens may be proposed: they are read after the window, and rolled back unless `extend` accepts them.
    """

    def __init__(self, model: GPT, ids: Sequence[int], use_cache: bool = True):
        self.model, self.limit = model, model.config.block_size
        self.window: list[int] = list(ids[-self.limit:])
        self.proposed: list[int] = []
        self.cache = model.new_cache(1) if use_cache else None

    @property
    def room(self) -> int:
        """How many draft tokens fit behind the window."""
        return self.limit - len(self.window)

    def logits(self, proposed: Sequence[int] = ()) -> np.ndarray:
        """Logits (1 + k, V) of the token that follows the window, and of those that follow each of k draft tokens.

        A call may repeat the proposals of the one before and add to them: the cache then reads only the new ones, and
        only their logits are returned.
        """
        self.proposed = list(proposed)
        text, wanted = self.window + self.proposed, 1 + len(self.proposed)
        if self.cache is None:
            return self.model.forward(np.array([text]))[0][0, -wanted:]
        fresh = text[self.cache.length:]
        return self.model.decode(np.array([fresh]), self.cache, last=wanted == 1)[0, -wanted:]

    def extend(self, tokens: list[int]) -> None:
        """Append tokens to the window; draft tokens that are not among them are rolled back from the KV cache."""
        read = len(self.window) + agreement(tokens[:-1], self.proposed)        # the last one is read with the next call
        if self.cache is not None:
            self.cache.truncate(min(self.cache.length, read))
        self.window, self.proposed = self.window + tokens, []
        if len(self.window) > self.limit:
            self.window = self.window[-(self.limit // 2 or 1):]
            if self.cache is not None:
                self.cache.truncate(0)


def agreement(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix of two lists of tokens."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
