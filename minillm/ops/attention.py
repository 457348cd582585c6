"""Causal multi-head self-attention, between GPT-2's c_attn and c_proj (which are `linear`).

qkv holds queries, keys and values side by side, (B, T, 3C); each splits into NH heads of HS = C / NH numbers.
Per sequence and head, with t the position of a query and s that of a key, s <= t only:

    scale = 1 / sqrt(HS)            S[t, s] = scale * q[t] . k[s]
    P[t, s] = exp(S[t, s]) / sum over r <= t of exp(S[t, r])   for s <= t         the softmax of each row
    out[t] = sum over s <= t of P[t, s] * v[s]

Walk back. out is linear in P and in v, S in q and in k, and between them stands the softmax:

    dP = dout @ v.T                 dv = P.T @ dout
    dP[t, s]/dS[t, r] = P[t, s] * (1[s = r] - P[t, r])
    dS[t, s] = P[t, s] * (dP[t, s] - sum over r of dP[t, r] * P[t, r])
    dq = scale * dS @ k             dk = scale * dS.T @ q

The sum in dS needs no P, which is how a flash kernel does without it (Dao et al. 2022, arXiv 2205.14135):

    D[t] = sum over r of dP[t, r] * P[t, r] = dout[t] . out[t]

Such a kernel caches out and the logsumexp of each row of S only. This reference keeps the T x T matrix P, to be seen.
The mask is structural: a column s > t gets probability exactly 0, not a large negative number.
Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 1.
"""
import math

import numpy as np

from .checks import check_dout, check_float, check_number, check_shape, from_cache
from .spec import FLOAT32, REAL, Spec, normals, wrong


def attention_forward(qkv, n_head):
    """Attend from each token to itself and those before it, in every head (Vaswani et al. 2017, eq. 1).

    qkv (B, T, 3C), n_head int dividing C -> out (B, T, C), cache. Raises ValueError for another number of axes, or a
    width that is not 3 * n_head * HS.
    """
    check_float("qkv", qkv)
    check_shape("qkv", qkv, (None, None, None))
    check_heads(qkv.shape[2], n_head)
    q, k, v = split_heads(qkv, n_head)                               # each (B, NH, T, HS)
    scale = 1 / math.sqrt(q.shape[-1])
    P = causal_softmax(scale * (q @ k.swapaxes(-1, -2)))             # (B, NH, T, T)
    return merge_heads(P @ v), (qkv, n_head, P)


def attention_backward(dout, cache):
    """The gradient of attention_forward: dout (B, T, C), cache -> dqkv (B, T, 3C)."""
    qkv, n_head, P = from_cache(cache, qkv="BTW", n_head=int, P="BHTT")
    B, T, C3 = qkv.shape
    check_heads(C3, n_head)
    check_shape("cached P", P, (B, n_head, T, T))
    check_dout(dout, (B, T, C3 // 3), qkv.dtype)
    q, k, v = split_heads(qkv, n_head)
    scale = 1 / math.sqrt(q.shape[-1])
    dout = dout.reshape(B, T, n_head, q.shape[-1]).swapaxes(1, 2)    # (B, T, C) -> (B, NH, T, HS)
    dv = P.swapaxes(-1, -2) @ dout                                   # (B, NH, T, HS)
    dP = dout @ v.swapaxes(-1, -2)                                   # (B, NH, T, T)
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))             # zero above the diagonal, since P is
    dq = scale * (dS @ k)
    dk = scale * (dS.swapaxes(-1, -2) @ q)
    return np.concatenate([merge_heads(d) for d in (dq, dk, dv)], axis=-1)


def causal_softmax(S, window=0, sinks=None):
    """Softmax of each row of S (..., T, S) over the columns it sees; with sinks (..., 1, 1), which are one more."""
    S = causal(S, window)                                            # exp(-inf) is exactly 0
    if sinks is not None:
        S = np.concatenate([S, np.broadcast_to(sinks, (*S.shape[:-1], 1))], axis=-1)
    top = S.real.max(axis=-1, keepdims=True, initial=-math.inf)      # by real part, so that complex step works
    P = np.exp(S - top)
    return P / P.sum(axis=-1, keepdims=True)


def causal(S, window=0):
    """S (..., T, S) with -inf in the columns that a row does not see: those after its own and, with a window, those
    `window` or more before it. The last row stands at the last column."""
    T, columns = S.shape[-2:]
    seen = np.tri(T, columns, k=columns - T, dtype=bool)
    if window:
        seen &= ~np.tri(T, columns, k=columns - T - window, dtype=bool)
    return np.where(seen, S, -math.inf)


def logsumexps(qkv, n_head):
    """The logsumexp of each row of scores, qkv (B, T, 3C) -> (B, NH, T): what a kernel keeps of the probabilities."""
    q, k, _ = split_heads(qkv, n_head)
    return row_logsumexps(causal((q @ k.swapaxes(-1, -2)) * (1 / math.sqrt(q.shape[-1]))))


def row_logsumexps(S):
    """log(sum(exp(S))) of each row: (..., T, S) -> (..., T)."""
    top = S.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(S - top).sum(axis=-1, keepdims=True)))[..., 0]


def split_heads(qkv, n_head):
    """(B, T, 3C) -> three views (B, NH, T, HS)."""
    B, T, C3 = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, n_head, C3 // (3 * n_head)).transpose(2, 0, 3, 1, 4)
    return q, k, v


def merge_heads(x):
    """(B, NH, T, HS) -> (B, T, C), a fresh array."""
    B, NH, T, HS = x.shape
    return x.swapaxes(1, 2).reshape(B, T, NH * HS)


def check_heads(width, n_head):
    check_number("n_head", n_head, lambda n: n >= 1, "an integer of at least 1", int)
    if not width or width % (3 * n_head):
        raise ValueError(f"qkv must have a last axis of 3 * n_head * HS: got {width} with n_head={n_head}")


def torch_attention(torch, qkv, n_head):
    B, T, C3 = qkv.shape
    q, k, v = (part.view(B, T, n_head, -1).transpose(1, 2) for part in qkv.split(C3 // 3, dim=2))      # (B, NH, T, HS)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).reshape(B, T, C3 // 3)


HALF = ("float32", "float16", "bfloat16")               # arrays of float32, too, whose matmuls are in half precision
GPU = {"/1_naive": REAL, "/2_flash": REAL, "/3_mma": HALF, "/4_wgmma": HALF, "": ("float32", "float64", *HALF[1:])}

SPEC = Spec(
    "attention", differentiable=("qkv",), bad=wrong("qkv", "narrower", "flatter") + wrong("n_head", 3, 0),
    sample=lambda rng, dtype, d: normals(rng, dtype, qkv=(d.B, d.T, 3 * d.C)) | {"n_head": d.NH},
    flops=lambda d: (2 * d.B * d.T ** 2 * d.C, 5 * d.B * d.T ** 2 * d.C),        # causal: half of the square
    c=("out[B,T,C] lse[B,NH,T] <- qkv[B,T,3C]; B T C NH",                         # lse: logsumexp of each row
       "dqkv[B,T,3C] <- dout[B,T,C] qkv[B,T,3C] out[B,T,C] lse[B,NH,T]; B T C NH"),
    kernels=dict.fromkeys(("cpu", "cpu/1_naive", "cpu/2_blocked", "cpu/3_simd"), REAL) | {"cpu/bf16": FLOAT32}
    | {gpu + variant: dtypes for gpu in ("cuda", "cudasim") for variant, dtypes in GPU.items()},
    kept=lambda args, cache: {"lse": logsumexps(**args)}, torch=torch_attention)
