"""Softmax and cross-entropy in one op: the negative log-probability of the right token, row by row.

For one row of logits z over V tokens, and the right token y:

    p[v] = exp(z[v]) / sum over w of exp(z[w])
    m = max(z)          logsumexp(z) = m + log(sum(exp(z - m)))
    loss = -log p[y] = logsumexp(z) - z[y]

Subtracting the maximum changes nothing in exact arithmetic and prevents overflow. The derivative of logsumexp(z) by
z[v] is p[v], so the softmax's Jacobian never appears:

    dz[v] = dout * (p[v] - 1[v = y])

Rows whose target is ignore_index have loss 0 and gradient 0. The op returns one loss per row, not their mean: the
mean over valid tokens, a sum over micro-batches and a masked sum for fine-tuning are then one line each at the caller.
Cached: logits, and of each row m and log(sum) apart: next to a large m their sum would lose the digits of the log.
"""
import numpy as np

from ..checks import check_dout, check_float, check_ids, check_shape, from_cache
from ..spec import CPU, GPU, Spec, normals, random_targets, wrong


def cross_entropy_forward(logits, targets, ignore_index=-1):
    """-log softmax(logits)[target] of each row; 0 where the target is ignore_index.

    logits (N, V), targets (N,) int in [0, V) or ignore_index -> losses (N,) in nats, cache. Raises ValueError
    otherwise.
    """
    check_float("logits", logits)
    check_shape("logits", logits, (None, None))
    if not logits.shape[1]:
        raise ValueError(f"logits must have at least one column: got {logits.shape}")
    check_shape("targets", targets, (len(logits),))
    check_ids("targets", targets, logits.shape[1], ignore_index)
    top = logits.real.max(axis=1)                                        # (N,)
    logsum = np.log(np.exp(logits - top[:, None]).sum(axis=1))           # (N,)
    valid = targets != ignore_index
    right = logits[np.arange(len(logits)), np.where(valid, targets, 0)]  # (N,), the right token's logit
    losses = np.where(valid, logsum + (top - right), 0).astype(logits.dtype)
    return losses, (logits, targets, valid, top, logsum)


def cross_entropy_backward(dout, cache):
    """The gradient of cross_entropy_forward: dout (N,), cache -> dlogits (N, V)."""
    logits, targets, valid, top, logsum = from_cache(
        cache, logits="NV", targets="N:int", valid="N:bool", top="N", logsum="N")
    check_ids("cached targets", targets[valid], logits.shape[1])
    check_dout(dout, targets.shape, logits.dtype)
    dlogits = np.exp(logits - top[:, None] - logsum[:, None])            # p, (N, V)
    dlogits[np.flatnonzero(valid), targets[valid]] -= 1
    dlogits *= np.where(valid, dout, 0).astype(dout.dtype)[:, None]
    return dlogits


SPEC = Spec(
    "cross_entropy", differentiable=("logits",), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"logits": 3 * normals(rng, dtype, logits=(d.B * d.T, d.V))["logits"],
                                  "targets": random_targets(rng, d), "ignore_index": -1},
    bad=wrong("logits", "flatter") + wrong("targets", "too_big", "negative", "floats", "narrower"),
    flops=lambda d: (4 * d.B * d.T * d.V, 3 * d.B * d.T * d.V),
    c=("out[N] top[N] logsum[N] <- logits[N,V] targets[N]:int; N V ignore_index",
       "dlogits[N,V] <- dout[N] logits[N,V] targets[N]:int top[N] logsum[N]; N V ignore_index"),
    kept=lambda args, cache: {"top": cache[3], "logsum": cache[4]},
    torch=lambda torch, logits, targets, ignore_index: torch.nn.functional.cross_entropy(
        logits, targets, ignore_index=ignore_index, reduction="none"))
