"""Batches from several sources, each by its weight: which row comes from which source, again without state.

Rows are numbered from the beginning of training. Of the rows n = 0, 1, 2, ... the first source takes those at which the
whole part of p n + u grows by one, where p is its share and u, from 0 to 1, a start that the seed draws.
So it has had floor(p n + u) of the first n, never a whole row more or fewer than p n. (This is systematic sampling with
a random start: Madow and Madow 1944. Drawn independently, the count would stray by sqrt(p (1 - p) n).) The rows left
over are numbered anew, and the second source takes its share of them, and so on. All is in integers: of shares
a / b each b rows hold a, however long the run. The count is also the number of the source's own block, in
its own shuffled epochs (loader.py): a small source comes round more often than a large one.
"""
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from ...models.packing import Batch
from .format import Shards, blake2b
from .loader import first_row
from .prepare import TrainingData

SEEDS = 2**32               # between the seeds of two sources: equally large ones are not shuffled alike


class Mixture:
    """What `train` needs, as TrainingData has it, of several sources: rows by weight, validation over all of them."""

    def __init__(self, sources: Mapping[str, Shards], weights: Sequence[Any], block_size: int, batch_size: int,
                 seed: int = 0, accumulate: int = 1) -> None:
        """weights: numbers, or texts such as "0.7" and "2/3", in proportion to the rows that a source is to have.

        Raises ValueError for bad weights, and naming a source that is too small for one block.
        """
        self.shares = dict(zip(sources, shares_of(weights, len(sources))))
        self.cuts = cuts_of(list(self.shares.values()), seed)
        self.block_size, self.batch_size, self.accumulate = block_size, batch_size, accumulate
        self.sources = {name: part(name, shards, block_size, batch_size, seed + number * SEEDS)
                        for number, (name, shards) in enumerate(sources.items())}
        self.loaders = [data.loader for data in self.sources.values()]
        self.validation_bytes = sum(data.validation_bytes for data in self.sources.values())
        self.validation_tokens = sum(data.validation_tokens for data in self.sources.values())
        self.fingerprint = blake2b("".join(data.fingerprint for data in self.sources.values()).encode()).hexdigest()

    def batch(self, step: int, micro: int = 0) -> Batch:
        """A Batch of (batch_size, block_size) int64."""
        first = first_row(step, micro, self.accumulate, self.batch_size)
        tokens = np.empty((self.batch_size, self.block_size + 1), np.int64)             # (B, T+1)
        for row in range(self.batch_size):
            source, number = self.place(first + row)
            self.loaders[source].read_block(tokens[row], number)
        return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy())

    def place(self, row: int) -> tuple[int, int]:
        """(source, number of its block) of a row."""
        for source, (part, whole, start) in enumerate(self.cuts):
            before = (part * row + start) // whole
            if (part * (row + 1) + start) // whole > before:
                return source, before
            row -= before
        raise AssertionError("the last source takes every row that is left")

    def drawn(self, rows: int) -> list[int]:
        """How many of the first `rows` rows each source has had: where its own epochs stand."""
        counts = []
        for part, whole, start in self.cuts:
            counts.append((part * rows + start) // whole)
            rows -= counts[-1]
        return counts

    def validation(self, batches: int = 0) -> Iterator[Batch]:
        """Iterator of Batch over the validation splits of all sources; of at most so many batches of each."""
        return chain.from_iterable(data.validation(batches) for data in self.sources.values())

    def describe(self, steps: int) -> str:
        """A line on each source: how often a run of so many steps reads it."""
        rows = steps * self.accumulate * self.batch_size
        return "\n".join(f"mixture     {name}: {float(share):.1%} of the rows, {count / loader.blocks:,.2f} epochs"
                         for (name, share), count, loader in zip(self.shares.items(), self.drawn(rows), self.loaders))

    def __str__(self) -> str:
        """The weights, as a checkpoint records them."""
        return ", ".join(f"{name} {share}" for name, share in self.shares.items())


def part(name: str, shards: Shards, block_size: int, batch_size: int, seed: int) -> TrainingData:
    try:
        return TrainingData(shards, block_size, batch_size, seed)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def shares_of(weights: Sequence[Any], sources: int) -> list[Fraction]:
    """Weights over their sum, exact: 0.1 is a tenth. Raises ValueError for weights that are none."""
    if len(weights) != sources:
        raise ValueError(f"mix: got {len(weights)} weights for {sources} sources: one for each path of --data")
    found = [weight_of(weight) for weight in weights]
    if not sum(found):
        raise ValueError("mix: the weights are all 0: at least one must be above it")
    return [weight / sum(found) for weight in found]


def weight_of(weight: Any) -> Fraction:
    try:
        found = Fraction(str(weight))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"mix: a weight must be a number, such as 0.7 or 2/3: got {weight}") from None
    if found < 0:
        raise ValueError(f"mix: a weight must be at least 0: got {weight}")
    return found


def cuts_of(shares: Sequence[Fraction], seed: int) -> list[tuple[int, int, int]]:
    """(a, b, t) of each source: of the rows that those before it leave, it takes a / b, beginning at t / b."""
    cuts = []
    for number, share in enumerate(shares):
        left = sum(shares[number:])
        cut = share / left if left else Fraction(0)
        digest = hashlib.blake2b(f"mixture {seed} {number}".encode(), digest_size=16).digest()
        cuts.append((cut.numerator, cut.denominator, int.from_bytes(digest, "little") % cut.denominator))
    return cuts
