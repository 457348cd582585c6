"""The online softmax, the backward.

All gradients of attention from out and one number a row, block by block.

    out = P @ v,    P = softmax of the rows of S = scale * q @ k.T = exp(S - lse)

The forward is given. Its cache has q, k, v, out, and lse (T, 1), the logsumexp of each row of scores; P is not kept,
but any block of it is one matmul and one exp away. The softmax's backward wants a sum over the whole row, which is in
no block: dS = P * (dP - sum over s of dP[s] * P[s]). Find what else that sum is; then one loop over blocks is enough.
"""
import math

import numpy as np

from ..exercise import Exercise
from ..memory import check_peak


def online_softmax_forward(q, k, v, block):
    """q (T, D), k (S, D), v (S, D), block int -> out (T, D), cache: (q, k, v, block, out, lse)."""
    scale = 1 / math.sqrt(q.shape[1])
    m = np.full((len(q), 1), -math.inf, q.dtype)
    l, acc = np.zeros_like(m), np.zeros_like(q)
    for start in range(0, len(k), block):
        S = scale * (q @ k[start:start + block].T)
        top = np.maximum(m, S.real.max(axis=1, keepdims=True))
        P, mend, m = np.exp(S - top), np.exp(m - top), top
        l = mend * l + P.sum(axis=1, keepdims=True)
        acc = mend * acc + P @ v[start:start + block]
    out = acc / l
    return out.copy(), (q, k, v, block, out, m + np.log(l))


def online_softmax_backward(dout, cache):
    """dout (T, D), cache -> dq (T, D), dk (S, D), dv (S, D)."""
    q, k, v, block, out, lse = cache
    scale = 1 / math.sqrt(q.shape[1])
    rowsum = (dout * out).sum(axis=1, keepdims=True)                 # (T, 1)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for start in range(0, len(k), block):
        part = slice(start, start + block)
        P = np.exp(scale * (q @ k[part].T) - lse)                    # (T, block)
        dv[part] = P.T @ dout
        dS = P * (dout @ v[part].T - rowsum)
        dq += scale * (dS @ k[part])
        dk[part] = scale * (dS.T @ q)
    return dq, dk, dv


def _inputs(rng):
    T, S, D = rng.permutation([3, 5, 7]) if rng.random() < 0.5 else rng.permutation([2, 9, 4])
    return {"q": rng.standard_normal((T, D)), "k": rng.standard_normal((S, D)), "v": rng.standard_normal((S, D)),
            "block": 2}


def _memory(yours, rng):
    """For many keys."""
    T, S, D, block = 256, 4096, 4, 64
    q, k, v = (rng.standard_normal((rows, D)) for rows in (T, S, S))
    out, cache = yours.online_softmax_forward(q, k, v, block)
    return check_peak(lambda: yours.online_softmax_backward(out, cache), T * S * 8, f"with {S:,} keys")


EXERCISE = Exercise(
    __file__, inputs=_inputs, checks=(("memory", _memory),), solve=("online_softmax_backward",),
    needs=("online_softmax_forward", "attention_backward"),
    hints=(
        "P[t, s] = exp(S[t, s]) / sum of exp(S[t, :]) = exp(S[t, s] - lse[t]): a block of P needs no other block.",
        "dv of a block is P.T @ dout, and dP of a block is dout @ v.T: as in attention's backward, on k[start:start "
        "+ block].",
        "sum over s of dP[t, s] P[t, s] = sum over s of (dout[t] . v[s]) P[t, s] = dout[t] . (sum over s of P[t, s] "
        "v[s]) = dout[t] . out[t]. It is known before the loop: (dout * out).sum(axis=1, keepdims=True).",
        "dS = P * (dP - that), block by block.",
        "dk of a block is scale * dS.T @ q and is written once; each query sees all blocks, so dq += scale * dS @ k "
        "of the block.",
    ),
    mistakes=(
        ("dout @ v[part].T - rowsum", "dout @ v[part].T", "lacks the row's sum: dS = P * (dP - dout . out)"),
        ("dq += scale", "dq = scale", "counts the last block alone: each query sees all blocks, so it is a sum"),
        ("rowsum = (dout * out).sum(axis=1, keepdims=True)", "rowsum = dout.sum(axis=1, keepdims=True)",
         "has the sum of dout where that of dout * out belongs"),
        ("(q @ k[part].T) - lse)", "(q @ k[part].T))", "has exp(S) where P = exp(S - lse) belongs"),
        ("P = np.exp(scale * (q", "P = np.exp((q", "lacks the scale in the scores that are made again"),
        ("dq += scale * (dS @ k[part])", "dq += dS @ k[part]", "lacks the scale"),
        ("scale * (dS.T @ q)", "dS.T @ q", "lacks the scale"),
        ("dS = P * (dout @ v[part].T - rowsum)",
         "dP = dout @ v[part].T; dS = P * (dP - (dP * P).sum(axis=1, keepdims=True))",
         "has the sum of one block where that of the whole row belongs: it is dout . out"),
    ))
