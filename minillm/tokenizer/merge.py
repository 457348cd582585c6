"""BPE of one word: its bytes become tokens by replaying the merges in the order they were learned.

`ranks[(left id, right id)]` is a merge's place in that order and `made[rank]` the id it makes. Among the pairs of
neighbours that have a rank, the lowest is merged next, the leftmost first, until none is left.
"""
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise
from types import MappingProxyType

Pair = tuple[int, int]

SHORT = 32              # up to this length the plain loop beats the heap
CACHED_WORDS = 1 << 17  # distinct words remembered, each of at most ...
CACHED_LENGTH = 64      # ... this many characters


class WordCache(dict):
    """word -> tuple of ids, worked out on first sight. Full, it starts afresh: text repeats itself soon enough."""

    def __init__(self, encode: Callable[[str], list[int]]):
        self.encode = encode

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self.encode(word))
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


def encode_word(word: str, byte_ids: list[int], ranks: dict, made: list[int], short: int = SHORT,
                whole: Mapping[bytes, int] = MappingProxyType({})) -> list[int]:
    """The ids of one word: its bytes, merged by rank. `whole`: words that are one token whatever the merges say."""
    data = word.encode("utf-8")
    if data in whole:
        return [whole[data]]
    ids = [byte_ids[byte] for byte in data]
    return merge_short(ids, ranks, made) if len(ids) <= short else merge_long(ids, ranks, made)


def merge_short(ids: list[int], ranks: dict, made: list[int]) -> list[int]:
    """Merge the pair of lowest rank everywhere, then the next: O(n^2), the definition itself.

    All its occurrences may go at once where a pair that holds the new token always has a higher rank.
    """
    never = len(made)
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: ranks.get(pair, never))
        if pair not in ranks:
            break
        ids = merge_pair(ids, pair, made[ranks[pair]])
    return ids


def merge_long(ids: list[int], ranks: dict, made: list[int]) -> list[int]:
    """The same in O(n log n): a linked list of tokens, and a heap of (rank, place) of the pairs to merge.

    `after` and `before` link the living tokens; a dead one holds -1, which is part of no pair. A heap entry whose
    place has changed since is known by its rank being no longer that of the pair there.
    """
    n, ids = len(ids), ids + [-1]
    after, before = list(range(1, n + 2)), list(range(-1, n))
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, i = heappop(heap)
        j = after[i]
        if ranks.get((ids[i], ids[j])) != rank:
            continue
        ids[i], ids[j] = made[rank], -1
        after[i] = after[j]
        before[after[i]] = i
        for left in (before[i], i):
            if left >= 0 and (new_rank := ranks.get((ids[left], ids[after[left]]))) is not None:
                heappush(heap, (new_rank, left))
    return [id for id in ids if id >= 0]


def merge_pair(ids: list[int], pair: Pair, new: int) -> list[int]:
    """Replace each occurrence of `pair` by `new`, from the left: (a, a) in a a a gives new a."""
    first, second = pair
    merged, i, last = [], 0, len(ids) - 1
    while i <= last:
        if i < last and ids[i] == first and ids[i + 1] == second:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged
