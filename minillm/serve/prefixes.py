"""Prompts that begin alike: the KV cache of the common beginning is taken over, with the same bits in every answer.

A prompt is read in parts of a fixed length, counted from its beginning, whether or not others have begun like it. So a
part's keys and values come of the same calls on the same numbers in every slot, and copying them changes nothing; what
is no whole part, and what an answer added, is not kept.
"""
import numpy as np

from ..models.kv_cache import KVCache


class Prefixes:
    """Of each slot of a KV cache: the tokens whose keys and values stand there, in whole parts."""

    def __init__(self, cache: KVCache, part: int):
        self.cache, self.part = cache, part
        self.kept = [np.zeros(0, np.int64) for _ in range(cache.batch_size)]

    def keep(self, slot: int, ids: list[int] | np.ndarray) -> None:
        """The slot now holds these tokens of a prompt, from its beginning, and nothing of any other."""
        self.kept[slot] = np.array(ids[:len(ids) // self.part * self.part])

    def common(self, ids: np.ndarray, slot: int) -> int:
        """Tokens that a prompt has in common with what the slot keeps: whole parts, and not the whole prompt."""
        kept = self.kept[slot]
        count = max(0, min(len(kept), len(ids) - 1))
        differ = np.flatnonzero(kept[:count] != ids[:count])
        return int(differ[0] if len(differ) else count) // self.part * self.part

    def best_slot(self, ids: list[int], free: list[int]) -> int:
        """Of the free slots, that with the longest common prefix; of equal ones, the first."""
        prompt = np.array(ids)
        return max(free, key=lambda slot: self.common(prompt, slot))

    def reuse(self, ids: list[int], slot: int) -> int:
        """Fill an empty slot with the longest prefix that any slot keeps; returns its length."""
        source = self.best_slot(ids, [slot, *range(len(self.kept))])
        count = self.common(np.array(ids), source)
        if source != slot:
            self.cache.copy(source, slot, count)
        self.keep(slot, ids[:count])
        self.cache.lengths[slot] = count
        return count
