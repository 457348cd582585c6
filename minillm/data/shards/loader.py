"""Batches as a pure function of (seed, step): with no state to save, a resumed run sees the very same blocks.

The tokens are one long stream, cut into blocks of `block_size`. In epoch e the cut starts at a random offset (so
block edges move from epoch to epoch) and the blocks come in a random order, each once. The order is a permutation
that is computed, not stored: block i of the epoch is F(i), where F is a keyed bijection on 0..n-1, a small Feistel
network (Luby and Rackoff 1988; for numbers instead of bits: Black and Rogaway 2002). Write i = left * columns +
right, then add to one half a random function of the other, then the other way round, six rounds in all:

    left  = (left  + f1(right)) mod rows         each line can be undone (subtract), so the whole is one-to-one
    right = (right + f2(left))  mod columns

rows * columns may exceed n a little; a result outside is sent through again until it falls inside ("cycle walking").
"""
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isqrt
from pathlib import Path

import numpy as np

IGNORE_INDEX = -1
ROUNDS = 6
MASK64 = 2**64 - 1


class TokenStream:
    """Several token arrays read as one: stream position p is where it would be in their concatenation.

    `source` is one array, a list of arrays, a `shards.Split`, or paths of little-endian uint16 files.
    """

    def __init__(self, source):
        source = getattr(source, "arrays", source)
        parts = [source] if isinstance(source, (np.ndarray, str, Path)) else list(source)
        self.arrays = [np.memmap(part, dtype="<u2", mode="r") if isinstance(part, (str, Path)) else part
                       for part in parts]
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
            filled += len(piece)
            index += 1


class Loader:
    """Random training batches over a token stream (see `TokenStream` for `files_or_arrays`).

    One optimizer step reads `micro_batches` batches, so micro-batch m of step s holds the blocks numbered from
    (s * micro_batches + m) * batch_size on. `blocks` is the number of blocks in an epoch. A batch may reach over an
    epoch's end, a block over a file's end; documents are not kept apart (the end-of-text token tells the model).
    Raises ValueError when there are fewer than block_size + 1 tokens.
    """

    def __init__(self, files_or_arrays, block_size: int, batch_size: int, seed: int, micro_batches: int = 1):
        _check_positive(block_size=block_size, batch_size=batch_size, micro_batches=micro_batches)
        self.stream = TokenStream(files_or_arrays)
        self.block_size, self.batch_size, self.seed, self.micro_batches = block_size, batch_size, seed, micro_batches
        tokens = len(self.stream)
        if tokens < block_size + 1:
            raise ValueError(f"one block of block_size {block_size} needs {block_size + 1} tokens, there are {tokens}")
        self.blocks = max(1, (tokens - block_size) // block_size)          # as many as fit behind any offset
        self.offsets = min(block_size, tokens - self.blocks * block_size)  # offsets 0 .. offsets-1 leave room for them

    def batch(self, step: int, micro: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(x, y), both int64 (batch_size, block_size), C-contiguous; y is x one token later."""
        if step < 0 or not 0 <= micro < self.micro_batches:
            raise ValueError(f"step must be >= 0 and micro in [0, {self.micro_batches}), got {step} and {micro}")
        first = (int(step) * self.micro_batches + int(micro)) * self.batch_size
        tokens = np.empty((self.batch_size, self.block_size + 1), np.int64)            # (B, T+1)
        for row in range(self.batch_size):
            self.stream.read_into(tokens[row], self.block_start(first + row))
        return tokens[:, :-1].copy(), tokens[:, 1:].copy()

    def block_start(self, number: int) -> int:
        """Stream position of the number-th block since the beginning of training."""
        epoch, index = divmod(number, self.blocks)
        keys = epoch_keys(self.seed, epoch)
        return keys[-1] % self.offsets + self.block_size * permute(index, self.blocks, keys)

    def sequential(self, block_size: int | None = None, batch_size: int | None = None):
        """`sequential` over this loader's stream; sizes default to the loader's own."""
        return sequential(self.stream, block_size or self.block_size, batch_size or self.batch_size)


def sequential(files_or_arrays, block_size: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches for validation that predict every token but the first exactly once, in order.

    Yields (x, y), int64 (rows, block_size) with rows = batch_size but for the last. The end of the last block is
    padded: 0 in x, IGNORE_INDEX in y. Raises ValueError when there are fewer than two tokens.
    """
    _check_positive(block_size=block_size, batch_size=batch_size)
    stream = files_or_arrays if isinstance(files_or_arrays, TokenStream) else TokenStream(files_or_arrays)
    if len(stream) < 2:
        raise ValueError(f"validation needs at least 2 tokens (one to predict from another), there are {len(stream)}")
    return _sequential_batches(stream, block_size, batch_size)


def _sequential_batches(stream: TokenStream, block_size: int, batch_size: int):
    predictions = len(stream) - 1
    for first in range(0, predictions, block_size * batch_size):
        rows = min(batch_size, -(-(predictions - first) // block_size))
        x = np.zeros((rows, block_size), np.int64)                      # (rows, T)
        y = np.full((rows, block_size), IGNORE_INDEX, np.int64)         # (rows, T)
        count = min(rows * block_size, predictions - first)
        stream.read_into(x.reshape(-1)[:count], first)
        stream.read_into(y.reshape(-1)[:count], first + 1)
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


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
