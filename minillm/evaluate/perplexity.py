"""Perplexity per token, and bits per byte, which compares across tokenizers.

    perplexity = exp(nats / tokens)
    bits_per_byte = nats / (ln 2 * bytes)

A document longer than the context length is read in sliding windows that overlap by half: each token is predicted once,
with at least half a context before it (in all windows but the first). Every document starts after the token that begins
a text or ends another, so that its first token is predicted, too, and the bytes are all there are.
"""
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..models.gpt2 import GPT
from ..models.packing import rows
from ..progress import Report, tracked
from ..tokenizer import Tokenizer
from ..tokenizer.roles import begun

BATCH_TOKENS = 4096        # tokens in one forward pass, at least one window


class Surprise(NamedTuple):
    """The negative log-likelihood of one document in nats, tokens predicted, UTF-8 bytes."""

    nats: float
    tokens: int
    bytes: int


def surprises(model: GPT, tokenizer: Tokenizer, texts: Iterable[str], progress: Report | None = None) -> list[Surprise]:
    """A Surprise for each text. Raises ValueError if there is none, or one is empty."""
    texts = list(texts)
    if not texts:
        raise ValueError("there is no text to evaluate on")
    return [surprise(model, tokenizer, text) for text in tracked(texts, progress)]


def surprise(model: GPT, tokenizer: Tokenizer, text: str) -> Surprise:
    """The Surprise of one text."""
    ids = tokenizer.encode_ordinary(text)
    if not ids:
        raise ValueError("a text to evaluate on is empty")
    losses = token_losses(model, begun(tokenizer, ids))
    return Surprise(float(losses.sum()), len(losses), len(text.encode()))


def token_losses(model: GPT, ids: Sequence[int]) -> np.ndarray:
    """Cross-entropies in nats of ids[1:], (len(ids) - 1,) float64, each given all before it that the context holds."""
    found: list[np.ndarray] = []
    spans = list(windows(len(ids) - 1, model.config.block_size))
    for numbers in rows(range(len(spans)), [end - start for start, end, _ in spans], BATCH_TOKENS):
        batch = [spans[number] for number in numbers]
        tokens = np.concatenate([ids[start:end] for start, end, _ in batch])[None]          # (1, N)
        targets = np.concatenate([ids[start + 1:end + 1] for start, end, _ in batch])[None]
        lengths = [end - start for start, end, _ in batch]
        losses = np.split(model.losses(tokens, targets, lengths=lengths)[0], np.cumsum(lengths)[:-1])
        found += [part[fresh - start:] for part, (start, _, fresh) in zip(losses, batch)]
    return np.concatenate(found).astype(np.float64) if found else np.zeros(0)


def windows(length: int, block_size: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, fresh) that cover range(length): inputs start..end, of which those from `fresh` on are new."""
    fresh, step = 0, max(1, block_size // 2)
    while fresh < length:
        end = min(length, max(block_size, fresh + step))
        yield max(0, end - block_size), end, fresh
        fresh = end


def bits_per_byte(found: list[Surprise]) -> float:
    """Of all documents together."""
    return sum(s.nats for s in found) / math.log(2) / sum(s.bytes for s in found)


def perplexity(found: list[Surprise]) -> float:
    """Of all documents together; infinity rather than an overflow."""
    nats = sum(s.nats for s in found) / sum(s.tokens for s in found)
    return math.exp(nats) if nats < 700 else math.inf
