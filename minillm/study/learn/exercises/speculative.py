"""Speculative decoding: verify a draft's tokens.

A small draft model proposes k tokens, the i-th drawn from its distribution q[i]; one pass of the large target gives its
own distributions p[0] to p[k]. Tokens are verified in order, so that the text has exactly the target's distribution,
whatever the draft:

    keep a token x, drawn from q, with probability   min(1, p(x) / q(x))
    at the first token not kept, drop it and all after it, and draw one from   max(0, p - q), normalised
    where all k are kept, draw one more from   p[k]

Write, with p and q of one place (V,), and a token x that was drawn from q, so that q[x] > 0:

    acceptance(p, q, x)      the probability to keep it, a float
    residual(p, q)           what is drawn from instead, (V,), summing to 1; where p = q nothing is left, and nobody
                             asks but for rounding: then it is p
    verify(p, q, proposed, u)    p (k + 1, V), q (k, V), proposed k tokens, u (k,) uniform numbers in [0, 1): token i is
                             kept where u[i] is below its acceptance. Returns the list of tokens kept, and the
                             distribution (V,) of the one token that comes after them

Source: Leviathan, Kalman and Matias 2023, arXiv 2211.17192, algorithm 1 and appendix A.1.
"""
import numpy as np

from ....generation import speculative
from ..exercise import Exercise
from ..rules import by_cases


def acceptance(p, q, x):
    """The probability to keep a token x that was drawn from q (V,), where the target has p (V,)."""
    return min(1.0, float(p[x] / q[x]))


def residual(p, q):
    """The distribution (V,) that is drawn from where a token drawn from q was not kept."""
    left = np.maximum(p - q, 0)
    return left / left.sum() if left.any() else p.copy()


def verify(p, q, proposed, u):
    """p (k + 1, V), q (k, V), proposed k tokens, u (k,) -> (list of the tokens kept, distribution (V,) of the next)."""
    for i, x in enumerate(proposed):
        if u[i] >= acceptance(p[i], q[i], x):
            return list(proposed[:i]), residual(p[i], q[i])
    return list(proposed), p[len(proposed)]


def _outcome(yours, p, q):
    """The exact distribution of a token that comes out: kept, or drawn from the residual."""
    kept = np.array([q[x] * yours.acceptance(p, q, x) if q[x] else 0.0 for x in range(len(p))])
    return kept + (1 - kept.sum()) * yours.residual(p, q)


def _cases(yours):
    """Exact distributions, no samples: the parts, their sum, and walks along given uniform numbers."""
    p, q = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.125, 0.5, 0.25, 0.125])
    for x, rule in ((0, "likelier for the target than for the draft: it must always be kept, with probability 1"),
                    (1, "half as likely for the target: it must be kept with probability p / q, here one half"),
                    (2, "equally likely: it must always be kept"),
                    (3, "impossible for the target: it must never be kept")):
        yield f"acceptance: {rule}", yours.acceptance(p, q, x), min(1.0, float(p[x] / q[x]))
    got = yours.residual(p.copy(), q.copy())
    yield "residual: it must return an array (V,)", np.shape(got) == (4,)
    yield ("residual: a token that the draft proposes more often than the target wants must not come again: "
           "max(0, p - q), neither p nor |p - q|", got[1:], np.zeros(3))
    yield "residual: it must be normalised, to sum 1", got, speculative.residual(p, q)
    rng = np.random.default_rng(4)
    for _ in range(5):
        a, b = rng.dirichlet(np.full(6, 0.5)), rng.dirichlet(np.full(6, 0.5))
        yield "the text must have exactly the target's distribution: acceptance and residual together miss p", \
            _outcome(yours, a, b), a
    yield "residual: where p = q it must be p, not 0 / 0", yours.residual(p.copy(), p.copy()), p
    several_p, several_q = rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(5), 3)
    proposed = [int(row.argmax()) for row in several_q]
    limits = [min(1.0, float(several_p[i, x] / several_q[i, x])) for i, x in enumerate(proposed)]

    def walk(rule, u, place):
        kept, then = yours.verify(several_p.copy(), several_q.copy(), [*proposed], np.array(u))
        want = several_p[3] if place == 3 else speculative.residual(several_p[place], several_q[place])
        return (f"verify: {rule}: wrong tokens kept", [*kept], proposed[:place]), (
            f"verify: {rule}: wrong distribution of the next", then, want)

    sure = [0.0, 0.0, 0.0]
    yield from walk("where all are kept one more comes from p[k], which the pass has computed already", sure, 3)
    yield from walk("the first token not kept ends it, and the residual is of its own place", [0.0, 0.999999, 0.0], 1)
    yield from walk("a first token not kept leaves none", [0.999999, 0.0, 0.0], 0)
    yield from walk("no token after the first that is not kept may be kept, however sure", [0.0, 0.999999, 0.0], 1)
    yield from walk("u just below the acceptance keeps the token", [limit * 0.999 for limit in limits], 3)
    yield from walk("u just above the acceptance does not", [0.0, 0.0, min(limits[2] * 1.001, 0.9999)], 2)
    kept, _ = yours.verify(np.array([p, p]), np.array([q]), [1], np.array([0.5]))
    yield "verify: kept is what lies below the acceptance: u = 0.5 is not below 0.5", [*kept], []
    none, then = yours.verify(several_p[:1], several_q[:0], [], np.zeros(0))
    yield "verify: without proposals the next token comes from p[0]", [*none, then], [several_p[0]]


EXERCISE = Exercise(
    __file__, solve=("acceptance", "residual", "verify"), needs=("top_p",), checks=by_cases(_cases),
    hints=("A token x comes out of the draft with probability q(x). At most p(x) of that may stay: keep min(q, p).",
           "To keep min(q(x), p(x)) of q(x), accept with probability min(1, p(x) / q(x)).",
           "What is still missing of p is p - min(p, q) = max(0, p - q); draw from it, normalised, in all other cases.",
           "The other cases have probability 1 - sum min(p, q), which is just the sum of max(0, p - q): it fits.",
           "verify: for each i in order; at the first with u[i] >= acceptance return proposed[:i] and the residual of "
           "p[i] and q[i]; after the loop, all of them and p[k]."))
