"""One BPE merge: a pair of tokens becomes one.

Byte-pair encoding is nothing but this step, over and over: in training with the pair that occurs most often, in
encoding with the pairs that were learned, in their order.

    merge_pair([5, 1, 2, 1, 2, 9], (1, 2), 256)  ->  [5, 256, 256, 9]

Pairs are looked for from the left, and a token that was merged is part of no other pair: in 7 7 7 the pair (7, 7)
occurs twice but can be replaced once, the first time. The list given is left as it is.

Source: Sennrich, Haddow and Birch 2016, arXiv 1508.07909, algorithm 1.
"""
from ....tokenizer import merge
from ..exercise import Exercise
from ..rules import by_cases


def merge_pair(ids, pair, new):
    """ids, a list of ints, with each occurrence of the two neighbours `pair` replaced by `new`: a new list."""
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def _cases(yours):
    """Each rule on the shortest list that shows it."""
    def case(rule, ids, pair):
        return f"{rule}: {pair} in {ids}", yours.merge_pair([*ids], pair, 256), merge.merge_pair([*ids], pair, 256)

    yield case("the pair must be replaced by the one new token, and the rest stay", [5, 1, 2, 9], (1, 2))
    yield case("neighbours only: a token of the pair alone, or apart from the other, is no pair", [1, 5, 2], (1, 2))
    yield case("a pair at the end must be replaced", [5, 1, 2], (1, 2))
    yield case("every occurrence must be replaced", [1, 2, 5, 1, 2], (1, 2))
    yield case("the last token must not get lost", [1, 2, 5], (1, 2))
    yield case("the order matters: (1, 2) is not (2, 1)", [2, 1, 5], (1, 2))
    yield case("one token is in one pair only, from the left", [7, 7, 7], (7, 7))
    yield case("of equal tokens in a row, two and two are merged", [7, 7, 7, 7], (7, 7))
    yield case("the new token must not be merged again", [1, 2, 2], (1, 2))
    yield case("the new token is part of no pair in this merge", [256, 1, 1], (256, 1))
    yield case("a single token has no neighbour", [1], (1, 2))
    yield case("an empty list stays empty", [], (1, 2))
    given = [1, 2, 3]
    yours.merge_pair(given, (1, 2), 256)
    yield "the list given must be left as it is: return a new one", given, [1, 2, 3]


EXERCISE = Exercise(
    __file__, solve=("merge_pair",), checks=by_cases(_cases),
    hints=("Walk through ids with an index i that you move yourself: a while loop, for some steps are two long.",
           "At i, if there is an i + 1 and (ids[i], ids[i + 1]) == pair: append new, and go on at i + 2.",
           "Else append ids[i], and go on at i + 1: so the last token, which has no neighbour, is kept, too."))
