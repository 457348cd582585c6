"""The tied output head and cross-entropy as one op, chunk by chunk: the B*T x V logits are never all in memory.

    logits = x @ wte.T            (N, C) @ (C, V) -> (N, V)      then  losses = cross_entropy(logits, targets)

For GPT-2 at B*T = 4096 the logits are 4096 x 50257 floats, 0.8 GB, and their gradient as much again. But rows are
independent: 256 of them at a time need 51 MB, which is used and dropped. Going back,

    dlogits = cross_entropy_backward(dout)         (n, V)     one chunk
    dx      = dlogits @ wte                        (n, V) @ (V, C) -> (n, C)
    dwte   += dlogits.T @ x                        (V, n) @ (n, C) -> (V, C)     summed over chunks

the forward's logits are gone, so the backward recomputes them: one more matmul (2*N*C*V FLOPs) is the price of the
memory. The weight is wte itself, (V, C): GPT-2 ties the head to the token embedding (Press & Wolf 2017, arXiv
1608.05859), so wte's whole gradient is this dwte plus the embedding's.
"""
from types import SimpleNamespace

import numpy as np

from ..checks import check_dout, check_dtype, check_float, check_ids, check_into, check_shape, from_cache
from ..spec import CPU, FLOAT32, Spec, normals, on_gpu, random_targets, wrong
from . import cross_entropy

REFERENCE = SimpleNamespace(**vars(cross_entropy))
CHUNK = 256     # rows of logits alive at a time


def linear_cross_entropy_forward(x, wte, targets, ignore_index=-1, ops=REFERENCE):
    """cross_entropy of the logits x @ wte.T, which are never all in memory.

    x (N, C), wte (V, C), targets (N,) int in [0, V) or ignore_index -> losses (N,) in nats, cache. Raises ValueError
    for shapes or dtypes that differ, and other targets. ops: the namespace that cross_entropy is taken from.
    """
    check_float("x", x)
    check_shape("x", x, (None, None))
    check_shape("wte", wte, (None, x.shape[1]))
    check_dtype("wte", wte, x.dtype)
    if not len(wte):
        raise ValueError(f"wte must have at least one row: got {wte.shape}")
    check_shape("targets", targets, (len(x),))
    check_ids("targets", targets, len(wte), ignore_index)
    losses = np.empty(len(x), x.dtype)
    for chunk in chunks(len(x)):
        logits = x[chunk] @ wte.T                                        # (n, V)
        losses[chunk], _ = ops.cross_entropy_forward(logits, targets[chunk], ignore_index)
    return losses, (x, wte, targets, ignore_index)


def linear_cross_entropy_backward(dout, cache, into=None, ops=REFERENCE):
    """The gradients of linear_cross_entropy_forward: dout (N,), cache -> dx (N, C), dwte (V, C).

    into: (dwte,) to add to instead of fresh zeros.
    """
    x, wte, targets, ignore_index = from_cache(cache, x="NC", wte="VC", targets="N:int", ignore_index=int)
    check_dout(dout, targets.shape, x.dtype)
    into = (np.zeros_like(wte),) if into is None else into
    check_into("into", into, (wte.shape,), x.dtype)
    dx, (dwte,) = np.empty_like(x), into
    for chunk in chunks(len(x)):
        logits = x[chunk] @ wte.T                                        # (n, V), recomputed
        _, cache = ops.cross_entropy_forward(logits, targets[chunk], ignore_index)
        dlogits = ops.cross_entropy_backward(dout[chunk], cache)         # (n, V)
        dx[chunk] = dlogits @ wte
        if dwte is not None:
            dwte += dlogits.T @ x[chunk]
    return dx, dwte


def chunks(n, size=CHUNK):
    """Slices that cut range(n) into pieces of `size`."""
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


SPEC = Spec(
    "linear_cross_entropy", differentiable=("x", "wte"), composite=True,
    kernels=CPU | {"cpu/bf16": FLOAT32} | on_gpu("bf16", dtypes=FLOAT32) | on_gpu(),
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B * d.T, d.C), wte=(d.V, d.C)) | {
        "targets": random_targets(rng, d), "ignore_index": -1},
    bad=wrong("wte", "narrower", "other_dtype") + wrong("targets", "too_big", "negative", "floats", "narrower")
    + wrong("x", "flatter"),
    flops=lambda d: (2 * d.B * d.T * d.C * d.V, 6 * d.B * d.T * d.C * d.V),
    c=("out[N] <- x[N,C] wte[V,C] targets[N]:int; N C V ignore_index",
       "dx[N,C] dwte[V,C]+= <- dout[N] x[N,C] wte[V,C] targets[N]:int; N C V ignore_index"),
    torch=lambda torch, x, wte, targets, ignore_index: cross_entropy.SPEC.torch(           # type: ignore[misc]
        torch, torch.nn.functional.linear(x, wte), targets, ignore_index))
