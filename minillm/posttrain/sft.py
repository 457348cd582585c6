"""Supervised fine-tuning: pretraining's loop and loss on conversations, with a loss on the assistant's tokens only.

Conversations are short and of many lengths. Instead of padding, several are packed into one row; they do not see each
other (models/packing.py). The mean is over the learned tokens of all micro-batches together, so that a row with few of
them weighs little: the gradient is that of one big batch, however it was packed.
"""
import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..models.packing import Batch
from ..tokenizer.chat_template import Example

SHARE = 0.1           # of the records, held out for validation


class ChatData:
    """What `train` needs: packed batches as a function of (step, micro), a validation pass, and a fingerprint."""

    def __init__(self, examples: list[Example], tokenizer: Any, block_size: int, row_tokens: int, seed: int = 0,
                 accumulate: int = 1, share: float = SHARE) -> None:
        """examples: list of Example; those longer than the context window lose their end. row_tokens: a row's limit.

        Raises ValueError when too few examples are left to train and to validate.
        """
        self.dropped, fitting = fit(examples, block_size)
        self.examples, self.held_out = split(fitting, share, seed)
        self.row_tokens, self.seed, self.accumulate = max(row_tokens, block_size), seed, accumulate
        learned = [[id for id, wanted in zip(e.ids, e.learned) if wanted] for e in self.held_out]
        self.validation_tokens = sum(map(len, learned))
        self.validation_bytes = sum(len(tokenizer.decode_bytes(ids)) for ids in learned)
        self.fingerprint = hashlib.blake2b(repr(self.examples).encode(), digest_size=16).hexdigest()
        self.rows_of_epoch = lru_cache(2)(self.rows_of_epoch)                            # type: ignore[method-assign]
        self.ends = [0]                                  # rows in all epochs before epoch e

    def batch(self, step: int, micro: int = 0) -> Batch:
        """The conversations of one packed row, a Batch."""
        index = step * self.accumulate + micro
        while index >= self.ends[-1]:
            self.ends.append(self.ends[-1] + len(self.rows_of_epoch(len(self.ends) - 1)))
        epoch = bisect_right(self.ends, index) - 1
        return packed([self.examples[i] for i in self.rows_of_epoch(epoch)[index - self.ends[epoch]]])

    def rows_of_epoch(self, epoch: int) -> list[list[int]]:
        """Every example once, in a random order, as rows of at most row_tokens: [[number of an example, ...], ...]."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.examples)).tolist()
        return rows(order, [len(e.ids) - 1 for e in self.examples], self.row_tokens)

    def validation(self) -> Iterator[Batch]:
        """Iterator of packed rows over the examples held out."""
        lengths = [len(e.ids) - 1 for e in self.held_out]
        for row in rows(range(len(self.held_out)), lengths, self.row_tokens):
            yield packed([self.held_out[i] for i in row])


def fit(examples: list[Example], block_size: int) -> tuple[int, list[Example]]:
    """(number dropped, examples of at most block_size + 1 tokens that still have one to learn)."""
    cut = [Example(e.ids[:block_size + 1], e.learned[:block_size + 1]) for e in examples]
    fitting = [e for e in cut if any(e.learned[1:])]
    return len(examples) - len(fitting), fitting


def split(records: list, share: float, seed: int) -> tuple[list, list]:
    """(to train on, to validate on): at least one of each."""
    if len(records) < 2:
        raise ValueError("at least 2 records that fit the context are needed, to train and to validate: "
                         f"got {len(records)}")
    order = np.random.default_rng((seed, 2 ** 31)).permutation(len(records))
    held_out = min(len(records) - 1, max(1, round(share * len(records))))
    return [records[i] for i in sorted(order[held_out:])], [records[i] for i in sorted(order[:held_out])]


def rows(order: Iterable[int], lengths: list[int], limit: int) -> list[list[int]]:
    """Cut a sequence of documents into rows of at most `limit` tokens (one document may fill a row by itself)."""
    cut: list[list[int]] = [[]]
    size = 0
    for i in order:
        if cut[-1] and size + lengths[i] > limit:
            cut.append([])
            size = 0
        cut[-1].append(i)
        size += lengths[i]
    return cut


def packed(examples: list[Example]) -> Batch:
    """Several examples side by side in one row, a Batch."""
    tokens, targets = zip(*(e.arrays() for e in examples))
    return Batch(np.concatenate(tokens)[None], np.concatenate(targets)[None], [len(part) for part in tokens])
