"""BPE training: learn the merges from a corpus.

Start from the 256 bytes as tokens 0 to 255. Again and again take the pair of neighbouring tokens that occurs most
often, make it the next token (256, 257, ...), and replace it everywhere. The pairs, in the order they were learned, are
the tokenizer.

A corpus is first split into words, and no merge crosses a word's border; so it is given as {word: how often it
occurs}. The words are str, and their tokens begin as their UTF-8 bytes. A pair occurs as often as the words it stands
in, and twice as often in a word where it stands twice; (7, 7) stands twice in 7 7 7, though it can be replaced there
once. Of pairs that occur equally often take the smaller: the one with the smaller first token, then with the smaller
second. Stop after n_merges, or where no word has two tokens left.

Write learn_merges; merge_pair is known.

Source: Sennrich, Haddow and Birch 2016, arXiv 1508.07909, algorithm 1; on bytes: Radford et al. 2019 (GPT-2).
"""
from collections import Counter
from itertools import pairwise

from ....tokenizer import train
from ....tokenizer.formats import BYTE_ORDER
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


def learn_merges(words, n_merges):
    """The first n_merges pairs of token ids, in order, from words {str: count}; pair k makes token 256 + k."""
    split = [(list(word.encode("utf-8")), count) for word, count in words.items()]
    merges = []
    while len(merges) < n_merges:
        counts = Counter()
        for ids, count in split:
            for pair in pairwise(ids):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        split = [(merge_pair(ids, best, 256 + len(merges)), count) for ids, count in split]
        merges.append(best)
    return merges


def _right(words, n_merges):
    """By the package's trainer, whose single bytes have GPT-2's ids; ours are the bytes' values."""
    learned = train.learn_merges(words, n_merges, ties="values")
    return [tuple(BYTE_ORDER[id] if id < 256 else id for id in pair) for pair in learned]


def _cases(yours):
    """One merge, then counts, ties, repeats, the end, and a small corpus."""
    def case(rule, words, n_merges):
        return f"{rule}: {words}"[:200], [tuple(pair) for pair in yours.learn_merges(dict(words), n_merges) or ()], \
            _right(words, n_merges)

    yield case("the pair that occurs most often must be merged first", {"aab": 1, "ab": 1, "cab": 1}, 1)
    yield case("a pair counts as often as its word occurs", {"ab": 1, "abc": 1, "xy": 3}, 1)
    yield case("a pair that stands twice in a word counts twice", {"abab": 2, "xy": 3}, 1)
    yield case("no pair crosses the border of a word", {"ab": 2, "ba": 1, "a": 5}, 1)
    yield case("the second merge must see the first one's token, which is 256", {"abc": 3, "ab": 1}, 2)
    yield case("the third token is 258: each merge makes a new one", {"abcd": 5, "abc": 2, "ab": 1}, 3)
    yield case("counts must be taken anew after a merge", {"abc": 3, "bc": 2, "ab": 3, "cd": 4}, 2)
    yield case("of equally frequent pairs the smaller must be merged first", {"zy": 2, "ba": 2, "bz": 2}, 2)
    yield case("of equally frequent pairs the first in the corpus is not meant, but the smaller", {"zy": 1, "ab": 1}, 2)
    yield case("overlapping pairs count each: (a, a) stands twice in aaa", {"aaa": 2, "bc": 3}, 1)
    yield case("where no word has two tokens left, stop", {"ab": 2, "c": 9}, 5)
    yield case("no words, no merges", {}, 3)
    yield case("no merges asked for, none learned", {"ab": 2}, 0)
    yield case("words begin as UTF-8 bytes, of which ö has two", {"schön": 2, "öl": 3, "ab": 1}, 4)
    text = "the cat sat on the mat and the rat ran at the cat then the bat banana bandana".split()
    yield case("a small corpus", Counter(text), 40)


EXERCISE = Exercise(
    __file__, solve=("learn_merges",), needs=("bpe_merge",), checks=by_cases(_cases),
    hints=("list(word.encode()) gives a word's bytes, which are its first tokens. Keep [(ids, count), ...].",
           "Count the pairs: for each word, for each pair in pairwise(ids), add the word's count.",
           "The best pair has the largest count, of equal ones the smallest pair: min by (-counts[pair], pair).",
           "Replace it in every word by 256 + len(merges), and count again from the beginning: slow, and right.",
           "Leave the loop where there is no pair at all."))
