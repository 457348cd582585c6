"""Distillation: learn a teacher's probabilities.

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

from ....ops.losses.distillation_loss import distillation_loss_backward as backward
from ....ops.losses.distillation_loss import distillation_loss_forward as forward
from ..exercise import Exercise
from ..rules import by_cases


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


def _cases(yours):
    """Other temperatures and weights, each alone."""
    rng = np.random.default_rng(3)
    z, u, y, dout = rng.standard_normal((3, 5)), rng.standard_normal((3, 5)), np.array([1, -1, 4]), np.ones(3)
    for temperature, weight, rule in ((1.0, 0.0, "with w = 0 it is the cross-entropy"),
                                      (1.0, 1.0, "with w = 1 and T = 1 it is KL(P || Q)"),
                                      (3.0, 1.0, "with w = 1 it is T^2 KL(P || Q), of both softened"),
                                      (0.5, 0.5, "below T = 1 both are sharpened")):
        losses, cache = yours.distillation_loss_forward(z, u, y, temperature, weight)
        right, known = forward(z, u, y, temperature, weight)
        yield f"losses at T = {temperature:g}, w = {weight:g}: {rule}", losses, right
        yield (f"dlogits at T = {temperature:g}, w = {weight:g}: {rule}",
               yours.distillation_loss_backward(dout, cache), backward(dout, known))


EXERCISE = Exercise(
    __file__, op="distillation_loss", solve=("distillation_loss_forward", "distillation_loss_backward"),
    needs=("cross_entropy",), checks=by_cases(_cases)[:1],
    hints=("Three log-softmaxes: of z for the cross-entropy, of z / T and of u / T for the divergence.",
           "KL is sum of P * (log P - log Q) along the row; P = exp(log P).",
           "The cross-entropy's gradient is softmax(z) - 1[v = y], at temperature 1.",
           "Of KL only - sum over v of P[v] log Q[v] depends on z. d log Q[v] / dz[j] = (1[v = j] - Q[j]) / T.",
           "So dKL/dz[j] = (Q[j] - P[j]) / T, since P sums to 1; with the factor w T^2 that is w T (Q - P).",
           "Rows of target -1 have loss 0 and gradient 0; a target of -1 must not be taken as an index."),
    mistakes=(
        ("weight * temperature * (np.exp(soft) - p)", "weight * temperature ** 2 * (np.exp(soft) - p)",
         "T^2 becomes T in the gradient: one 1 / T comes from z / T"),
        ("weight * temperature * (np.exp(soft) - p)", "weight * temperature * (p - np.exp(soft))",
         "the soft part's sign is wrong: it must be Q - P"),
        ("weight * temperature * (np.exp(soft) - p)", "weight * (np.exp(soft) - p)",
         "the factor T of the soft part is missing: T^2 of the loss over T of z / T"),
        ("    hard[np.flatnonzero(valid), targets[valid]] -= 1", "    hard[np.flatnonzero(valid), targets[valid]] -= 0",
         "the 1 at the target is missing: CE's gradient is softmax(z) - 1[v = y]"),
        ("np.where(valid, dout, 0)[:, None]", "dout[:, None]", "rows with target -1 must have gradient 0"),
        ("* temperature ** 2 *", "*", "the factor T^2 of the divergence is missing"),
        ("* temperature ** 2 *", "* temperature *", "the divergence's factor must be T^2, not T"),
        ("soft_loss = (p * (soft_teacher - soft)).sum(axis=1)", "soft_loss = -(p * soft).sum(axis=1)",
         "it is the cross-entropy with the teacher: KL takes the teacher's own entropy off"),
        ("(soft_teacher - soft)", "(soft - soft_teacher)",
         "the divergence's sign is wrong: KL(P || Q) = sum of P * (log P - log Q) is never below 0"),
        ("soft_loss = (p * (soft_teacher - soft)).sum(axis=1)",
         "soft_loss = (np.exp(soft) * (soft - soft_teacher)).sum(axis=1)",
         "it is KL(Q || P): the teacher's probabilities must be the weights"),
        ("logs = log_softmax(logits) ", "logs = log_softmax(logits / temperature) ",
         "the cross-entropy must be at temperature 1"),
        ("log_softmax(teacher / temperature)", "log_softmax(teacher)",
         "the teacher's logits must be divided by T, too"),
        ("(1 - weight) * hard_loss + weight * temperature", "weight * hard_loss + (1 - weight) * temperature",
         "w and 1 - w are exchanged: w is the weight of the teacher")))
