"""Distillation loss: cross-entropy with the targets, mixed with the KL divergence from a teacher's softened softmax.

For one row: the student's logits z, the teacher's u over V tokens, the right token y, a temperature T and a weight w:

    P = softmax(u / T)      Q = softmax(z / T)              at T > 1 the teacher's small probabilities count for more
    KL(P || Q) = sum over v of P[v] (log P[v] - log Q[v])           CE(z, y) = logsumexp(z) - z[y]
    loss = (1 - w) CE(z, y) + w T^2 KL(P || Q)

The teacher is a constant. CE's gradient is softmax(z) - 1[v = y]; of KL only -sum P log Q depends on z, and through
d log Q[v] / dz[j] = (1[v = j] - Q[j]) / T it gives (Q - P) / T. So

    dz[v] = dout ((1 - w) (softmax(z)[v] - 1[v = y]) + w T (Q[v] - P[v]))

T^2 makes the soft part's gradient as large as the hard one's whatever T is: by itself it shrinks with 1/T^2, one 1/T
from the chain rule, the other because Q - P is about (z - u) / (T V) at high temperatures. Logits of -inf are tokens
that cannot be: of the teacher's, P = 0 and the term is 0. Source: Hinton, Vinyals and
Dean 2015, arXiv 1503.02531, section 2. Rows whose target is ignore_index have loss 0 and gradient 0.
"""
import math

import numpy as np

from ..checks import check_dout, check_dtype, check_float, check_ids, check_number, check_shape, from_cache
from ..spec import CPU, Spec, normals, on_gpu, random_targets, wrong


def distillation_loss_forward(logits, teacher, targets, temperature=1.0, weight=0.9, ignore_index=-1):
    """(1 - weight) * cross-entropy + weight * temperature^2 * KL(teacher || student) of each row (Hinton et al. 2015).

    logits, teacher (N, V), targets (N,) int in [0, V) or ignore_index -> losses (N,) in nats, cache.
    Raises ValueError for other shapes or dtypes, temperature <= 0, or weight outside [0, 1].
    """
    check_float("logits", logits)
    check_shape("logits", logits, (None, None))
    if not logits.shape[1]:
        raise ValueError(f"logits must have at least one column: got {logits.shape}")
    check_shape("teacher", teacher, logits.shape)
    check_dtype("teacher", teacher, logits.dtype)
    check_shape("targets", targets, (len(logits),))
    check_ids("targets", targets, logits.shape[1], ignore_index)
    check_number("temperature", temperature, lambda t: 0 < t < float("inf"), "a number above 0")
    check_number("weight", weight, lambda w: 0 <= w <= 1, "in [0, 1]")
    valid = targets != ignore_index
    logs = log_softmax(logits)                                           # (N, V)
    soft_logs = logs if temperature == 1 else log_softmax(logits / temperature)
    teacher_logs = log_softmax(teacher / temperature)
    p = np.exp(teacher_logs)
    hard = -logs[np.arange(len(logits)), np.where(valid, targets, 0)]    # (N,)
    gap = np.subtract(teacher_logs, soft_logs, out=np.zeros_like(p), where=p != 0)       # 0 log 0 = 0
    soft = (p * gap).sum(axis=1)                                         # (N,), KL(P || Q)
    losses = np.where(valid, (1 - weight) * hard + weight * temperature ** 2 * soft, 0).astype(logits.dtype)
    return losses, (logs, soft_logs, p, targets, valid, temperature, weight)


def distillation_loss_backward(dout, cache):
    """The gradient of distillation_loss_forward, with the teacher a constant: dout (N,), cache -> dlogits (N, V)."""
    logs, soft_logs, p, targets, valid, temperature, weight = from_cache(
        cache, logs="NV", soft_logs="NV", p="NV", targets="N:int", valid="N:bool", temperature=float, weight=float)
    check_ids("cached targets", targets[valid], logs.shape[1])
    check_dout(dout, targets.shape, logs.dtype)
    dlogits = np.exp(logs)                                               # softmax(z), (N, V)
    dlogits[np.flatnonzero(valid), targets[valid]] -= 1
    dlogits *= 1 - weight
    dlogits += weight * temperature * (np.exp(soft_logs) - p)
    dlogits *= np.where(valid, dout, 0).astype(dout.dtype)[:, None]
    return dlogits


def log_softmax(z):
    """z (N, V) -> z - logsumexp(z), row by row; the largest is subtracted first, by its real part."""
    z = z - z.real.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def sample(rng, dtype, d):
    logits = normals(rng, dtype, logits=(d.B * d.T, d.V), teacher=(d.B * d.T, d.V))
    return {name: 3 * value for name, value in logits.items()} | {
        "targets": random_targets(rng, d), "temperature": 2.0, "weight": 0.7, "ignore_index": -1}


def torch_distillation_loss(torch, logits, teacher, targets, temperature, weight, ignore_index):
    F = torch.nn.functional
    soft = F.kl_div(F.log_softmax(logits / temperature, -1), F.log_softmax(teacher / temperature, -1), reduction="none",
                    log_target=True).sum(-1)
    hard = F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="none")
    return (1 - weight) * hard + weight * temperature ** 2 * soft * (targets != ignore_index)


SPEC = Spec(
    "distillation_loss", sample, differentiable=("logits",), kernels=CPU | on_gpu(),
    bad=wrong("logits", "flatter") + wrong("teacher", "narrower", "shorter", "other_dtype")
    + wrong("targets", "too_big", "negative", "floats", "narrower")
    + wrong("temperature", 0.0, -1.0, math.nan, math.inf)
    + wrong("weight", -0.1, 1.1),
    flops=lambda d: (15 * d.B * d.T * d.V, 8 * d.B * d.T * d.V),
    c=("out[N] <- logits[N,V] teacher[N,V] targets[N]:int; N V temperature weight ignore_index",
       "dlogits[N,V] <- dout[N] logits[N,V] teacher[N,V] targets[N]:int; N V temperature weight ignore_index"),
    torch=torch_distillation_loss)
