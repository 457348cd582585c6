"""Causal multi-head self-attention, the forward.

Each token looks at itself and at those before it.

qkv (B, T, 3C) holds queries, keys and values side by side; each splits into n_head heads of HS = C / n_head numbers.
split_heads and merge_heads are given. Per sequence and head, with t the place of a query and s that of a key:

    S[t, s] = scale * q[t] . k[s],  scale = 1 / sqrt(HS)          for s <= t only
    P[t, :] = softmax(S[t, :t+1])                                  a key s > t has probability exactly 0
    out[t]  = sum over s of P[t, s] * v[s]
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
    """qkv (B, T, 3C), n_head int -> out (B, T, C), cache: (q, k, v, P)."""
    q, k, v = split_heads(qkv, n_head)
    T, HS = q.shape[2:]
    S = q @ k.swapaxes(-1, -2) * (1 / math.sqrt(HS))             # (B, NH, T, T)
    S = np.where(np.tri(T, dtype=bool), S, -math.inf)
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    P = P / P.sum(axis=-1, keepdims=True)
    return merge_heads(P @ v), (q, k, v, P)


EXERCISE = Exercise(
    __file__, op="attention", solve=("attention_forward",), needs=("softmax", "linear_forward"),
    hints=(
        "q[t] . k[s] for all t and s is q @ k with k's last two axes exchanged, (T, HS) @ (HS, T): q @ "
        "k.swapaxes(-1, -2) does it for every sequence and head at once.",
        "scale = 1 / sqrt(HS), with math.sqrt: a float64 scalar of NumPy's would promote float32. It keeps the "
        "scores near 1 in size, however wide a head is.",
        "np.tri(T, dtype=bool) is True where s <= t. np.where(that, S, -inf) hides the rest: exp(-inf) is exactly 0.",
        "Softmax of each row, axis -1, with the row's maximum taken off first; the diagonal is always visible, so no "
        "row is empty.",
        "out = P @ v, (T, T) @ (T, HS), then merge_heads.",
    ),
    mistakes=(
        (" * (1 / math.sqrt(HS))", "", "lacks the scale 1 / sqrt(HS)"),
        ("1 / math.sqrt(HS)", "1 / HS", "has the scale 1 / HS where 1 / sqrt(HS) belongs"),
        ("1 / math.sqrt(HS)", "1 / math.sqrt(HS * n_head)",
         "has the scale 1 / sqrt(C): a score is a sum over one head, HS"),
        ("1 / math.sqrt(HS)", "math.sqrt(HS)", "is multiplied by sqrt(HS) where it is divided"),
        ("    S = np.where(np.tri(T, dtype=bool), S, -math.inf)\n", "",
         "lacks the mask: a token must not see those after it"),
        ("np.tri(T, dtype=bool), S, -math.inf", "np.tri(T, k=-1, dtype=bool), S, -1e30",
         "has a mask that hides the token itself: s <= t, not s < t"),
        ("np.tri(T, dtype=bool)", "np.tri(T, dtype=bool).T", "has the mask the wrong way round: s <= t is visible"),
        ("np.tri(T, dtype=bool), S, -math.inf", "np.tri(T, dtype=bool), S, 0",
         "has hidden scores of 0, whose exp is 1: they must be -inf, so that their probability is 0"),
        ("P / P.sum(axis=-1, keepdims=True)", "P / P.sum(axis=-2, keepdims=True)",
         "has probabilities that sum to 1 over the queries: they sum to 1 over the keys, axis -1"),
        ("merge_heads(P @ v)", "merge_heads(P @ q)", "has the queries weighted where the values belong"),
        ("merge_heads(P @ v)", "(P @ v).reshape(*qkv.shape[:2], -1)",
         "is reshaped without moving the heads behind the tokens: merge_heads exchanges those axes first"),
    ))
