"""The KV cache: keys and values of the tokens seen so far, so that decoding computes only those of the new ones.

As numbers of the model's dtype; or as int8, in about a quarter of the memory (`--kv-cache int8`): each token's key, and
value, of each head is rounded to 8-bit integers times a scale of its own. All queries, those of a token itself and of
its whole prompt among them, meet the rounded ones: so the same text has the same logits however it is cut into calls.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..config import GPTConfig, LlamaConfig
from ..kernels.select import Ops
from ..ops.attention import split_heads
from ..ops.losses.linear_cross_entropy import chunks

Array = np.ndarray
FORMS = "float", "int8"
FEW_TOKENS = 16         # that a compiled step takes (csrc/cpu/gemm/few_rows.h); more are GEMMs of training


class KVCache:
    """Keys and values of the tokens seen so far. Row b holds the lengths[b] tokens of one sequence.

    keys, values: (n_layer, B, NKV, block_size, HS), of which the first lengths[b] tokens of row b are filled; NKV is
    NH but where query heads share them. key_scales, value_scales: (n_layer, B, NKV, block_size) where those are int8,
    else None.
    """

    def __init__(self, config: GPTConfig | LlamaConfig, batch_size: int, dtype: DTypeLike, form: str = FORMS[0]):
        if form not in FORMS:
            raise ValueError(f"kv_cache must be one of {', '.join(FORMS)}: got {form!r}")
        shape = (config.n_layer, batch_size, config.n_kv_head, config.block_size, config.head_dim)
        self.n_head, self.batch_size, numbers = config.n_head, batch_size, np.int8 if form == "int8" else dtype
        self.lengths = np.zeros(batch_size, np.int64)
        self.keys, self.values = np.zeros(shape, numbers), np.zeros(shape, numbers)
        self.key_scales, self.value_scales = (np.zeros(shape[:-1], dtype) if form == "int8" else None for _ in "kv")

    @property
    def compiled(self) -> bool:
        """Can compiled steps read it?"""
        return (self.keys if self.key_scales is None else self.key_scales).dtype == np.float32

    @property
    def length(self) -> int:
        """Tokens in the longest row; in every row, where all grow together."""
        return int(self.lengths.max(initial=0))

    def truncate(self, length: int | list[int] | np.ndarray) -> None:
        """Forget every token from position `length` on: an int for all rows, or one for each. Shorter rows stay."""
        if np.any(np.asarray(length) < 0):
            raise ValueError(f"length must be at least 0: got {length}")
        np.minimum(self.lengths, length, out=self.lengths)

    def copy(self, source: int, row: int, count: int) -> None:
        """A row takes over the first tokens of another."""
        for array in (self.keys, self.values, self.key_scales, self.value_scales):
            if array is not None:
                array[:, row, :, :count] = array[:, source, :, :count]

    def reset(self, row: int | list[int]) -> None:
        """Empty a row (or several), for another sequence."""
        self.lengths[row] = 0

    def check_rows(self, rows: ArrayLike | None, count: int) -> np.ndarray:
        """rows as an array of `count` different rows of the cache. Raises ValueError."""
        if rows is None:
            if count != self.batch_size:
                raise ValueError(f"tokens must have the batch size of the cache, {self.batch_size}: got {count}")
            return np.arange(count)
        rows = np.asarray(rows)
        if rows.shape != (count,) or rows.dtype.kind not in "iu":
            raise ValueError(f"rows must be one integer for each of the {count} rows of tokens: got {rows!r}")
        if rows.min() < 0 or rows.max() >= self.batch_size or len(np.unique(rows)) < count:
            raise ValueError(f"rows must be different rows of the cache, in [0, {self.batch_size}): got {[*rows]}")
        return rows

    def room_for(self, tokens: np.ndarray, rows: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
        """rows, checked, and where each goes on: its length. Raises ValueError where tokens (B, T) do not fit."""
        rows, T = self.check_rows(rows, len(tokens)), tokens.shape[1]
        starts, most = self.lengths[rows], self.keys.shape[-2]
        if starts.max() + T > most:
            raise ValueError(f"tokens must fit into block_size {most}: got {T} tokens from position {starts.max()}")
        return rows, starts

    def attend(self, ops: Ops, layer: int, rows: np.ndarray, qkv: np.ndarray) -> np.ndarray:
        """Append the new keys and values, and attend to all: qkv (B, T, 3C) -> (B, T, C)."""
        return self.append_and_attend(ops, layer, rows, *split_heads(qkv, self.n_head))

    def append_and_attend(self, ops: Ops, layer: int, rows: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray,
                          *options: Any) -> np.ndarray:
        """The same from q (B, NH, T, HS), k and v (B, NKV, T, HS); options: window, softcap, sinks of the op."""
        T, out = q.shape[2], []
        for batch, row, end in spans(rows, self.lengths[rows] + T):
            new, place = slice(end - T, end), (layer, row)                      # rows that stand together: a view
            keys = appended(self.keys[place], self.key_scales, place, new, k[batch])
            values = appended(self.values[place], self.value_scales, place, new, v[batch])
            out.append(ops.attention_decode(q[batch], keys, values, *options))
        return joined(out, axis=0)


def appended(kept: Array, scales: Array | None, place: tuple, new: slice, x: Array) -> Array:
    """Put new keys, or values, x (B, NKV, T, HS) into a layer's; returns all of them as floats, (B, NKV, S, HS)."""
    if scales is None:
        kept[:, :, new] = x
        return kept[:, :, :new.stop]
    kept[:, :, new], scales[place][:, :, new] = head_to_int8(x)
    return head_from_int8(kept[:, :, :new.stop], scales[place][:, :, :new.stop])


def head_to_int8(x: Array) -> tuple[Array, Array]:
    """Rows of numbers as integers times a scale: x (..., HS) -> int8 (..., HS), scales (...).

        scale = max(|x|) / 127          n = round(x / scale)

    of each row, to the nearest integer, of two to the even one, within -127 to 127. So no number is off by more than
    half its row's scale. A row of zeros has scale 0; one that has NaN or infinity has such a scale, by which all of the
    row will be.
    """
    scales = np.abs(x).max(-1) / 127.0
    usual = ((scales > 0) & np.isfinite(scales))[..., None]
    with np.errstate(all="ignore"):
        rounded = np.clip(np.rint(x / scales[..., None]), -127, 127)
    return np.where(usual, rounded, 0).astype(np.int8), scales


def head_from_int8(numbers: Array, scales: Array) -> Array:
    """The floats that `head_to_int8` has rounded to."""
    return numbers * scales[..., None]


def stepwise(step: Callable, tokens: Array, cache: KVCache, rows: Array, last: bool) -> Array:
    """`decode` by a compiled step, FEW_TOKENS at a time: one of each of many rows, or many of one row in turn.

    step(tokens, starts, rows, count) -> logits of the last `count` tokens, which it has added to the cache's rows.
    """
    (B, T), starts = tokens.shape, cache.lengths[rows]
    found, width = [], min(T, FEW_TOKENS)
    for some in chunks(B, FEW_TOKENS // width):
        parts = []
        for part in chunks(T, width):
            piece = tokens[some, part]
            count = piece.shape[1] if not last else int(part.stop == T)         # logits of so many of its last tokens
            parts.append(step(piece, starts[some] + part.start, rows[some], count))
        found.append(joined(parts, axis=1))                                     # (some, T or 1, V)
    cache.lengths[rows] += T
    return joined(found, axis=0)


def joined(arrays: list[np.ndarray], axis: int) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)


def spans(rows: np.ndarray, ends: np.ndarray) -> list[tuple[slice, slice, int]]:
    """(slice of the batch, slice of the cache, end): all rows at once if they stand and end together, or each alone."""
    if np.all(ends == ends[0]) and np.all(np.diff(rows) == 1):
        return [(slice(None), slice(rows[0], rows[0] + len(rows)), ends[0])]
    return [(slice(b, b + 1), slice(row, row + 1), end) for b, (row, end) in enumerate(zip(rows, ends))]
