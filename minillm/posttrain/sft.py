"""Supervised fine-tuning: pretraining's loop and loss on conversations, with a loss on the assistant's tokens only.

Conversations are short and of many lengths. Instead of padding, several are packed into one row; they do not see each
other (models/packing.py). The mean is over the learned tokens of all micro-batches together, so that a row with few of
them weighs little: the gradient is that of one big batch, however it was packed.
"""
import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..data.shards.loader import drawn
from ..models.packing import Batch, rows
from ..tokenizer.chat_template import Example

SHARE = 0.1           # of the records, held out for validation
TOO_LONG = ("cut", "drop")


class ChatData:
    """What `train` needs: packed batches as a function of (step, micro), a validation pass, and a fingerprint."""

    def __init__(self, examples: list[Example], tokenizer: Any, block_size: int, row_tokens: int, seed: int = 0,
                 accumulate: int = 1, share: float = SHARE, too_long: str = "cut") -> None:
        """examples: list of Example; too_long: those longer than the context window are "cut", or left out ("drop");
        cut and dropped say how many. An answer that is cut short learns no end token: it did not end there. answers_cut
        says how many, answers_lost how many lie beyond the context window. row_tokens: a row's limit.

        Raises ValueError for another too_long, and when too few examples are left to train and to validate.
        """
        if too_long not in TOO_LONG:
            raise ValueError(f"too_long must be one of {', '.join(TOO_LONG)}: got {too_long!r}")
        fitting = fit(examples, block_size, too_long)
        self.dropped = len(examples) - len(fitting)
        self.cut = sum(len(e.ids) > block_size + 1 and any(e.learned[1:block_size + 1]) for e in examples
                       if too_long == "cut")
        reached = [part for e in examples if too_long == "cut" for part in answers_reached(e, block_size + 1)]
        self.answers_cut, self.answers_lost = (sum(kind == wanted for kind in reached) for wanted in ("cut", "lost"))
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

    def validation(self, batches: int = 0) -> Iterator[Batch]:
        """Iterator of packed rows over the examples held out; or of at most so many, drawn over all of them."""
        packs = rows(range(len(self.held_out)), [len(e.ids) - 1 for e in self.held_out], self.row_tokens)
        for number in drawn(len(packs), batches):
            yield packed([self.held_out[i] for i in packs[number]])


def fit(examples: list[Example], block_size: int, too_long: str) -> list[Example]:
    """The examples of at most block_size + 1 tokens; longer ones cut, as far as they still have a token to learn."""
    limit = block_size + 1
    if too_long == "drop":
        return [e for e in examples if len(e.ids) <= limit]
    cut = [Example(e.ids[:limit], e.learned[:limit]) for e in examples]
    return [e for e in cut if any(e.learned[1:])]


def answers_reached(example: Example, limit: int) -> list[str]:
    """Whether each answer, a stretch of learned tokens, is "whole", "cut" or "lost" in the first `limit` tokens."""
    edges = np.flatnonzero(np.diff(np.array([False, *example.learned, False], np.int8)))
    return ["whole" if end <= limit else "cut" if start < limit else "lost"
            for start, end in edges.reshape(-1, 2).tolist()]


def split(records: list, share: float, seed: int) -> tuple[list, list]:
    """(to train on, to validate on): at least one of each."""
    if len(records) < 2:
        raise ValueError("at least 2 records that fit the context are needed, to train and to validate: "
                         f"got {len(records)}")
    order = np.random.default_rng((seed, 2 ** 31)).permutation(len(records))
    held_out = min(len(records) - 1, max(1, round(share * len(records))))
    return [records[i] for i in sorted(order[held_out:])], [records[i] for i in sorted(order[:held_out])]


def count_leaked(learned: list, held_out: list) -> int:
    """How many of the records held out are also among those to learn."""
    known = set(map(repr, learned))
    return sum(repr(record) in known for record in held_out)


def packed(examples: list[Example]) -> Batch:
    """Several examples side by side in one row, a Batch."""
    tokens, targets = zip(*(e.arrays() for e in examples))
    return Batch(np.concatenate(tokens)[None], np.concatenate(targets)[None], [len(part) for part in tokens])
