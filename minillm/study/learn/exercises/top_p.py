"""Nucleus sampling (top-p).

The tail of a distribution over 50,000 tokens holds nonsense, each unlikely, but many: drawn often enough, it derails a
text. The nucleus is the smallest set of the most probable tokens whose probabilities sum up to at least top_p; the
others get 0, and those kept are divided by their sum.

    sort by probability, add up from the largest, and stop where the sum reaches top_p

So the token with which the sum crosses top_p is kept, too, and one token always is. Of equal tokens of which not all
are needed, those that come first in the vocabulary are kept. top_p is in (0, 1]; at 1 nothing changes.

Write nucleus(p, top_p): p (V,) float64 that sums to 1 -> (V,), a new array.

Source: Holtzman et al. 2020, arXiv 1904.09751, section 3.1.
"""
import numpy as np

from ....generation import sampling
from ..exercise import Exercise
from ..rules import by_cases


def nucleus(p, top_p):
    """p (V,) -> p with the tokens beyond the nucleus at 0, normalised."""
    order = np.argsort(-p, kind="stable")                   # of equal tokens, the first comes first
    sums = p[order].cumsum()
    size = min(int(np.searchsorted(sums, top_p)) + 1, len(p))
    kept = np.zeros_like(p)
    kept[order[:size]] = p[order[:size]]
    return kept / kept.sum()


def _cases(yours):
    """Binary fractions, so that sums are exact; the size of the set, its order, ties, the ends."""
    p = np.array([0.125, 0.5, 0.03125, 0.25, 0.0625, 0.03125, 0.0, 0.0])

    def case(rule, p, top_p):
        kept = p * sampling.nucleus(p, top_p)
        return rule, yours.nucleus(p.copy(), top_p), kept / kept.sum()

    got = yours.nucleus(p.copy(), 0.6)
    yield "nucleus must return an array of p's shape", np.shape(got) == p.shape
    kept = set(np.flatnonzero(got).tolist())
    yield "the most probable tokens must be kept, not the least probable", yours.nucleus(p.copy(), 0.3)[1] != 0
    yield "the last token that crosses top_p must be kept: without it the sum is 0.5, below 0.6", kept != {1}
    yield "tokens must be taken in the order of their probabilities, not of their ids", 0 not in kept or 3 in kept
    yield "the smallest set that reaches top_p must be kept, and no more: 0.5 + 0.25 reach 0.6", kept, {1, 3}
    yield case("what is kept must be divided by its sum", p, 0.6)
    yield case("a sum of exactly top_p reaches it: no further token is needed", p, 0.75)
    yield case("one token alone may reach top_p, and one must always be kept", p, 0.1)
    yield case("at top_p = 1 every token must be kept", p, 1.0)
    yield case("of equal tokens at the edge only as many must be kept as are needed, the first of them", p, 0.95)
    yield case("of equal tokens the first must be kept", np.full(8, 0.125), 0.3)
    yield case("of many equal tokens the first must be kept: np.argsort mixes them, unless kind='stable'",
               np.tile([1.0, 3.0], 16) / 64, 0.3)
    yield case("a token of probability 0 must keep it", np.array([0.5, 0.0, 0.5, 0.0]), 1.0)
    given = p.copy()
    yours.nucleus(given, 0.6)
    yield "p must be left as it is", given, p
    rng = np.random.default_rng(3)
    for _ in range(20):
        q = rng.dirichlet(np.full(50, 0.1))
        yield case("a random distribution", q, float(rng.uniform(0.05, 0.95)))


EXERCISE = Exercise(
    __file__, solve=("nucleus",), needs=("temperature",), checks=by_cases(_cases),
    hints=("np.argsort(-p, kind='stable') gives the tokens from the most probable on, of equal ones the first first.",
           "sums = p[order].cumsum(); the nucleus ends at the first place where sums >= top_p.",
           "np.searchsorted(sums, top_p) counts the sums below top_p; the nucleus has one token more.",
           "Rounding may leave the last sum below 1: the nucleus has at most V tokens.",
           "Fill an array of zeros at order[:size] with p's numbers, and divide by its sum."))
