"""Group-relative policy optimisation: raise the probability of tokens in answers that scored above their group.

Several answers are sampled for one prompt; the advantage A of an answer is its reward minus the group's mean, over the
group's deviation (posttrain/grpo.py). For each token, with logp under the model that learns, old_logp under the
model that sampled it, and ref_logp under a fixed reference:

    r    = exp(logp - old_logp)
    kl   = exp(ref_logp - logp) - (ref_logp - logp) - 1
    loss = -min(r A, clip(r, 1 - e, 1 + e) A) + beta kl

The minimum takes away the reason to move r further than e in the direction of A (Schulman et al. 2017, arXiv
1707.06347, equation 7); from e = 1 on it only bounds r above. kl estimates the divergence from the reference without
bias and is never negative; expm1 computes exp(x) - 1, which near x = 0, where most tokens are, would be rounding.
Source: Shao et al. 2024 (arXiv 2402.03300), equations 3 and 4. Where the minimum is the clipped side the loss does not
depend on logp, so

    dloss/dlogp = -r A 1[r A <= clip(r, 1 - e, 1 + e) A] + beta (1 - exp(ref_logp - logp))
    dlogp = dout * dloss/dlogp
"""
import math

import numpy as np

from ..checks import check_dout, check_dtype, check_float, check_number, check_shape, from_cache
from ..spec import Spec, normals, wrong


def grpo_loss_forward(logp, old_logp, ref_logp, advantages, clip=0.2, beta=0.04):
    """The clipped policy gradient of each token with a KL penalty, beta (Shao et al. 2024, eqs. 3 and 4).

    logp, old_logp, ref_logp, advantages (N,), one row a token, in nats -> losses (N,), cache.
    Raises ValueError for other shapes or dtypes, clip <= 0, or beta < 0.
    """
    check_float("logp", logp)
    check_shape("logp", logp, (None,))
    for name, array in (("old_logp", old_logp), ("ref_logp", ref_logp), ("advantages", advantages)):
        check_shape(name, array, logp.shape)
        check_dtype(name, array, logp.dtype)
    check_number("clip", clip, lambda clip: clip > 0, "above 0")
    check_number("beta", beta, lambda beta: 0 <= beta < math.inf, "a number of at least 0")
    gain = np.exp(logp - old_logp) * advantages                          # r A
    held = clipped(np.exp(logp - old_logp), 1 - clip, 1 + clip) * advantages
    free = ~(gain.real > held.real)                                      # where r A is the minimum (and for NaN)
    back = ref_logp - logp
    losses = -np.where(free, gain, held) + beta * (np.expm1(back) - back)
    return losses, (gain, free, back, beta)


def grpo_loss_backward(dout, cache):
    """The gradient of grpo_loss_forward: dout (N,), cache -> dlogp (N,)."""
    gain, free, back, beta = from_cache(cache, gain="N", free="N:bool", back="N", beta=float)
    check_dout(dout, gain.shape, gain.dtype)
    return dout * (-np.where(free, gain, 0).astype(gain.dtype) - beta * np.expm1(back))


def clipped(x, low, high):
    """x held in [low, high], by its real part."""
    return np.where(x.real < low, low, np.where(x.real > high, high, x)).astype(x.dtype)


def sample(rng, dtype, d):
    """Ratios between 0.6 and 1.7, so that about half are clipped, none within the width of a finite difference."""
    old = normals(rng, dtype, old=d.B * d.T)["old"]
    steps = rng.choice([-0.5, -0.3, -0.1, 0.1, 0.3, 0.5], d.B * d.T).astype(dtype)
    drawn = normals(rng, dtype, back=d.B * d.T, advantages=d.B * d.T)
    return {"logp": old + steps, "old_logp": old, "ref_logp": old + drawn["back"] / 4,
            "advantages": drawn["advantages"], "clip": 0.2, "beta": 0.04}


def torch_grpo_loss(torch, logp, old_logp, ref_logp, advantages, clip, beta):
    ratio, back = torch.exp(logp - old_logp), ref_logp - logp
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -gain + beta * (torch.expm1(back) - back)


SPEC = Spec(
    "grpo_loss", sample, differentiable=("logp",),
    bad=wrong("logp", "integers") + wrong("old_logp", "narrower", "other_dtype") + wrong("ref_logp", "narrower")
    + wrong("advantages", "other_dtype") + wrong("clip", 0.0, -0.2, math.nan)
    + wrong("beta", -0.1, math.nan, math.inf),
    flops=lambda d: (12 * d.B * d.T, 5 * d.B * d.T),
    c=("out[N] <- logp[N] old_logp[N] ref_logp[N] advantages[N]; N clip beta",
       "dlogp[N] <- dout[N] logp[N] old_logp[N] ref_logp[N] advantages[N]; N clip beta"),
    torch=torch_grpo_loss)
