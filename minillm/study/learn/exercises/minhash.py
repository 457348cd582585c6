"""MinHash: the similarity of two documents.

A document is the set of its shingles, such as every 5 words in a row, each hashed to 32 bits. Two documents are as
similar as their Jaccard similarity, |A and B| / |A or B|. Sets are large; but under a random order of all shingles, the
first one of A is the first one of B with just that probability: it is so where the first of A or B is in both. So keep,
for K orders, the least value of each document, its signature, and compare those.

An order is the permutation h -> a * h + b modulo 2^32, with a odd; a and b are (K,) arrays of uint32, hashes (n,) of
uint32, in which arithmetic is modulo 2^32 by itself.

    jaccard(A, B)               of two Python sets, a float; of two empty sets 0
    signature(hashes, a, b)     (K,) uint32: of each permutation the least value; 2^32 - 1 where there are no hashes
    estimate(one, other)        of two signatures (K,): the share of places where they agree, a float

Source: Broder 1997, "On the resemblance and containment of documents".
"""
import numpy as np

from ....data.dedup import minhash
from ..exercise import Exercise
from ..rules import by_cases


def jaccard(A, B):
    """|A and B| / |A or B| of two sets; 0 for two empty ones."""
    return len(A & B) / len(A | B) if A | B else 0.0


def signature(hashes, a, b):
    """hashes (n,) uint32, a and b (K,) uint32 -> (K,) uint32: the least a * h + b of each permutation."""
    values = hashes[:, None] * a + b                                     # (n, K), modulo 2^32
    return values.min(axis=0, initial=np.uint32(2 ** 32 - 1))


def estimate(one, other):
    """The share of places where two signatures (K,) agree."""
    return float(np.mean(one == other))


def _cases(yours):
    """Small sets, signatures by the package, and the estimate over every multiplier of a small range."""
    for A, B, rule in (({1, 2, 3}, {2, 3, 4}, "what is in both over what is in either: here 2 of 4"),
                       ({1, 2}, {3}, "nothing in common is 0"), ({1, 2}, {1, 2}, "the same set is 1"),
                       ({1}, {1, 2, 3, 4}, "a part of a larger set is not the same: over all of both, not over one"),
                       (set(), {1}, "an empty set has nothing in common"), (set(), set(), "of two empty sets 0")):
        yield f"jaccard: {rule}", yours.jaccard(set(A), set(B)), \
            minhash.jaccard_similarity(np.array(sorted(A), int), np.array(sorted(B), int))
    rng = np.random.default_rng(6)
    a, b = minhash.permutation_coefficients(16, seed=3)

    def signed(rule, hashes, a, b):
        want = minhash.signature(hashes.astype(np.uint64) << np.uint64(32), a, b)
        return f"signature: {rule}", yours.signature(hashes.copy(), a.copy(), b.copy()), want

    small, hashes = np.array([5, 2, 9], np.uint32), rng.integers(0, 2 ** 32, 40, np.uint32)
    yield ("signature: it has one number for each of the K permutations, not for each shingle",
           np.shape(yours.signature(small.copy(), a[:5], b[:5])) == (5,))
    yield signed("the least a * h + b", small, np.array([1], np.uint32), np.array([100], np.uint32))
    yield signed("modulo 2^32: in uint32, where it wraps by itself, not in wider integers or floats", hashes, a, b)
    yield signed("a shingle that stands twice counts once", np.repeat(hashes, 2), a, b)
    yield signed("the order of the shingles does not matter", hashes[::-1].copy(), a, b)
    yield signed("no shingles: all 2^32 - 1", hashes[:0], a, b)
    one, other = np.array([3, 7, 8, 1], np.uint32), np.array([3, 9, 8, 2], np.uint32)
    yield "estimate: the share of places that agree, here 2 of 4", yours.estimate(one, other), 0.5
    yield "estimate: place by place: what agrees elsewhere does not count", yours.estimate(one, np.roll(one, 1)), 0.0
    A, B = hashes[:30], hashes[10:]
    a, b = minhash.permutation_coefficients(2000)
    yield ("estimate of signatures: with 2000 permutations it must come near the Jaccard similarity, 0.5",
           abs(yours.estimate(yours.signature(A, a, b), yours.signature(B, a, b)) - 0.5) < 0.05)


EXERCISE = Exercise(
    __file__, solve=("jaccard", "signature", "estimate"), checks=by_cases(_cases),
    hints=("Python's sets know & and |: len(A & B) / len(A | B), unless the latter is empty.",
           "hashes[:, None] * a + b is (n, K): each shingle under each permutation.",
           "uint32 times uint32 stays uint32 and wraps. The least along axis 0 remains: (K,).",
           "min of nothing raises; min(axis=0, initial=np.uint32(2**32 - 1)) does not.",
           "one == other is (K,) of True and False, whose mean is the share."))
