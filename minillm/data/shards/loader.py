"""Batches as a pure function of (seed, step): with no state to save, a resumed run sees the very same blocks.

The tokens are one long stream, cut into blocks of `block_size`. In epoch e the cut starts at a random offset before
the stream (so block edges move from epoch to epoch), what would reach over an end of the stream is pushed back inside
(so every token but the first is a target in every epoch), and the blocks come in a random order, each once. The order
is a permutation that is computed, not stored: block i of the epoch is F(i), where F is a keyed bijection on 0..n-1, a
small Feistel network (Luby and Rackoff 1988; for numbers instead of bits: Black and Rogaway 2002). Write
i = left * columns + right, then add to one half a random function of the other, then the other way round, six rounds in
all:

    left  <- mod(left + f1(right), rows)         each line can be undone (subtract), so the whole is one-to-one
    right <- mod(right + f2(left), columns)

rows * columns may exceed n a little; a result outside is sent through again until it falls inside ("cycle walking").
"""
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isqrt

import numpy as np

from ...config import check_counts
from .format import Split, let_go, read_at_random

Tokens = np.ndarray | Sequence[np.ndarray] | Split
IGNORE_INDEX = -1
ROUNDS = 6
MASK64 = 2**64 - 1


class TokenStream:
    """Token arrays (one, a list, or a `shards.Split`) read as one: position p is where it is in their concatenation."""

    def __init__(self, source: Tokens):
        self.arrays = list(source.arrays if isinstance(source, Split) else
                           [source] if isinstance(source, np.ndarray) else source)
        for array in self.arrays:
            if array.ndim != 1 or array.dtype.kind not in "ui":
                raise ValueError("tokens must be one-dimensional integer arrays, "
                                 f"got {array.dtype} of shape {array.shape}")
        self.ends = np.cumsum([len(array) for array in self.arrays], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill out (n,) with the tokens at positions start .. start+n-1, which may lie in several arrays."""
        index = int(np.searchsorted(self.ends, start, side="right"))
        filled = 0
        while filled < len(out):
            array = self.arrays[index]
            inside = start + filled - (int(self.ends[index]) - len(array))
            piece = array[inside:inside + len(out) - filled]
            out[filled:filled + len(piece)] = piece
            let_go(piece)
            filled += len(piece)
            index += 1


class Loader:
    """Random training batches over a token stream (see `TokenStream` for `source`).

    One optimizer step reads `micro_batches` batches, so micro-batch m of step s holds the blocks numbered from
    (s * micro_batches + m) * batch_size on. `blocks` is the number of blocks in an epoch. A batch may reach over an
    epoch's end, a block over a file's end; documents are not kept apart (the end-of-text token tells the model).
    Raises ValueError when there are fewer than block_size + 1 tokens.
    """

    def __init__(self, source: Tokens, block_size: int, batch_size: int, seed: int, micro_batches: int = 1):
        check_counts(block_size=block_size, batch_size=batch_size, micro_batches=micro_batches)
        self.stream = TokenStream(source)
        self.block_size, self.batch_size, self.seed, self.micro_batches = block_size, batch_size, seed, micro_batches
        tokens = len(self.stream)
        if tokens < block_size + 1:
            raise ValueError(f"one block of block_size {block_size} needs {block_size + 1} tokens, there are {tokens}: "
                             f"add more text, or choose a smaller block_size (of at most {max(1, tokens - 1)})")
        for array in self.stream.arrays:
            read_at_random(array)
        self.targets = tokens - 1
        self.blocks = -(-(self.targets + block_size // 2) // block_size)   # with room for half a block of offsets
        self.offsets = min(block_size, self.blocks * block_size - self.targets + 1)     # 0 .. offsets-1 cover both ends

    def batch(self, step: int, micro: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(x, y), both int64 (batch_size, block_size), C-contiguous; y is x one token later."""
        first = first_row(step, micro, self.micro_batches, self.batch_size)
        tokens = np.empty((self.batch_size, self.block_size + 1), np.int64)            # (B, T+1)
        for row in range(self.batch_size):
            self.read_block(tokens[row], first + row)
        return tokens[:, :-1].copy(), tokens[:, 1:].copy()

    def read_block(self, out: np.ndarray, number: int) -> None:
        """Fill out (T+1,) with the number-th block since the beginning of training and the token behind it."""
        self.stream.read_into(out, self.block_start(number))

    def block_start(self, number: int) -> int:
        """Stream position of the number-th block since the beginning of training."""
        epoch, index = divmod(number, self.blocks)
        keys = epoch_keys(self.seed, epoch)
        start = self.block_size * permute(index, self.blocks, keys) - keys[-1] % self.offsets
        return min(max(start, 0), self.targets - self.block_size)


def first_row(step: int, micro: int, micro_batches: int, batch_size: int) -> int:
    """The number, since the beginning of training, of a micro-batch's first row."""
    if step < 0 or not 0 <= micro < micro_batches:
        raise ValueError(f"step must be >= 0 and micro in [0, {micro_batches}), got {step} and {micro}")
    return (int(step) * micro_batches + int(micro)) * batch_size


def sequential(source: Tokens, block_size: int, batch_size: int,
               batches: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches for validation that predict every token but the first exactly once, in order.

    Yields (x, y), int64 (rows, block_size) with rows = batch_size but for the last. The end of the last block is
    padded: 0 in x, IGNORE_INDEX in y. batches: at most so many, of blocks drawn over the whole stream, always the same
    (0: all). Raises ValueError when there are fewer than two tokens.
    """
    check_counts(block_size=block_size, batch_size=batch_size)
    stream = TokenStream(source)
    if len(stream) < 2:
        raise ValueError(f"validation needs at least 2 tokens (one to predict from another), there are {len(stream)}: "
                         "add more text")
    blocks = drawn(-(-(len(stream) - 1) // block_size), batches * batch_size)
    return _sequential_batches(stream, block_size, batch_size, blocks)


def drawn(count: int, wanted: int) -> np.ndarray:
    """Numbers below `count` in order: `wanted` of them at random, always the same; all for 0 or if there are fewer."""
    every = np.arange(count)
    return np.sort(np.random.default_rng(0).choice(every, wanted, replace=False)) if 0 < wanted < count else every


def _sequential_batches(stream: TokenStream, block_size: int, batch_size: int,
                        blocks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    predictions = len(stream) - 1
    for first in range(0, len(blocks), batch_size):
        rows = blocks[first:first + batch_size]
        x = np.zeros((len(rows), block_size), np.int64)                      # (rows, T)
        y = np.full((len(rows), block_size), IGNORE_INDEX, np.int64)         # (rows, T)
        for row, start in enumerate((rows * block_size).tolist()):
            count = min(block_size, predictions - start)
            stream.read_into(x[row, :count], start)
            stream.read_into(y[row, :count], start + 1)
        yield x, y


@lru_cache(maxsize=8)
def epoch_keys(seed: int, epoch: int) -> tuple[int, ...]:
    """ROUNDS keys for the permutation and one for the offset, 64 bits each."""
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * (ROUNDS + 1)).digest()
    return tuple(int.from_bytes(digest[8 * i:8 * i + 8], "little") for i in range(ROUNDS + 1))


def permute(index: int, size: int, keys: Sequence[int]) -> int:
    """The image of `index` under a keyed bijection on 0 .. size-1."""
    rows = isqrt(size - 1) + 1
    columns = -(-size // rows)
    while True:
        left, right = divmod(index, columns)
        for turn in range(0, ROUNDS, 2):
            left = (left + _scramble(right ^ keys[turn])) % rows
            right = (right + _scramble(left ^ keys[turn + 1])) % columns
        index = left * columns + right
        if index < size:
            return index


def _scramble(number: int) -> int:
    """SplitMix64's finalizer (Steele 2014): every input bit moves about half of the 64 output bits."""
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & MASK64
    return number ^ number >> 31
