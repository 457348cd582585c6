"""Causal multi-head self-attention, the backward.

Two matmuls, a softmax, and two matmuls, walked back.

    S = scale * q @ k.T,    P = softmax(S) where s <= t,    out = P @ v

The forward is given, with q, k, v (B, NH, T, HS) and P (B, NH, T, T) in its cache, and the two functions that split and
merge heads. The gradient has the shape of qkv: dq, dk and dv, merged and side by side.
"""
import math

import numpy as np

from ..exercise import Exercise


def split_heads(qkv, n_head):
    """(B, T, 3C) -> q, k, v, each (B, NH, T, HS)."""
    B, T, C3 = qkv.shape
    return qkv.reshape(B, T, 3, n_head, C3 // (3 * n_head)).transpose(2, 0, 3, 1, 4)


def merge_heads(x):
    """(B, NH, T, HS) -> (B, T, C)."""
    B, NH, T, HS = x.shape
    return x.swapaxes(1, 2).reshape(B, T, NH * HS)


def attention_forward(qkv, n_head):
    """qkv (B, T, 3C), n_head int -> out (B, T, C), cache."""
    q, k, v = split_heads(qkv, n_head)
    T, HS = q.shape[2:]
    S = np.where(np.tri(T, dtype=bool), q @ k.swapaxes(-1, -2) * (1 / math.sqrt(HS)), -math.inf)
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    P = P / P.sum(axis=-1, keepdims=True)
    return merge_heads(P @ v), (q, k, v, P)


def attention_backward(dout, cache):
    """dout (B, T, C), cache -> dqkv (B, T, 3C)."""
    q, k, v, P = cache
    B, NH, T, HS = q.shape
    scale = 1 / math.sqrt(HS)
    dout = dout.reshape(B, T, NH, HS).swapaxes(1, 2)                 # (B, NH, T, HS)
    dv = P.swapaxes(-1, -2) @ dout
    dP = dout @ v.swapaxes(-1, -2)                                   # (B, NH, T, T)
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
    dq = scale * (dS @ k)
    dk = scale * (dS.swapaxes(-1, -2) @ q)
    return np.concatenate([merge_heads(d) for d in (dq, dk, dv)], axis=-1)


EXERCISE = Exercise(
    __file__, op="attention", solve=("attention_backward",),
    parts=(("qkv", ("q", "k", "v")),), needs=("attention_forward", "softmax", "linear_backward"),
    hints=(
        "First undo merge_heads: dout (B, T, C) -> reshape to (B, T, NH, HS) -> swapaxes(1, 2).",
        "out = P @ v is a matmul: as in the linear layer dP = dout @ v.T and dv = P.T @ dout, with swapaxes(-1, -2) "
        "for the transposes.",
        "P is a softmax of each row: dS = P * (dP - sum of dP * P along the row). Where the mask hid a key P is 0, "
        "and so is dS: the mask needs nothing of its own.",
        "S = scale * q @ k.T is a matmul again: dq = scale * dS @ k, and dk = scale * dS.T @ q. The scale stands in "
        "both.",
        "merge_heads each of dq, dk, dv, and np.concatenate the three along the last axis, in this order.",
    ),
    mistakes=(
        (" - (dP * P).sum(axis=-1, keepdims=True)", "",
         "lacks the term of the softmax's sum: dS = P * (dP - sum(dP * P))"),
        ("(dP * P).sum(axis=-1", "dP.sum(axis=-1", "has the sum of dP where that of dP * P belongs"),
        ("(dP * P).sum(axis=-1", "(dP * P).sum(axis=-2",
         "sums over the queries: the softmax's sum is along the keys, axis -1"),
        ("P * (dP - (dP * P).sum(axis=-1, keepdims=True))", "dP",
         "is without the softmax's backward: dS = P * (dP - sum(dP * P))"),
        ("dq = scale * (dS @ k)", "dq = dS @ k", "lacks the scale in dq"),
        ("dk = scale * (", "dk = (", "lacks the scale in dk"),
        ("scale = 1 / math.sqrt(HS)\n", "scale = 1\n", "lacks the scale, in dq and in dk"),
        ("dS @ k", "dS.swapaxes(-1, -2) @ k", "has dS transposed in dq: dq = scale * dS @ k"),
        ("dS.swapaxes(-1, -2) @ q", "dS @ q", "lacks the transpose in dk: dk = scale * dS.T @ q"),
        ("dv = P.swapaxes(-1, -2) @ dout", "dv = P @ dout", "lacks the transpose in dv: dv = P.T @ dout"),
        ("in (dq, dk, dv)", "in (dk, dq, dv)", "has dq and dk exchanged: the order is q, k, v"),
        ("in (dq, dk, dv)", "in (dv, dk, dq)", "has dq and dv exchanged: the order is q, k, v"),
        ("dout.reshape(B, T, NH, HS).swapaxes(1, 2)", "dout.reshape(B, NH, T, HS)",
         "has heads and tokens mixed up: dout is (B, T, NH, HS) before the axes are exchanged"),
    ))
