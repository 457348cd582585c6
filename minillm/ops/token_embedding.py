"""Token embedding without positions: a row of a table for each token. Llama and its kin put positions into rope.

    out[b, t] = wte[tokens[b, t]]

The loss sees row v once for every place where token v stands, so its gradient is a scatter-add, as in embedding.py:

    dwte[v] = sum over b, t of dout[b, t] * 1[tokens[b, t] = v]
"""
import numpy as np

from .checks import check_dout, check_float, check_ids, check_into, check_shape, from_cache
from .spec import CPU, Spec, normals, on_gpu, wrong


def token_embedding_forward(tokens, wte):
    """Look up each token's embedding: tokens (B, T) int, wte (V, C) -> out (B, T, C), cache.

    Raises ValueError for a token outside [0, V), and for wrong shapes or dtypes.
    """
    check_float("wte", wte)
    check_shape("tokens", tokens, (None, None))
    check_shape("wte", wte, (None, None))
    check_ids("tokens", tokens, len(wte))
    return wte[tokens], (tokens, wte)


def token_embedding_backward(dout, cache, into=None):
    """The gradient of token_embedding_forward, a scatter-add: dout (B, T, C), cache -> dwte (V, C).

    into: (dwte,) to add to instead of fresh zeros (a batch names few rows of a large wte).
    """
    tokens, wte = from_cache(cache, tokens="BT:int", wte="VC")
    check_ids("cached tokens", tokens, len(wte))
    check_dout(dout, (*tokens.shape, wte.shape[1]), wte.dtype)
    into = (np.zeros_like(wte),) if into is None else into
    check_into("into", into, (wte.shape,), wte.dtype)
    if into[0] is not None:
        np.add.at(into[0], tokens, dout)          # repeated tokens add up
    return into[0]


SPEC = Spec(
    "token_embedding", differentiable=("wte",), gathered=("wte",), kernels=CPU | on_gpu(),
    sample=lambda rng, dtype, d: {"tokens": rng.integers(0, d.V, (d.B, d.T)), **normals(rng, dtype, wte=(d.V, d.C))},
    bad=wrong("tokens", "flatter", "too_big", "negative", "floats") + wrong("wte", "flatter"),
    flops=lambda d: (0, d.B * d.T * d.C),
    c=("out[B,T,C] <- tokens[B,T]:int wte[V,C]; B T C V",
       "dwte[V,C]+= <- dout[B,T,C] tokens[B,T]:int; B T C V"),
    torch=lambda torch, tokens, wte: torch.nn.functional.embedding(tokens, wte))
