"""GRPO: the clipped policy gradient with a KL penalty.

For each token of the sampled answers are known, all (N,): logp, its log-probability under the model that learns;
old_logp, under the model that sampled it; ref_logp, under a fixed reference; advantages, of the answer it belongs to.

    r    = exp(logp - old_logp)                     how much likelier the token has become since it was sampled
    kl   = exp(ref_logp - logp) - (ref_logp - logp) - 1        an estimate of the divergence from the reference
    loss = -min(r A, clip(r, 1 - e, 1 + e) A) + beta kl         (N,)

The minimum takes away the reason to move r further than e, the argument clip, in the direction of A; moving it back is
always rewarded. Think of all four cases: A above or below 0, r above or below the range.

Write grpo_loss_forward and grpo_loss_backward, which gives dlogp (N,); old_logp, ref_logp and advantages are constants.
Most tokens have ref_logp near logp: np.expm1(x) is exp(x) - 1 without the rounding.

Source: Shao et al. 2024, arXiv 2402.03300, equations 3 and 4; Schulman et al. 2017 (PPO), arXiv 1707.06347, equation 7.
"""
import numpy as np

from ..exercise import Exercise


def grpo_loss_forward(logp, old_logp, ref_logp, advantages, clip=0.2, beta=0.04):
    """logp, old_logp, ref_logp, advantages (N,), one number a token -> losses (N,), cache."""
    ratio = np.exp(logp - old_logp)
    gain, held = ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages
    back = ref_logp - logp
    losses = -np.minimum(gain, held) + beta * (np.expm1(back) - back)
    return losses, (gain, gain <= held, back, beta)


def grpo_loss_backward(dout, cache):
    """dout (N,), cache -> dlogp (N,)."""
    gain, free, back, beta = cache
    return dout * (-np.where(free, gain, 0) - beta * np.expm1(back))


EXERCISE = Exercise(
    __file__, op="grpo_loss", solve=("grpo_loss_forward", "grpo_loss_backward"), needs=("grpo_advantage",),
    hints=("r A and clip(r) A are two arrays; the loss takes minus the smaller of them, number by number.",
           "A > 0: the minimum is clipped where r > 1 + e. A < 0: it is clipped where r < 1 - e. Nowhere else.",
           "dr/dlogp = r, so d(r A)/dlogp = r A: the gain itself.",
           "Where the clipped side is the minimum, and r is out of the range, the loss does not depend on logp: 0.",
           "d kl / dlogp = -exp(ref_logp - logp) + 1 = -expm1(ref_logp - logp).",
           "dlogp = dout * (-r A where r A <= clip(r) A, else 0, and - beta expm1(ref_logp - logp))."),
    mistakes=(
        ("np.where(free, gain, 0)", "gain", "where the minimum is the clipped side the gradient must be 0"),
        ("np.where(free, gain, 0)", "np.where(free, gain / np.abs(gain), 0)", "the factor r A is missing"),
        (" - beta * np.expm1(back))", ")", "the KL penalty's part is missing"),
        (" - beta * np.expm1(back))", " + beta * np.expm1(back))", "the KL penalty's part has the wrong sign"),
        ("dout * (-np.where", "dout * (np.where", "the loss is minus the gain: the sign is wrong"),
        ("-np.minimum(gain, held)", "-np.maximum(gain, held)",
         "it takes the larger of r A and clip(r) A: the minimum is meant, which is the cautious one"),
        ("-np.minimum(gain, held)", "-gain", "nothing is clipped"),
        ("-np.minimum(gain, held)", "-held",
         "it clips wherever r is out of the range; but moving back towards it must be rewarded: take the minimum of "
         "both"),
        ("-np.minimum(gain, held)", "np.minimum(gain, held)", "the loss is minus the gain: the sign is wrong"),
        ("+ beta * (np.expm1(back) - back)", "", "the KL penalty is missing"),
        ("+ beta * (np.expm1(back) - back)", "- beta * (np.expm1(back) - back)",
         "the KL penalty has the wrong sign: it must raise the loss"),
        ("+ beta * (np.expm1(back) - back)", "+ beta * (logp - ref_logp)",
         "kl is the estimate logp - ref_logp, which may be negative; the task's is exp(x) - x - 1"),
        ("back = ref_logp - logp", "back = logp - ref_logp",
         "kl is of logp - ref_logp; it must be of ref_logp - logp")))
