"""DPO: learn from pairs of answers.

Of each answer only log p(answer | prompt) is needed, under the model that learns and under a fixed reference: chosen,
rejected, ref_chosen and ref_rejected, each (N,), one number a pair. How much more the model has raised the chosen
answer than the rejected one, compared with the reference, is

    h = (chosen - ref_chosen) - (rejected - ref_rejected)

and the loss is that of a classifier that should find the chosen answer by it; e, the label smoothing, is the
probability that the label is the wrong way round:

    loss = -(1 - e) log s(beta h) - e log s(-beta h),     s(z) = 1 / (1 + exp(-z))          (N,)

Write log_sigmoid, dpo_loss_forward with it, and dpo_loss_backward, which gives dchosen and drejected, each (N,). The
references are constants. beta h may be 1000 or -1000: no overflow, and no log of 0.

Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7; Mitchell 2023 ("conservative DPO") for e.
"""
import numpy as np

from ..exercise import Exercise
from ..rules import by_cases


def log_sigmoid(z):
    """z (N,) -> log(1 / (1 + exp(-z))) (N,), without overflow."""
    return np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))


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


def _cases(yours):
    """The logarithm of a sigmoid where a float64 sigmoid is 0 or 1, and losses of such pairs."""
    for z, right, rule in ((0.0, -np.log(2.0), "at 0 it is -ln 2"), (-1000.0, -1000.0, "exp(1000) overflows"),
                           (1000.0, 0.0, "at 1000 it is 0"),
                           (40.0, -np.exp(-40.0), "1 + e^-40 is 1: np.log1p is not 0")):
        got = yours.log_sigmoid(np.array([z]))
        yield f"log_sigmoid({z:g}): {rule}", np.abs(got - right).max() <= 1e-9 * abs(right)
    for chosen, right in ((-1e4, 1000.0), (1e4, 0.0)):
        losses, cache = yours.dpo_loss_forward(np.array([chosen]), np.zeros(1), np.zeros(1), np.zeros(1), 0.1)
        yield f"a pair with beta h = {chosen / 10:g} must have loss {right:g}: no overflow, no log of 0", losses, \
            np.array([right])
        dchosen, _ = yours.dpo_loss_backward(np.ones(1), cache)
        yield f"a pair with beta h = {chosen / 10:g} must have a gradient that is a number", np.isfinite(dchosen).all()


EXERCISE = Exercise(
    __file__, op="dpo_loss", solve=("log_sigmoid", "dpo_loss_forward", "dpo_loss_backward"),
    needs=("lora",), checks=by_cases(_cases)[:1],
    hints=("For z < 0, log s(z) = z - log(1 + e^z); for z >= 0 it is -log(1 + e^-z): exp is taken of negative numbers "
           "only, and np.log1p(x) is log(1 + x).",
           "So log s(z) = min(z, 0) - log1p(exp(-|z|)), and the loss follows from h.",
           "d log s(z) / dz = s(-z), since s'(z) = s(z) s(-z). And d log s(-z) / dz = -s(z).",
           "With z = beta h: dloss/dh = beta (e s(z) - (1 - e) s(-z)).",
           "h grows with chosen and falls with rejected, by 1 each: dchosen = dout * dloss/dh, drejected = -dchosen.",
           "s(z) without overflow is exp(log_sigmoid(z)). Do not take s(-z) as 1 - s(z): for large z that is 0."),
    mistakes=(
        ("dchosen = dout * beta * (", "dchosen = dout * (", "the factor beta of z = beta h is missing"),
        ("(label_smoothing * right - (1 - label_smoothing) * wrong)", "-wrong", "the label smoothing is missing"),
        ("(label_smoothing * right - (1 - label_smoothing) * wrong)",
         "(label_smoothing * wrong - (1 - label_smoothing) * right)",
         "s(z) and s(-z) are exchanged: the gradient must vanish where the pair is right already"),
        ("return dchosen, -dchosen", "return dchosen, dchosen",
         "the rejected answer's sign is wrong: h falls where it grows"),
        ("((chosen - ref_chosen) - (rejected - ref_rejected))", "(chosen - rejected)",
         "the reference is missing: what counts is how much the model has changed from it"),
        ("((chosen - ref_chosen) - (rejected - ref_rejected))", "((rejected - ref_rejected) - (chosen - ref_chosen))",
         "chosen and rejected are exchanged: this teaches the rejected answers"),
        ("z = beta * (", "z = (", "beta is missing"),
        ("losses = -(1 - label_smoothing) * log_sigmoid(z) - label_smoothing * log_sigmoid(-z)",
         "losses = -log_sigmoid(z)", "the label smoothing is missing"),
        ("losses = -(1 - label_smoothing) * log_sigmoid(z) - label_smoothing * log_sigmoid(-z)",
         "losses = (1 - label_smoothing) * log_sigmoid(z) + label_smoothing * log_sigmoid(-z)",
         "the sign is wrong: a loss is minus the log-probability")))
