"""Causal attention in which several query heads share one head of keys and values (grouped queries).

q has NH heads of HS numbers, k and v only NKV, a divisor of NH: NH / NKV query heads, a group, read the same k and v.
With t the position of a query and s that of a key it sees (s <= t, and t - s < window where there is one), per query
head:

    scale = 1 / sqrt(HS)            S[t, s] = scale * q[t] . k[s]
    P[t, s] = exp(S[t, s]) / sum over r <= t of exp(S[t, r])   for s <= t
    out[t] = sum over s <= t of P[t, s] * v[s]

That is attention.py, where every step back is derived:

    dP = dout @ v.T                 dS[t, s] = P[t, s] * (dP[t, s] - sum over r of dP[t, r] * P[t, r])
    dq = scale * dS @ k

What is new is that a head of k and v is used by every query head of its group, and a number used several times gets
the sum of its gradients: dk is the sum of scale dS.T @ q, and dv that of P.T @ dout, over the heads of the group.

The KV cache is NH / NKV times smaller, and no head of k or v is ever repeated in memory. NKV = NH is plain attention,
NKV = 1 multi-query attention. A window bounds what a layer sees; deeper layers reach further through it.

Sinks, where there are some, are a learned logit z for each query head: one more column of the softmax, without a
value. A head that finds nothing to look at puts its weight there instead of on the first tokens. A, with the sink's A0,
takes the place of P, and dP of that column is 0, since it has no value:

    A[t, s] = exp(S[t, s]) / (exp(z) + sum over r <= t of exp(S[t, r]))   for s <= t
    A0[t] = exp(z) / (exp(z) + sum over r <= t of exp(S[t, r]))
    dz = sum over t of A0[t] * (0 - sum over r of dP[t, r] * A[t, r])

A soft-cap (softcap.py) bounds the scores before the softmax: U takes the place of S, and its slope joins dS.

    U[t, s] = cap * tanh(S[t, s] / cap)
    dU[t, s]/dS[t, s] = 1 - (U[t, s] / cap)^2

Source: Ainslie et al. 2023, arXiv 2305.13245; the window: Beltagy et al. 2020, arXiv 2004.05150; sinks: Xiao et al.
2023, arXiv 2309.17453, and OpenAI 2025 (gpt-oss), arXiv 2508.10925; the cap: Gemma Team 2024, arXiv 2408.00118.
"""
import math

import numpy as np

from .attention import causal, causal_softmax, merge_heads, row_logsumexps
from .checks import check_dout, check_dtype, check_float, check_number, check_shape, from_cache
from .softcap import capped, slope_at
from .spec import CPU, FLOAT32, GPU, Spec, normals, wrong


def grouped_attention_forward(q, k, v, n_head, window=0, softcap=0.0, sinks=None):
    """Attend from each token to itself and those before it, heads of k and v shared (Ainslie et al. 2023).

    q (B, T, NH * HS), k and v (B, T, NKV * HS), n_head int, window 0 (all) or how many tokens a query sees, itself
    among them, softcap 0 (none) or the bound of the scores, sinks None or (NH) -> out (B, T, NH * HS), cache. Raises
    ValueError for widths that are not whole heads.
    """
    check_float("q", q)
    check_shape("q", q, (None, None, None))
    check_shape("k", k, (*q.shape[:2], None))
    check_groups(q.shape[2], k.shape[2], n_head)
    check_shape("v", v, k.shape)
    for name, array in (("k", k), ("v", v)):
        check_dtype(name, array, q.dtype)
    check_options(window, sinks, softcap, n_head, q.dtype)
    sinks = np.zeros(0, q.dtype) if sinks is None else sinks
    queries, keys, values = grouped_heads(q, k, v, n_head)
    P = causal_softmax(scores(queries, keys, softcap), window, column_of(sinks, keys.shape[1]))
    out = ungrouped(P[..., :q.shape[1]] @ values)
    return out, (q, k, v, n_head, window, sinks, float(softcap), P)  # P (B, NKV, group, T, T), with sinks T + 1 columns


def grouped_attention_backward(dout, cache):
    """The gradients of grouped_attention_forward: dout (B, T, NH * HS), cache -> dq, dk, dv; and dsinks (NH), where
    there are sinks."""
    q, k, v, n_head, window, sinks, softcap, P = from_cache(
        cache, q="BTC", k="BTK", v="BTK", n_head=int, window=int, sinks="Z", softcap=float, P="BHGTS")
    check_groups(q.shape[2], k.shape[2], n_head)
    check_options(window, sinks if len(sinks) else None, softcap, n_head, q.dtype, "cached ")
    check_dout(dout, q.shape, q.dtype)
    T = q.shape[1]
    queries, keys, values = grouped_heads(q, k, v, n_head)
    check_shape("cached P", P, (*queries.shape[:4], T + bool(len(sinks))))
    P, P0 = P[..., :T], P[..., T:]
    dout = grouped_heads(dout, k, v, n_head)[0]                      # (B, NKV, group, T, HS)
    dP = dout @ values.swapaxes(-1, -2)                              # (B, NKV, group, T, T)
    D = (dP * P).sum(axis=-1, keepdims=True)                         # (B, NKV, group, T, 1)
    dS = P * (dP - D)
    if softcap:
        dS = dS * slope_at(scores(queries, keys, softcap), softcap)
    dS = dS * (1 / math.sqrt(keys.shape[-1]))
    dk = (dS.swapaxes(-1, -2) @ queries).sum(axis=2)                 # over the group: (B, NKV, T, HS)
    dv = (P.swapaxes(-1, -2) @ dout).sum(axis=2)
    grads = ungrouped(dS @ keys), merge_heads(dk), merge_heads(dv)
    return (*grads, -(P0 * D).sum(axis=(0, 3, 4)).reshape(n_head)) if len(sinks) else grads


def scores(queries, keys, softcap):
    """What the softmax is of, masked later: (B, NKV, group, T, HS) and (B, NKV, 1, S, HS) -> (B, NKV, group, T, S)."""
    S = queries @ keys.swapaxes(-1, -2) * (1 / math.sqrt(keys.shape[-1]))
    return capped(S, softcap) if softcap else S


def column_of(sinks, n_kv):
    """Sinks (NH) beside the scores of their heads, (NKV, group, 1, 1); none for none."""
    return None if sinks is None or not len(sinks) else sinks.reshape(n_kv, -1, 1, 1)


def grouped_heads(q, k, v, n_head):
    """q as (B, NKV, group, T, HS); k and v as (B, NKV, 1, T, HS), so that a group meets its one head."""
    B, T, C = q.shape
    HS = C // n_head
    n_kv = k.shape[2] // HS
    k, v = (x.reshape(B, x.shape[1], n_kv, 1, HS).transpose(0, 2, 3, 1, 4) for x in (k, v))
    return q.reshape(B, T, n_kv, n_head // n_kv, HS).transpose(0, 2, 3, 1, 4), k, v


def ungrouped(x):
    """(B, NKV, group, T, HS) -> (B, T, NH * HS)."""
    B, n_kv, group, T, HS = x.shape
    return merge_heads(x.reshape(B, n_kv * group, T, HS))


def check_groups(width, kv_width, n_head):
    """Raise unless q is n_head whole heads, and k whole heads of that size, whose number divides n_head."""
    check_number("n_head", n_head, lambda n: n >= 1, "an integer of at least 1", int)
    if not width or width % n_head:
        raise ValueError(f"q must have a last axis of n_head * HS: got {width} with n_head={n_head}")
    heads, rest = divmod(kv_width, width // n_head)
    if rest or not heads or n_head % heads:
        raise ValueError(f"k must have a last axis of heads of {width // n_head} numbers, whose count divides n_head="
                         f"{n_head}: got {kv_width}")


def check_options(window, sinks, softcap, n_head, dtype, where=""):
    check_number(f"{where}window", window, lambda w: w >= 0, "an integer of at least 0", int)
    check_number(f"{where}softcap", softcap, lambda c: 0 <= c < math.inf, "a number of at least 0")
    if sinks is not None:
        check_shape(f"{where}sinks", sinks, (n_head,))
        check_dtype(f"{where}sinks", sinks, dtype)


def logsumexps(q, k, v, n_head, window=0, softcap=0.0):
    """The logsumexp of each row of scores, (B, NH, T): what a kernel keeps of the probabilities."""
    queries, keys, _ = grouped_heads(q, k, v, n_head)
    lse = row_logsumexps(causal(scores(queries, keys, softcap), window))  # (B, NKV, group, T)
    return lse.reshape(len(q), n_head, q.shape[1])


def sample(rng, dtype, d):
    group = next(n for n in (3, 2, 1) if d.NH % n == 0)              # NKV heads, d.NH / group
    width = d.C // group if d.C % group == 0 else d.C
    return normals(rng, dtype, q=(d.B, d.T, d.C), k=(d.B, d.T, width), v=(d.B, d.T, width)) | {
        "n_head": d.NH, "window": 0, "softcap": 0.0}


def torch_grouped_attention(torch, q, k, v, n_head, window, softcap):
    B, T, C = q.shape
    q, k, v = (x.view(B, T, -1, C // n_head).transpose(1, 2) for x in (q, k, v))             # (B, heads, T, HS)
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    mask = mask & ~mask.tril(-window) if window else mask
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    return out.transpose(1, 2).reshape(B, T, C)


SPEC = Spec(
    "grouped_attention", sample, differentiable=("q", "k", "v"), kernels=CPU | GPU | {"cpu/bf16": FLOAT32},
    bad=wrong("q", "narrower", "flatter") + wrong("k", "narrower", "other_dtype") + wrong("v", "shorter")
    + wrong("n_head", 3, 0) + wrong("window", -1) + wrong("softcap", -1.0),
    flops=lambda d: (2 * d.B * d.T ** 2 * d.C, 5 * d.B * d.T ** 2 * d.C),        # causal: half of the square
    c=("out[B,T,C] lse[B,NH,T] <- q[B,T,C] k[B,T,K] v[B,T,K]; B T C K NH window softcap",
       "dq[B,T,C] dk[B,T,K] dv[B,T,K] <- dout[B,T,C] q[B,T,C] k[B,T,K] v[B,T,K] out[B,T,C] lse[B,NH,T]; "
       "B T C K NH window softcap"),
    kept=lambda args, cache: {"lse": logsumexps(**args)}, torch=torch_grouped_attention)
