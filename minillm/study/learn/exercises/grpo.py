"""GRPO: raise the probability of the tokens of answers that scored above their group.

For each token of the sampled answers are known, all (N,): logp, its log-probability under the model that learns; old_logp,
under the model that sampled it; ref_logp, under a fixed reference; advantages, of the answer it belongs to.

    r    = exp(logp - old_logp)                     how much likelier the token has become since it was sampled
    kl   = exp(ref_logp - logp) - (ref_logp - logp) - 1        an estimate of the divergence from the reference, never < 0
    loss = -min(r A, clip(r, 1 - e, 1 + e) A) + beta kl         (N,)

The minimum takes away the reason to move r further than e, the argument clip, in the direction of A; moving it back is
always rewarded. Think of all four cases: A above or below 0, r above or below the range.

Write grpo_loss_forward and grpo_loss_backward, which gives dlogp (N,); old_logp, ref_logp and advantages are constants.
Most tokens have ref_logp near logp: np.expm1(x) is exp(x) - 1 without the rounding.

Source: Shao et al. 2024, arXiv 2402.03300, equations 3 and 4; Schulman et al. 2017 (PPO), arXiv 1707.06347, equation 7.
"""
import numpy as np

from ....ops.losses import grpo_loss
from ..exercise import Exercise
from ..rules import tried


def grpo_loss_forward(logp, old_logp, ref_logp, advantages, clip=0.2, beta=0.04):
    """logp, old_logp, ref_logp, advantages (N,), one number a token -> losses (N,), cache."""
    ratio = np.exp(logp - old_logp)
    low, high = ratio.real < 1 - clip, ratio.real > 1 + clip
    held = np.where(low, 1 - clip, np.where(high, 1 + clip, ratio)) * advantages
    gain = ratio * advantages
    free = gain.real <= held.real                                    # where r A is the minimum
    back = ref_logp - logp
    losses = -np.where(free, gain, held) + beta * (np.expm1(back) - back)
    return losses.astype(logp.dtype), (gain, free, back, beta)


def grpo_loss_backward(dout, cache):
    """dout (N,), cache -> dlogp (N,)."""
    gain, free, back, beta = cache
    return dout * (-np.where(free, gain, 0) - beta * np.expm1(back))
