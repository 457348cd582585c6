"""Perplexity per token, and bits per byte, which compares across tokenizers.

    perplexity = exp(nats / tokens)
    bits_per_byte = nats / (ln 2 * bytes)

A document longer than the context length is read in sliding windows that overlap by half: each token is predicted once,
with at least half a context before it (in all windows but the first). Every document starts after the token that begins
a text or ends another, so that its first token is predicted, too, and the bytes are all there are.

Short documents share a forward pass: their windows are packed into one row (models/packing.py), so that GEMMs have
many rows. A document's losses are those that it has alone: to the last bit on compiled kernels, whose sums do not
depend on the batch; within the rounding of the BLAS on NumPy.
"""
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..models.gpt2 import GPT
from ..models.packing import rows
from ..progress import Report, tracked
from ..tokenizer import Tokenizer
from ..tokenizer.roles import begun

BATCH_TOKENS = 4096        # tokens in one forward pass, at least one window
Document = Sequence[int]


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
    losses = losses_of(model, (ids_of(tokenizer, text) for text in texts))
    return [Surprise(float(found.sum()), len(found), len(text.encode()))
            for text, found in zip(tracked(texts, progress), losses)]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a document behind what a text begins after."""
    ids = tokenizer.encode_ordinary(text)
    if not ids:
        raise ValueError("a text to evaluate on is empty")
    return begun(tokenizer, ids)


def losses_of(model: GPT, documents: Iterable[Document]) -> Iterator[np.ndarray]:
    """Cross-entropies in nats of ids[1:] for the ids of each document, (len(ids) - 1,) float64, each given all before
    it that the context holds."""
    model = copy(model)
    model.recompute = True             # nobody asks for gradients: of a block's activations only the input is kept
    spans_of = partial(windows, block_size=model.config.block_size)
    for group in groups(documents, lambda ids: sum(end - start for start, end, _ in spans_of(len(ids) - 1))):
        spans = [(ids, *span) for ids in group for span in spans_of(len(ids) - 1)]
        found: list[np.ndarray] = []
        for numbers in rows(range(len(spans)), [end - start for _, start, end, _ in spans], BATCH_TOKENS):
            found += window_losses(model, [spans[number] for number in numbers])
        ends = np.cumsum([len(ids) - 1 for ids in group])[:-1]
        yield from np.split(np.concatenate(found).astype(np.float64) if found else np.zeros(0), ends)


def window_losses(model: GPT, spans: list[tuple[Any, int, int, int]]) -> list[np.ndarray]:
    """Losses of the fresh tokens of some windows (ids, start, end, fresh), in one forward pass."""
    tokens = np.concatenate([ids[start:end] for ids, start, end, _ in spans])[None]          # (1, N)
    targets = np.concatenate([ids[start + 1:end + 1] for ids, start, end, _ in spans])[None]
    lengths = [end - start for _, start, end, _ in spans]
    losses = np.split(model.losses(tokens, targets, lengths=lengths)[0], np.cumsum(lengths)[:-1])
    return [part[fresh - start:] for part, (_, start, _, fresh) in zip(losses, spans)]


def groups(documents: Iterable[Document], size: Callable[[Document], int] = len) -> Iterator[list[Document]]:
    """Consecutive documents of at most BATCH_TOKENS together, or one that has more by itself; read as needed."""
    group: list[Document] = []
    total = 0
    for document in documents:
        if group and total + size(document) > BATCH_TOKENS:
            yield group
            group, total = [], 0
        group.append(document)
        total += size(document)
    if group:
        yield group


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
