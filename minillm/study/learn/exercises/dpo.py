"""DPO: learn from pairs of answers, one preferred, without a reward model.

Of each answer only log p(answer | prompt) is needed, under the model that learns and under a fixed reference: chosen,
rejected, ref_chosen and ref_rejected, each (N,), one number a pair. How much more the model has raised the chosen answer
than the rejected one, compared with the reference, is

    h = (chosen - ref_chosen) - (rejected - ref_rejected)

and the loss is that of a classifier that should find the chosen answer by it; e, the label smoothing, is the probability
that the label is the wrong way round:

    loss = -(1 - e) log s(beta h) - e log s(-beta h),     s(z) = 1 / (1 + exp(-z))          (N,)

Write dpo_loss_forward and dpo_loss_backward, which gives dchosen and drejected, each (N,). The references are constants.
beta h may be 1000 or -1000: no overflow, and no log of 0.

Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7; Mitchell 2023 ("conservative DPO") for e.
"""
import numpy as np

from ....ops.losses import dpo_loss
from ..exercise import Exercise
from ..rules import tried


def log_sigmoid(z):
    """log(1 / (1 + exp(-z))), without overflow."""
    return np.where(z.real < 0, z, 0) - np.log1p(np.exp(np.where(z.real < 0, z, -z)))


def dpo_loss_forward(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0):
    """chosen, rejected, ref_chosen, ref_rejected (N,) log-probabilities in nats -> losses (N,), cache."""
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    losses = -(1 - label_smoothing) * log_sigmoid(z) - label_smoothing * log_sigmoid(-z)
    return losses, (z, beta, label_smoothing)


def dpo_loss_backward(dout, cache):
    """dout (N,), cache -> dchosen (N,), drejected (N,)."""
    z, beta, label_smoothing = cache
    right, wrong = np.exp(log_sigmoid(z)), np.exp(log_sigmoid(-z))               # s(z) and 1 - s(z)
    dchosen = dout * beta * (label_smoothing * right - (1 - label_smoothing) * wrong)
    return dchosen, -dchosen
