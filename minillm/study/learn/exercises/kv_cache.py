"""Attention for one new token, with a KV cache.

Autoregressive decoding runs the model once for every new token. Keys and values of the tokens before do not change, so
they are kept, and only the new token's query, key and value are computed: qkv (B, 3C), side by side, each of NH heads
of HS = C / NH numbers.

    keys, values (B, NH, S, HS)    room for S tokens; the first `length` places of axis 2 are filled, the rest is
                                   whatever the memory held before
    p = softmax over the tokens seen of (q . k) / sqrt(HS)
    out = sum over the tokens seen of p * v                    all heads side by side again: (B, C)

Write decode_step: it puts the new key and value at place `length` of the cache, and attends from the new token to those
before it and to itself, which are all of the tokens it may see: no mask is needed. The result must be the last row of
what attention gives for the whole text at once.

Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1; Shazeer 2019, arXiv 1911.02150, section 2.4 (decoding).
"""
import math

import numpy as np

from ....kernels.select import choices, select
from ....ops.attention import attention_forward
from ..compare import difference, equal
from ..exercise import Exercise, Wrong
from ..rules import blame, by_cases


def decode_step(qkv, keys, values, length, n_head):
    """Attention of one new token: qkv (B, 3C) -> out (B, C).

    keys, values (B, NH, S, HS): the cache, filled up to `length`; the new token's go to place `length`, in place.
    """
    B, C = qkv.shape[0], qkv.shape[1] // 3
    q, k, v = qkv.reshape(B, 3, n_head, C // n_head).swapaxes(0, 1)                  # each (B, NH, HS)
    keys[:, :, length], values[:, :, length] = k, v
    seen_keys, seen_values = keys[:, :, :length + 1], values[:, :, :length + 1]      # (B, NH, length + 1, HS)
    scores = np.einsum("bhd,bhsd->bhs", q, seen_keys) / math.sqrt(C // n_head)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)                                               # (B, NH, length + 1)
    return np.einsum("bhs,bhsd->bhd", p, seen_values).reshape(B, C)


class _Decoding:
    """A text of 5 tokens, decoded token by token by somebody's decode_step, beside attention over all of it."""

    def __init__(self, n_head, junk=0.0, size=1.0):
        self.n_head, rng = n_head, np.random.default_rng(7)
        self.qkv = size * rng.standard_normal((2, 5, 24))
        self.right, _ = attention_forward(self.qkv, n_head)
        self.keys, self.values = (np.full((2, n_head, 8, 8 // n_head), junk) for _ in range(2))

    def step(self, decode_step, t):
        """The token at place t; the cache before it is right."""
        for cache, part in ((self.keys, 1), (self.values, 2)):
            given = self.qkv[:, :t, 8 * part:8 * part + 8].reshape(2, t, self.n_head, 8 // self.n_head)
            cache[:, :, :t] = given.swapaxes(1, 2)
        return decode_step(self.qkv[:, t].copy(), self.keys, self.values, t, self.n_head)

    def filled(self, cache, part, t):
        """What stands in the cache at place t, and what should."""
        return cache[:, :, t].copy(), self.qkv[:, t, 8 * part:8 * part + 8].reshape(2, self.n_head, -1)


def _cases(yours):
    """The cache's contents, then the first token, one head, several heads, and numbers that overflow."""
    one, two = _Decoding(1), _Decoding(2)
    fourth = one.step(yours.decode_step, 3)
    yield "the new key must stand at place `length` of the cache", *one.filled(one.keys, 1, 3)
    yield "the new value must stand at place `length` of the cache", *one.filled(one.values, 2, 3)
    yield "the places before `length` must be left as they are", one.keys[:, 0, :3], one.qkv[:, :3, 8:16]
    yield "the places after `length` must be left as they are", one.keys[:, :, 4:], np.zeros((2, 1, 4, 8))
    uniform = _Decoding(1)
    uniform.qkv[:, :, :8] = 0
    uniform.right, _ = attention_forward(uniform.qkv, 1)
    got, mean = uniform.step(yours.decode_step, 3), uniform.right[:, 3]
    yield blame(got, {
        "a token sees itself, too: the new token's key and value are left out": uniform.qkv[:, :3, 16:].mean(axis=1),
        "one place too many is seen: `length` tokens before and the new one": mean * 4 / 5,
        "the whole cache is seen: only length + 1 places are filled": mean * 4 / 8},
        "a query of zeros weighs all tokens alike: out is the mean of the values seen"), got, mean
    yield "the first token sees itself alone, so out is its value", one.step(yours.decode_step, 0), one.right[:, 0]
    yield "the scores must be divided by sqrt(HS), the size of a head", fourth, one.right[:, 3]
    two.step(yours.decode_step, 2)
    yield "with heads the new key must be split: head h has numbers h * HS to (h + 1) * HS", *two.filled(two.keys, 1, 2)
    yield ("with heads each attends for itself, with scores over sqrt(HS), and their results stand side by side",
           two.step(yours.decode_step, 4), two.right[:, 4])
    large = _Decoding(2, size=60.0)
    yield "large scores overflow: take the maximum off before exp", large.step(yours.decode_step, 4), large.right[:, 4]
    junk = _Decoding(2, junk=math.nan)
    yield "what lies beyond `length` is no token: it must not be read", junk.step(yours.decode_step, 2), \
        junk.right[:, 2]


def _kernel(yours, rng):
    """In float32 beside the compiled attention of decoding."""
    if "cpu" not in choices("attention_decode", "float32"):
        return "passed over: no compiled kernel of this op here"
    qkv = rng.standard_normal((2, 3 * 24)).astype(np.float32)
    keys, values = rng.standard_normal((2, 2, 3, 9, 8)).astype(np.float32)
    mine = yours.decode_step(qkv, keys, values, 6, 3)
    right = select({"attention_decode": "cpu"}).attention_decode(
        qkv[:, :24].reshape(2, 3, 1, 8), *(np.ascontiguousarray(cache[:, :, :7]) for cache in (keys, values)))[:, 0]
    if not equal(mine, right, 1e-5):
        raise Wrong(f"in float32 {difference('out', mine, right, 1e-5)}, says the C++ kernel")
    return "float32 results agree with minillm's kernel"


EXERCISE = Exercise(
    __file__, solve=("decode_step",), needs=("attention_forward",),
    checks=by_cases(_cases, in_place=True, kernel=_kernel),
    hints=("Cut qkv into q, k, v of (B, C) each: the first, second and last third. Then reshape each to (B, NH, HS).",
           "keys[:, :, length] is (B, NH, HS), just the shape of k. Write k and v there first: a token sees itself.",
           "Now length + 1 places are filled: keys[:, :, :length + 1] is what the query meets.",
           "scores (B, NH, length + 1) = sum over HS of q * k, over sqrt(HS); a softmax along the last axis.",
           "out = sum over the tokens of p * v is (B, NH, HS), and reshape(B, C) puts the heads side by side."))
