"""The C++ tokenizer (csrc/text) behind the readable one's interface.

`Tokenizer` asks `encoder` for a FastEncoder and `learn` for merges, and goes on in Python where the answer is None:
the extension is not built, MINILLM_CPU=none, or the vocabulary is larger than the core's tables. The results are equal.
"""
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from ..config import check_field
from .added import cut_out
from .extension import load_extension
from .formats import BYTE_ORDER
from .pretokenize import safe_pieces, well_formed, word_finder
from .rules import TextRules
from .train import TIES, Corpus, count_words, documents

COUNTED = 4 << 20           # characters handed to the counting threads at a time
MOST_THREADS = 64
FEW_IDS = 256               # of which NumPy makes a list as fast


def count_threads(threads: int | None) -> int:
    """The number of threads to use: as many as there are cores for None. Raises ValueError."""
    if threads is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(MOST_THREADS, cores)
    check_field("threads", threads, int, lambda v: 1 <= v <= MOST_THREADS, f"an integer from 1 to {MOST_THREADS}")
    return threads


def encoder(tokens: dict[int, bytes], vocab_size: int, byte_ids: list[int], merges: list[tuple[int, int, int]],
            texts: TextRules, pattern: str, backend: str = "auto",
            whole: Mapping[bytes, int] = MappingProxyType({})) -> "FastEncoder | None":
    """A FastEncoder, or None where Python has to do it. `merges` are (left id, right id, id made) by rank."""
    core = load_extension(backend)
    if core is None:
        return None
    if vocab_size > core.MAX_TOKENS or len(merges) > core.MAX_TOKENS:
        if backend == "cpp":
            raise ValueError(f"the C++ tokenizer takes up to {core.MAX_TOKENS} tokens: got {vocab_size}")
        return None
    return FastEncoder(core, tokens, vocab_size, byte_ids, merges, texts, pattern, whole)


class FastEncoder:
    """Ids of texts as arrays, uint16 if every id fits, else uint32."""

    def __init__(self, core: ModuleType, tokens: dict[int, bytes], vocab_size: int, byte_ids: list[int],
                 merges: list[tuple[int, int, int]], texts: TextRules, pattern: str, whole: Mapping[bytes, int]):
        self.find_words = None if pattern in core.PATTERNS else word_finder(pattern)
        self.dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        self.texts = texts
        self._wanted: dict[tuple[frozenset[str], bool], Any] = {}       # of those that were allowed last
        self.index = {token.text: i for i, token in enumerate(texts.added)}
        added = [(texts.late_text(token).encode("utf-8"), id, token.normalized)
                 for known in (True, False) for token in texts.added for id in [token.id if known else core.NOT_TAKEN]]
        self.core, self.state = core, core.encoder(
            np.array(byte_ids, np.uint32),
            *map(np.ascontiguousarray, np.array(merges, np.uint32).reshape(-1, 3).T),              # left, right, made
            [tokens.get(id) for id in range(vocab_size)], added, core.PATTERNS[0] if self.find_words else pattern,
            list(whole.items()))

    def wanted(self, allowed: frozenset[str], late: bool = False) -> Any:
        """The added tokens to look for, ready for use, or None; late: the normalized ones alone. Where others than
        special ones are, those special ones that are not allowed, too: as text in which no other is found."""
        known, key = self._wanted, (allowed, late)      # another thread may ask for others
        if key not in known:
            added, places = self.texts.added, [self.index[text] for text in allowed]
            if self.texts.others:
                places = [i + (token.special and token.text not in allowed) * len(added)
                          for i, token in enumerate(added)]
            places = [i for i in places if not late or added[i % len(added)].normalized]
            self._wanted = known = {key: self.core.wanted(self.state, places) if places else None}
        return known[key]

    def encode_plain(self, text: str) -> np.ndarray:
        """The ids of a text in which no added token is looked for."""
        return self.core.encode_words(self.state, self.find_words(text)) if self.find_words else \
            self.core.encode(self.state, text, None)

    def encode_late(self, text: str, allowed: frozenset[str]) -> np.ndarray:
        """The ids of a normalized text in which only the normalized ones of the added tokens are looked for."""
        return self.core.encode(self.state, text, self.wanted(allowed, late=True))

    def encode(self, text: str, allowed: frozenset[str]) -> np.ndarray:
        if self.find_words:
            return self.encode_by_regex(text, allowed)
        wanted = self.wanted(allowed)
        try:
            return self.core.encode(self.state, text, wanted)
        except UnicodeEncodeError:                      # surrogates
            return self.core.encode(self.state, well_formed(text), wanted)

    def encode_batch(self, texts: list[str], allowed: frozenset[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts, one after the other, and the (n + 1,) places where each text's begin and end."""
        if self.find_words:
            arrays = [self.encode_by_regex(text, allowed) for text in texts]
            ends = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
            return np.concatenate([np.empty(0, self.dtype), *arrays]), ends
        wanted = self.wanted(allowed)
        try:
            return self.core.encode_batch(self.state, texts, wanted, threads)
        except UnicodeEncodeError:
            return self.core.encode_batch(self.state, list(map(well_formed, texts)), wanted, threads)

    def encode_by_regex(self, text: str, allowed: frozenset[str]) -> np.ndarray:
        """For a pattern that the core does not know: `regex` finds the words, the core merges them."""
        assert self.find_words
        parts = [np.empty(0, self.dtype)]
        for piece, id in cut_out(well_formed(text), self.texts.added, allowed):
            parts.append(self.encode_plain(piece) if id is None else np.array([id], self.dtype))
        return np.concatenate(parts)

    def decode(self, ids: np.ndarray) -> bytes:
        return self.core.decode(self.state, np.ascontiguousarray(ids, np.int64))

    def cache_bytes(self) -> int:
        """Memory of the words that it remembers."""
        return self.core.cache_bytes(self.state)


# ---- lists of ids

def id_list(core: ModuleType | None, ids: np.ndarray, vocab_size: int) -> list[int]:
    """ids.tolist(), several times as fast where they are many: an id's int is made once, not for each token."""
    if core is None or len(ids) < FEW_IDS:
        return ids.tolist()
    return core.id_list(ids, ints_below(vocab_size))


@lru_cache(4)
def ints_below(vocab_size: int) -> list[int]:
    return list(range(vocab_size))


# ---- training

def learn(core: ModuleType, files_or_texts: Corpus, pattern: str, specials: frozenset[str], n_merges: int,
          progress: Callable | None = None, ties: str = "ids",
          threads: int | None = None) -> list[tuple[int, int]] | None:
    """The merges that train.learn_merges finds, as pairs of ids; None if the corpus holds no word. Memory grows with
    the distinct words only. Raises ValueError and FileNotFoundError as it does."""
    if ties not in TIES:
        raise ValueError(f"ties must be one of {', '.join(TIES)}: got {ties!r}")
    counter = count(core, files_or_texts, pattern, specials, count_threads(threads))
    if not core.distinct(counter):
        return None
    byte_ids = np.arange(256, dtype=np.uint32) if ties == "values" else byte_ids_in_order()
    merges = core.learn(counter, byte_ids, n_merges, ties == "bytes", progress)       # (n, 2)
    if ties == "values":                                                        # back to the ids of bytes that we use
        merges = np.where(merges < 256, byte_ids_in_order()[np.minimum(merges, 255)], merges)
    if progress:
        progress(len(merges), len(merges))
    return list(map(tuple, merges.tolist()))


def count(core: ModuleType, files_or_texts: Corpus, pattern: str, specials: frozenset[str], threads: int) -> Any:
    """The core's counter, with every word of the corpus in it."""
    if pattern not in core.PATTERNS:
        counter = core.word_counter(core.PATTERNS[0], [])
        counts: Counter[str] = count_words(files_or_texts, pattern, specials)
        core.add_words(counter, [(word.encode("utf-8"), number) for word, number in counts.items()])
        return counter
    counter = core.word_counter(pattern, [text.encode("utf-8") for text in specials])
    pieces = chain.from_iterable(safe_pieces(chunks, specials, pattern) for chunks in documents(files_or_texts))
    for group in grouped(pieces, COUNTED):
        try:
            core.count_words(counter, group, threads)
        except UnicodeEncodeError:
            core.count_words(counter, list(map(well_formed, group)), threads)
    return counter


def grouped(pieces: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of pieces of about `size` characters together."""
    group, held = [], 0
    for piece in pieces:
        group.append(piece)
        held += len(piece)
        if held >= size:
            yield group
            group, held = [], 0
    if group:
        yield group


def byte_ids_in_order() -> np.ndarray:
    """(256,) the id of each byte before any merge."""
    ids = np.empty(256, np.uint32)
    ids[BYTE_ORDER] = np.arange(256)
    return ids
