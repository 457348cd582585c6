"""Direct preference optimisation: learn from pairs of answers, one chosen and one rejected, with no reward model.

Of each answer only log p(answer | prompt), the sum over its tokens, is needed: under the model that learns and under
a fixed reference. Their difference is the answer's implied reward, up to beta and a constant of the prompt:

    sigmoid(z) = 1 / (1 + exp(-z))          h = (chosen - ref_chosen) - (rejected - ref_rejected)
    loss = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)

Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; e, the label smoothing, is the probability that a label is
wrong (Mitchell 2023, "conservative DPO"). With references of zero the loss is the reference-free form. The derivative
of log sigmoid(z) is sigmoid(-z), so

    dloss/dh = beta (e sigmoid(beta h) - (1 - e) sigmoid(-beta h))
    dchosen = dout * dloss/dh               drejected = -dchosen
"""
import math

import numpy as np

from ..checks import check_dout, check_dtype, check_float, check_number, check_shape, from_cache
from ..spec import Spec, normals, wrong


def dpo_loss_forward(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0):
    """The DPO loss of pairs of answers (Rafailov et al. 2023, eq. 7).

    chosen, rejected, ref_chosen, ref_rejected (N,): log-probabilities of answers in nats -> losses (N,), cache.
    Raises ValueError for other shapes or dtypes, beta <= 0, or label_smoothing outside [0, 0.5).
    """
    check_float("chosen", chosen)
    check_shape("chosen", chosen, (None,))
    for name, array in (("rejected", rejected), ("ref_chosen", ref_chosen), ("ref_rejected", ref_rejected)):
        check_shape(name, array, chosen.shape)
        check_dtype(name, array, chosen.dtype)
    check_number("beta", beta, lambda beta: 0 < beta < math.inf, "a number above 0")
    check_number("label_smoothing", label_smoothing, lambda e: 0 <= e < 0.5, "in [0, 0.5)")
    z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    losses = -(1 - label_smoothing) * log_sigmoid(z) - label_smoothing * log_sigmoid(-z)
    return losses, (z, beta, label_smoothing)


def dpo_loss_backward(dout, cache):
    """The gradients of dpo_loss_forward: dout (N,), cache -> dchosen (N,), drejected (N,)."""
    z, beta, label_smoothing = from_cache(cache, z="N", beta=float, label_smoothing=float)
    check_dout(dout, z.shape, z.dtype)
    right, wrong = np.exp(log_sigmoid(z)), np.exp(log_sigmoid(-z))       # s(z) - (1 - e) would cancel for large z
    dchosen = dout * beta * (label_smoothing * right - (1 - label_smoothing) * wrong)
    return dchosen, -dchosen


def log_sigmoid(z):
    """log(1 / (1 + exp(-z))) without overflow: the exponential is only taken of numbers below 0."""
    small = np.where(z.real < 0, z, -z)                  # -|z|
    return np.where(z.real < 0, z, 0).astype(z.dtype) - np.log1p(np.exp(small))


def torch_dpo_loss(torch, chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing):
    z, logsigmoid = beta * ((chosen - ref_chosen) - (rejected - ref_rejected)), torch.nn.functional.logsigmoid
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


SPEC = Spec(
    "dpo_loss", differentiable=("chosen", "rejected"),
    sample=lambda rng, dtype, d: normals(rng, dtype, **dict.fromkeys(
        ("chosen", "rejected", "ref_chosen", "ref_rejected"), d.B * d.T)) | {"beta": 0.3, "label_smoothing": 0.1},
    bad=wrong("chosen", "integers") + wrong("rejected", "narrower", "other_dtype") + wrong("ref_chosen", "narrower")
    + wrong("ref_rejected", "other_dtype") + wrong("beta", 0.0, math.nan, math.inf)
    + wrong("label_smoothing", 0.5, -0.1, math.nan),
    flops=lambda d: (12 * d.B * d.T, 8 * d.B * d.T),
    c=("out[N] <- chosen[N] rejected[N] ref_chosen[N] ref_rejected[N]; N beta label_smoothing",
       "dchosen[N] drejected[N] <- dout[N] chosen[N] rejected[N] ref_chosen[N] ref_rejected[N]; "
       "N beta label_smoothing"),
    torch=torch_dpo_loss)
