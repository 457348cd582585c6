"""Token and position embedding: a row of one table for each token, plus a row of another for its position.

    out[b, t] = wte[tokens[b, t]] + wpe[start + t]

The loss L sees row v of wte once for every place where token v stands, so its gradient is the sum over them
(write 1[.] for 'is one where true'):

    dwte[v] = sum over b, t of dout[b, t] * 1[tokens[b, t] = v]
    dwpe[p] = sum over b, t of dout[b, t] * 1[start + t = p]

The first is a scatter-add. `dwte[tokens] = dout` would keep only the last of repeated tokens, and
`dwte[tokens] += dout` does the same (NumPy buffers the read): it needs np.add.at. Tokens themselves are
integers and have no gradient.

`start` is the position of the first token: 0 in training, the number of cached tokens in decoding.
Source: Radford et al. 2018 (GPT), learned positions.
"""
import numpy as np

from .checks import check_dout, check_dtype, check_float, check_ids, check_into, check_number, check_shape, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def embedding_forward(tokens, wte, wpe, start=0):
    """Look up each token's embedding and add that of its position (Radford et al. 2018).

    tokens (B, T) int, wte (V, C), wpe (block_size, C), start int -> out (B, T, C), cache.
    Raises ValueError for a token outside [0, V), for start + T > block_size, for wrong shapes or dtypes.
    """
    check_float("wte", wte)
    check_shape("tokens", tokens, (None, None))
    check_shape("wte", wte, (None, None))
    check_shape("wpe", wpe, (None, wte.shape[1]))
    check_dtype("wpe", wpe, wte.dtype)
    check_ids("tokens", tokens, len(wte))
    T = tokens.shape[1]
    check_fits(T, start, wpe)
    out = wte[tokens] + wpe[start:start + T]      # (B, T, C) + (T, C)
    return out, (tokens, wte, wpe, start)


def embedding_backward(dout, cache, into=None):
    """The gradients of embedding_forward, a scatter-add: dout (B, T, C), cache -> dwte (V, C), dwpe (block_size, C).

    into: a pair of such arrays to add to instead of fresh zeros (a batch names few rows of a large wte).
    """
    tokens, wte, wpe, start = from_cache(cache, tokens="BT:int", wte="VC", wpe="PC", start=int)
    check_ids("cached tokens", tokens, len(wte))
    check_fits(tokens.shape[1], start, wpe)
    check_dout(dout, (*tokens.shape, wte.shape[1]), wte.dtype)
    into = (np.zeros_like(wte), np.zeros_like(wpe)) if into is None else into
    check_into("into", into, (wte.shape, wpe.shape), wte.dtype)
    dwte, dwpe = into
    if dwte is not None:
        np.add.at(dwte, tokens, dout)             # repeated tokens add up
    if dwpe is not None:
        dwpe[start:start + tokens.shape[1]] += dout.sum(axis=0)    # (B, T, C) -> (T, C)
    return dwte, dwpe


def check_fits(T, start, wpe):
    check_number("start", start, lambda start: True, "an integer", int)
    if not 0 <= start <= len(wpe) - T:
        raise ValueError(f"tokens must fit into block_size {len(wpe)}: got {T} tokens from position {start}")


SPEC = Spec(
    "embedding", differentiable=("wte", "wpe"), gathered=("wte",), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"tokens": rng.integers(0, d.V, (d.B, d.T)),
                                  **normals(rng, dtype, wte=(d.V, d.C), wpe=(d.T + 3, d.C)), "start": 2},
    bad=wrong("tokens", "flatter", "too_big", "negative", "floats", "too_long")
    + wrong("wpe", "narrower", "other_dtype", "flatter") + wrong("wte", "flatter")
    + wrong("start", 10 ** 6, -1, error="block_size"),
    flops=lambda d: (d.B * d.T * d.C, 2 * d.B * d.T * d.C),
    c=("out[B,T,C] <- tokens[B,T]:int wte[V,C] wpe[T,C]; B T C V",                    # wpe from row `start` on
       "dwte[V,C]+= dwpe[T,C]+= <- dout[B,T,C] tokens[B,T]:int; B T C V"),
    torch=lambda torch, tokens, wte, wpe, start: (
        torch.nn.functional.embedding(tokens, wte) + wpe[start:start + tokens.shape[1]]))
