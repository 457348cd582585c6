"""BPE encoding: a word becomes tokens by replaying the merges.

A word starts as its UTF-8 bytes, tokens 0 to 255. The merges were learned in an order, and are replayed in it: of the
pairs of neighbours that are merges, the one that was learned first is merged next, everywhere in the word; until no
neighbours are a merge. Merge k of the list makes token 256 + k.

It is neither the longest token first nor the leftmost pair first: only so does a word become the tokens that it had
when the merges were learned.

Write encode_word; merge_pair is known.

Source: Sennrich, Haddow and Birch 2016, arXiv 1508.07909, section 3.2; on bytes: Radford et al. 2019 (GPT-2).
"""
from itertools import pairwise

from ....tokenizer import merge
from ..exercise import Exercise
from ..rules import by_cases


def merge_pair(ids, pair, new):
    """ids with each occurrence of the two neighbours `pair`, from the left, replaced by `new`."""
    merged, i = [], 0
    while i < len(ids):
        here = tuple(ids[i:i + 2]) == pair
        merged.append(new if here else ids[i])
        i += 2 if here else 1
    return merged


def encode_word(word, merges):
    """The token ids of word, a str, by merges, a list of pairs of ids in the order they were learned."""
    ids = list(word.encode("utf-8"))
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while True:
        known = [pair for pair in pairwise(ids) if pair in ranks]
        if not known:
            return ids
        first = min(known, key=ranks.get)
        ids = merge_pair(ids, first, 256 + ranks[first])


def _cases(yours):
    """Vocabularies of two or three merges, on words where another order gives other tokens."""
    def case(rule, word, *pairs):
        merges = [tuple(part if isinstance(part, int) else ord(part) for part in pair) for pair in pairs]
        ranks = {pair: rank for rank, pair in enumerate(merges)}
        want = merge.merge_short([*word.encode()], ranks, [256 + rank for rank in range(len(merges))])
        return f"{rule}: {word!r} by {merges}", yours.encode_word(word, merges), want

    yield case("without merges the tokens are the bytes", "cab")
    yield case("a merge must replace its pair, by 256 + its place in the list", "cab", "xy", "ab")
    yield case("every occurrence must be merged", "abcab", "xy", "ab")
    yield case("a merge may take another one's token", "abc", "ab", (256, "c"))
    yield case("merges must go on until no neighbours are a merge", "abab", "ab", (256, 256))
    yield case("the merge learned first comes first, though another pair stands further left", "abc", "bc", "ab")
    yield case("the merge learned first comes first, though another makes a longer token", "abcd", "bc", "ab", "cd",
               (257, 258))
    yield case("a merge that a later one makes possible must still be done", "abcd", "ab", "cd", (256, 257), "bc")
    yield case("equal tokens are merged from the left", "aaa", "aa")
    yield case("pairs of merged tokens count, too", "aaaaa", "aa", (256, 256), (257, "a"))
    yield case("a character beyond ASCII is several bytes", "ö", (0xC3, 0xB6))
    yield case("an empty word has no tokens", "", "ab")
    yield case("one byte has no neighbour", "a", "aa")


EXERCISE = Exercise(
    __file__, solve=("encode_word",), needs=("bpe_training",), checks=by_cases(_cases),
    hints=("{pair: place in the list} answers both questions: is this pair a merge, and when was it learned?",
           "In a loop: the pairs of neighbours that are merges now; if there is none, done.",
           "Of them the one with the least place; merge_pair with 256 + that place; and look again."))
