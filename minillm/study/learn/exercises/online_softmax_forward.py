"""The online softmax, the forward.

Attention that never holds all scores, as FlashAttention does it.

    out[t] = sum over s of P[t, s] * v[s],    P = softmax of the rows of S = scale * q @ k.T,    scale = 1 / sqrt(D)

Keys come in blocks of `block` rows; only the scores of one block, (T, block), may be in memory at a time. Of what came
before three things are kept for each query: m (T, 1), the largest score so far; l (T, 1), the sum of exp(score - m);
acc (T, D), the sum of exp(score - m) * v. When a block brings a larger maximum, l and acc are in an old unit: find the
factor that mends both. At the end out = acc / l, and lse = m + log(l), the logsumexp of each row of scores, is all that
the backward needs to have every P again. There is no mask here.
"""
import math

import numpy as np

from ..compare import check_kind, difference, equal
from ..exercise import Exercise, Wrong
from ..memory import check_peak


def online_softmax_forward(q, k, v, block):
    """q (T, D), k (S, D), v (S, D), block int -> out (T, D), cache: (q, k, v, block, out, lse), lse (T, 1)."""
    scale = 1 / math.sqrt(q.shape[1])
    m = np.full((len(q), 1), -math.inf, q.dtype)
    l, acc = np.zeros_like(m), np.zeros_like(q)
    for start in range(0, len(k), block):
        S = scale * (q @ k[start:start + block].T)                   # (T, block)
        top = np.maximum(m, S.real.max(axis=1, keepdims=True))
        P = np.exp(S - top)
        mend = np.exp(m - top)                                       # exp(-inf) = 0 in the first block
        l = mend * l + P.sum(axis=1, keepdims=True)
        acc = mend * acc + P @ v[start:start + block]
        m = top
    out = acc / l
    return out, (q, k, v, block, out, m + np.log(l))


def _inputs(rng):
    T, S, D = rng.permutation([3, 5, 7]) if rng.random() < 0.5 else rng.permutation([2, 9, 4])
    return {"q": rng.standard_normal((T, D)), "k": 3 * rng.standard_normal((S, D)), "v": rng.standard_normal((S, D)),
            "block": 2}


def _memory(yours, rng):
    """For many keys."""
    T, S, D, block = 256, 4096, 4, 64
    q, k, v = (rng.standard_normal((rows, D)) for rows in (T, S, S))
    return check_peak(lambda: yours.online_softmax_forward(q, k, v, block), T * S * 8, f"with {S:,} keys")


def _logsumexp(yours, rng):
    """What the backward needs, from the cache."""
    q, k, v = (rng.standard_normal((rows, 4)) for rows in (3, 7, 7))
    _, cache = yours.online_softmax_forward(q, k, v, 2)
    if not isinstance(cache, tuple) or len(cache) != 6:
        raise Wrong("the cache must be (q, k, v, block, out, lse), six things")
    lse = np.log(np.exp(q @ k.T / 2).sum(axis=1, keepdims=True))
    check_kind("lse, the last of the cache,", cache[5], lse)
    if not equal(cache[5], lse):
        raise Wrong(f"lse must be m + log(l): {difference('lse', cache[5], lse)}")
    return "lse in the cache is the logsumexp of each row of scores"


EXERCISE = Exercise(
    __file__, inputs=_inputs, checks=(("logsumexp", _logsumexp), ("memory", _memory)),
    solve=("online_softmax_forward",), needs=("attention_forward",),
    hints=(
        "For one block: S = scale * q @ k[start:start + block].T, (T, block). The last block may be shorter; slices "
        "do that by themselves.",
        "The new maximum is the larger of the old one and the block's: top = np.maximum(m, S.max(axis=1, "
        "keepdims=True)). Begin with m = -inf.",
        "P = exp(S - top) in the new unit. The block adds P.sum(axis=1) to l, and P @ v[start:start + block] to acc.",
        "What was summed before holds exp(score - m). In the new unit it must hold exp(score - top) = exp(score - m) "
        "* exp(m - top): multiply both l and acc by exp(m - top) first. In the first block that is exp(-inf) = 0.",
        "Then m = top. At the end out = acc / l, and lse = m + log(l).",
    ),
    mistakes=(
        ("mend * l + P", "l + P", "does not bring l into the new unit: multiply it by exp(m - top)"),
        ("mend * acc + P", "acc + P", "does not bring acc into the new unit: multiply it by exp(m - top)"),
        ("mend = np.exp(m - top)", "mend = 1.0",
         "does not bring l and acc into the new unit: multiply both by exp(m - top)"),
        ("mend = np.exp(m - top)", "mend = np.exp(top - m)",
         "is mended the wrong way round: the factor is exp(m - top)"),
        ("np.maximum(m, S.real.max(axis=1, keepdims=True))", "S.real.max(axis=1, keepdims=True)",
         "takes the block's maximum alone: it is the larger of that and the old one"),
        ("scale = 1 / math.sqrt(q.shape[1])", "scale = 1", "lacks the scale 1 / sqrt(D)"),
        ("out = acc / l", "out = acc", "is not divided by l at the end"),
        ("range(0, len(k), block)", "range(0, len(k) - block + 1, block)", "leaves the last, shorter block out"),
    ))
