"""Batches, and packing: several documents in one row of tokens, none of which sees another, without a mask.

Of all ops only a few look beyond a single token: attention (at the tokens before it), the embedding and rope (at the
token's position). `apart` wraps these so that they are called once for each document; every other op may see the
packed row as it is. So a packed row gives exactly what its documents give alone, with no padding and no T x T mask.
"""
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..kernels.select import Ops

Array = np.ndarray


class Batch(NamedTuple):
    """What a model learns from at once."""

    tokens: np.ndarray                      # (B, T) int
    targets: np.ndarray                     # (B, T) int: the token that follows each, -1 where it is not learned
    lengths: list[int] | None = None        # of the documents in a packed row; B is 1 then

    @property
    def learned(self) -> int:
        """How many targets count."""
        return int((self.targets != -1).sum())


def rows(order: Iterable[int], lengths: list[int], limit: int) -> list[list[int]]:
    """Cut a sequence of documents into rows of at most `limit` tokens (one document may fill a row by itself)."""
    cut: list[list[int]] = []
    size = 0
    for i in order:
        if not cut or size + lengths[i] > limit:
            cut.append([])
            size = 0
        cut[-1].append(i)
        size += lengths[i]
    return cut


def apart(ops: Ops, lengths: list[int]) -> Ops:
    """The namespace `ops` for tokens (1, N) that hold documents of these `lengths`, N in all.

    Raises ValueError (at the embedding or rope) unless the lengths are positive and their sum is N.
    """
    edges = np.cumsum([0, *lengths]).tolist()
    spans = [slice(start, end) for start, end in zip(edges, edges[1:])]

    def check_lengths(tokens: Array) -> None:
        if len(tokens) != 1 or tokens.shape[1] != edges[-1] or min(lengths) < 1:
            raise ValueError(f"lengths must be positive and sum to the tokens of one row: got {sum(lengths)} for "
                             f"tokens of shape {tokens.shape[:2]}")

    def embedding_forward(tokens: Array, wte: Any, wpe: Array, start: int = 0) -> tuple[Array, list]:
        check_lengths(tokens)
        return each(ops.embedding_forward, spans, tokens, wte, wpe, start)

    def embedding_backward(dout: Array, caches: list, into: tuple) -> None:
        for span, cache in zip(spans, caches):
            ops.embedding_backward(part(dout, span), cache, into=into)

    def attention_forward(qkv: Array, n_head: int) -> tuple[Array, list]:
        return each(ops.attention_forward, spans, qkv, n_head)

    def attention_backward(dout: Array, caches: list) -> Array:
        grads = [ops.attention_backward(part(dout, span), cache) for span, cache in zip(spans, caches)]
        return np.concatenate(grads, 1)

    def rope_forward(x: Array, cos: Array, sin: Array) -> tuple[Array, list]:
        check_lengths(x)
        outs, caches = zip(*(ops.rope_forward(part(x, span), cos[:length], sin[:length])
                             for span, length in zip(spans, lengths)))
        return np.concatenate(outs, 1), list(caches)

    def rope_backward(dout: Array, caches: list) -> Array:
        return np.concatenate([ops.rope_backward(part(dout, span), cache) for span, cache in zip(spans, caches)], 1)

    def grouped_attention_forward(q: Array, k: Array, v: Array, *options: Any, **more: Any) -> tuple[Array, list]:
        outs, caches = zip(*(ops.grouped_attention_forward(*(part(x, span) for x in (q, k, v)), *options, **more)
                             for span in spans))
        return np.concatenate(outs, 1), list(caches)

    def grouped_attention_backward(dout: Array, caches: list) -> list[Array]:
        found = [ops.grouped_attention_backward(part(dout, span), cache) for span, cache in zip(spans, caches)]
        dq_dk_dv, dsinks = [*zip(*found)][:3], [*zip(*found)][3:]               # all documents share the sinks
        return [np.concatenate(grads, 1) for grads in dq_dk_dv] + [np.sum(grads, 0) for grads in dsinks]

    return ops._replace(embedding_forward=embedding_forward, embedding_backward=embedding_backward,
                        attention_forward=attention_forward, attention_backward=attention_backward,
                        rope_forward=rope_forward, rope_backward=rope_backward,
                        grouped_attention_forward=grouped_attention_forward,
                        grouped_attention_backward=grouped_attention_backward)


def each(forward: Callable, spans: list[slice], row: Array, *rest: Any) -> tuple[Array, list]:
    """forward of every document: outputs joined along the row (1, N, ...), and the list of caches."""
    outs, caches = zip(*(forward(part(row, span), *rest) for span in spans))
    return np.concatenate(outs, 1), list(caches)


def part(row: np.ndarray, span: slice) -> np.ndarray:
    """A document of the row, (1, T, ...), contiguous as kernels want it (a slice of a single row is)."""
    return np.ascontiguousarray(row[:, span])
