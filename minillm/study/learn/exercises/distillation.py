"""Distillation: a small model learns from a large one's probabilities.

A target says only which token came; a teacher says how likely each would have been. The student's logits z and the
teacher's u are (N, V), targets (N,) integers, -1 where a row does not count. With a temperature T, at which small
probabilities show, and a weight w:

    P = softmax(u / T),   Q = softmax(z / T)
    loss = (1 - w) CE(z, y) + w T^2 KL(P || Q)                      (N,), 0 where the target is -1
    CE(z, y) = -log softmax(z)[y]            KL(P || Q) = sum over v of P[v] (log P[v] - log Q[v])

The cross-entropy is at temperature 1. T^2 keeps the soft part's gradient as large as the hard one's, whatever T is.

Write distillation_loss_forward and distillation_loss_backward, which gives dlogits (N, V); the teacher is a constant.

Source: Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2.
"""
import numpy as np

from ....ops.losses import distillation_loss
from ..exercise import Exercise
from ..rules import tried


def log_softmax(z):
    """z (N, V) -> log of the softmax of each row."""
    z = z - z.real.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def distillation_loss_forward(logits, teacher, targets, temperature=1.0, weight=0.9, ignore_index=-1):
    """logits, teacher (N, V), targets (N,) -> losses (N,), cache."""
    valid = targets != ignore_index
    logs = log_softmax(logits)                                                   # log softmax(z), for CE
    soft = log_softmax(logits / temperature)                                     # log Q
    soft_teacher = log_softmax(teacher / temperature)                            # log P
    p = np.exp(soft_teacher)
    hard_loss = -logs[np.arange(len(logits)), np.where(valid, targets, 0)]
    soft_loss = (p * (soft_teacher - soft)).sum(axis=1)
    losses = np.where(valid, (1 - weight) * hard_loss + weight * temperature ** 2 * soft_loss, 0)
    return losses.astype(logits.dtype), (logs, soft, p, targets, valid, temperature, weight)


def distillation_loss_backward(dout, cache):
    """dout (N,), cache -> dlogits (N, V)."""
    logs, soft, p, targets, valid, temperature, weight = cache
    hard = np.exp(logs)
    hard[np.flatnonzero(valid), targets[valid]] -= 1                             # softmax(z) - 1[v = y]
    dlogits = (1 - weight) * hard + weight * temperature * (np.exp(soft) - p)
    return dlogits * np.where(valid, dout, 0)[:, None].astype(dout.dtype)
