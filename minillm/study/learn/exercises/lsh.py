"""LSH bands: similar documents, not by all pairs.

A million documents have 5e11 pairs. Cut each signature into bands of `rows` values, and compare only documents that
agree in all values of some band: put them into buckets by (band, its values), and every bucket gives its pairs.

    found(s, bands, rows)                 the probability that two documents of similarity s share a band, where each
                                          value agrees with probability s by itself: a float
    candidates(signatures, bands, rows)   signatures (N, K): the set of pairs (i, j), i < j, that share a band. Band 0
                                          is values 0 to rows - 1, and so on; values from bands * rows on are not used

Agreement counts within one band only: what stands in band 0 of one document and in band 1 of another is no match. Do
it by buckets, not by comparing all pairs.

Source: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
"""
from collections import defaultdict
from itertools import combinations

import numpy as np

from ....data.dedup import minhash
from ..exercise import Exercise
from ..rules import by_cases


def found(s, bands, rows):
    """The probability that two documents of similarity s share one of the bands."""
    return 1 - (1 - s ** rows) ** bands


def candidates(signatures, bands, rows):
    """signatures (N, K), K >= bands * rows -> set of pairs (i, j), i < j, that agree in all values of some band."""
    pairs = set()
    for band in range(bands):
        buckets = defaultdict(list)
        for i, values in enumerate(signatures[:, band * rows:(band + 1) * rows]):
            buckets[values.tobytes()].append(i)
        for members in buckets.values():
            pairs.update(combinations(members, 2))
    return pairs


def _right(signatures, bands, rows):
    """By the package's keys of bands."""
    keys = minhash.band_keys(signatures, bands, rows)                    # (N, bands)
    return {(i, j) for i, j in combinations(range(len(keys)), 2) if (keys[i] == keys[j]).any()}


def _cases(yours):
    """The S-curve in numbers, then signatures written down."""
    for s, bands, rows, rule in (
            (0.5, 1, 3, "one band of 3 values agrees with probability s^3"),
            (0.5, 4, 1, "of 4 bands of one value none agrees with probability (1 - s)^4"),
            (0.8, 16, 8, "1 - (1 - s^rows)^bands"), (0.0, 4, 2, "different documents are never found"),
            (1.0, 4, 2, "the same document always is")):
        yield f"found({s}, {bands}, {rows}): {rule}", yours.found(s, bands, rows), \
            float(minhash.Lsh(bands, rows).found(s))

    def case(rule, rows_of_values, bands, rows):
        signatures = np.array(rows_of_values, np.uint32)
        got = yours.candidates(signatures.copy(), bands, rows)
        return f"candidates: {rule}", {tuple(map(int, pair)) for pair in got}, _right(signatures, bands, rows)

    yield case("documents that agree in a whole band are a pair, (0, 1)", [[1, 2, 3, 4], [1, 2, 8, 9]], 2, 2)
    yield case("the same values in different bands are no match", [[1, 2, 3, 4], [3, 4, 1, 2]], 2, 2)
    yield case("all values of the band must agree, not one of them", [[1, 2, 3, 4], [1, 8, 3, 9]], 2, 2)
    yield case("any band will do, not the first alone", [[1, 2, 3, 4], [8, 9, 3, 4]], 2, 2)
    yield case("one shared band is enough: not all must agree", [[1, 2, 3, 4, 5, 6], [0, 0, 3, 4, 0, 0]], 3, 2)
    yield case("a band's values must agree in their places", [[1, 2, 3, 4], [2, 1, 4, 3]], 2, 2)
    yield case("bands are values that stand together: `rows` of them each", [[1, 2, 3, 4, 5, 6], [1, 0, 3, 0, 5, 0],
                                                                            [1, 2, 0, 0, 0, 0]], 2, 3)
    yield case("a bucket of three gives three pairs, with i < j", [[1, 2], [1, 2], [1, 2]], 1, 2)
    yield case("values beyond bands * rows are not used", [[1, 2, 3, 7], [5, 6, 4, 7]], 1, 3)
    yield case("no document, no pair", np.zeros((0, 4)), 2, 2)
    rng = np.random.default_rng(8)
    yield case("a hundred random signatures", rng.integers(0, 4, (100, 12)), 4, 3)


EXERCISE = Exercise(
    __file__, solve=("found", "candidates"), needs=("minhash",), checks=by_cases(_cases),
    hints=("A whole band agrees with probability s^rows, so it does not with 1 - s^rows.",
           "None of the bands agrees with (1 - s^rows)^bands; found is the rest.",
           "For each band: a dictionary from the band's values, as a tuple or bytes, to the documents that have them.",
           "combinations(members, 2) gives the pairs of a bucket, smaller number first if members are in order.",
           "A new dictionary for each band: so the same values in another band do not meet."))
