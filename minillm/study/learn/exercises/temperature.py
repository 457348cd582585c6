"""Sampling: temperature and the draw.

A model gives logits (V,), one for each token; to write a text, one token must be drawn.

    distribution    softmax(logits / temperature): below 1 sharper, above 1 flatter. At temperature 0 it is what the
                    softmax becomes as the temperature goes to 0: all of it on the largest logit, on the first of equal
                    ones. A logit of -inf is a token that must not come: probability 0.
    draw            turns a uniform number u in [0, 1) into a token by inverting the cumulative sum of p: token 0 if
                    u < p[0], token 1 if p[0] <= u < p[0] + p[1], and so on. A token of probability 0 never comes.

distribution computes in float64 whatever the logits are, and leaves them as they are. draw must survive rounding: the
sum of p may be 1 - 1e-12, and u beyond it: then it is the last token that can come.

Source: Ackley, Hinton and Sejnowski 1985 (temperature); Devroye 1986, "Non-Uniform Random Variate Generation", chapter
III.2 (inversion).
"""
import numpy as np

from ....generation import sampling
from ..exercise import Exercise
from ..rules import by_cases


def distribution(logits, temperature):
    """Probabilities (V,) float64 of logits (V,) at a temperature of at least 0."""
    z = logits.astype(np.float64)
    if temperature == 0:
        return (np.arange(len(z)) == z.argmax()).astype(np.float64)
    w = np.exp((z - z.max()) / temperature)
    return w / w.sum()


def draw(p, u):
    """The token that a uniform number u in [0, 1) stands for: p (V,) -> int."""
    token = int(np.searchsorted(p.cumsum(), u, side="right"))
    return min(token, int(np.flatnonzero(p)[-1]))


def _cases(yours):
    """The distribution, then the draw at the edges between tokens."""
    z = np.array([1.0, -0.5, 2.0, 2.0, 0.25])

    def case(rule, logits, temperature):
        settings = sampling.Sampling(temperature)
        return rule, yours.distribution(logits.copy(), temperature), sampling.distribution(logits, settings), 1e-9

    yield case("at temperature 1 the distribution must be the softmax", z, 1.0)
    yield case("the logits must be divided by the temperature, before the softmax: below 1 is sharper", z, 0.5)
    yield case("above temperature 1 the distribution must be flatter", z, 3.0)
    yield case("at temperature 0 all probability is on the largest logit", z[:3], 0.0)
    yield case("at temperature 0 and with equal logits the first must have it all", z, 0.0)
    yield case("large logits overflow: take the maximum off before exp", z + 1000, 1.0)
    yield case("a small temperature makes large numbers: take the maximum off before exp", z, 1e-3)
    yield case("a token of logit -inf must have probability 0", np.array([0.0, -np.inf, 1.0]), 0.7)
    yield ("a token of logit -inf must have probability 0, not a small one",
           yours.distribution(np.array([0.0, -np.inf, 1.0]), 0.7)[1] == 0)
    given = z.copy()
    yours.distribution(given, 0.5)
    yield "the logits must be left as they are", given, z
    yield case("float32 logits must give float64 probabilities", z.astype(np.float32), 0.7)
    p = np.array([0.25, 0.0, 0.5, 0.25])
    for u, token, rule in ((0.1, 0, "u below p[0] stands for token 0"),
                           (0.25, 2, "u = p[0] is beyond token 0, and token 1, of probability 0, never comes"),
                           (0.6, 2, "token 2 lies from p[0] + p[1] to p[0] + p[1] + p[2]"),
                           (0.75, 3, "where token 2 ends token 3 begins"),
                           (0.999, 3, "the last token lies below 1")):
        yield f"draw of p = [0.25, 0, 0.5, 0.25] at u = {u}: {rule}", yours.draw(p, u), token
    yield "u = 0 must not draw a token of probability 0", yours.draw(np.array([0.0, 1.0]), 0.0), 1
    yield ("where rounding leaves the sum below u, draw the last token that can come",
           yours.draw(np.array([0.5, 0.5 - 1e-9, 0.0]), 1 - 1e-10), 1)


EXERCISE = Exercise(
    __file__, solve=("distribution", "draw"), needs=("kv_cache",), checks=by_cases(_cases),
    hints=("softmax(z / t): subtract the maximum first, which changes nothing and prevents overflow.",
           "At temperature 0 do not divide: one at z.argmax(), which is the first of equal ones, and zeros elsewhere.",
           "p.cumsum() gives where each token ends; the token is the first that ends beyond u.",
           "np.searchsorted(ends, u, side='right') counts the tokens that end at u or before.",
           "np.flatnonzero(p)[-1] is the last token that can come; take the smaller of the two."))
