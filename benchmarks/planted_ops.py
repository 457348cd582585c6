"""Wrong backwards that only one op can have: a forgotten term, mask, scale or repeated index.

    OWN = {op: [(kind, wrong backward), ...]}

Each is the reference's backward with one mistake that somebody has made. (planted_any.py has what any op can have.)
"""
import math
from types import SimpleNamespace

import numpy as np

from minillm import ops
from minillm.ops.attention import merge_heads, split_heads
from minillm.ops.lora_mlp import REFERENCE as LORA_MLP_PARTS
from minillm.ops.losses.linear_cross_entropy import REFERENCE as HEAD_PARTS
from minillm.ops.mlp import REFERENCE as MLP_PARTS


def attention_by(dout, cache, P=None, scale=None, subtracted=True, transposed=False):
    """Attention's backward with other probabilities, another scale, or without the softmax's subtraction."""
    qkv, n_head, right_P = cache
    q, k, v = split_heads(qkv, n_head)
    P = right_P if P is None else P
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    dout = dout.reshape(*dout.shape[:2], n_head, -1).swapaxes(1, 2)
    dP = dout @ v.swapaxes(-1, -2)
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True) if subtracted else dP)
    dq, dk = scale * (dS @ k), scale * ((dS if transposed else dS.swapaxes(-1, -2)) @ q)
    return np.concatenate([merge_heads(d) for d in (dq, dk, P.swapaxes(-1, -2) @ dout)], axis=-1)


def shifted_probabilities(qkv, n_head, shift):
    """Probabilities under a mask that shows `shift` columns more."""
    q, k, _ = split_heads(qkv, n_head)
    S = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    P = np.exp(np.where(np.tri(*S.shape[-2:], k=shift, dtype=bool), S, -np.inf))
    return P / P.sum(axis=-1, keepdims=True)


def attention_mask_off_by_one(dout, cache):
    return attention_by(dout, cache, P=shifted_probabilities(cache[0], cache[1], 1))


def attention_hides_itself(dout, cache):
    """The mask hides the token's own column, except in the first row."""
    P = cache[2] * ~np.eye(cache[2].shape[-1], dtype=bool)
    P[..., 0, 0] = 1
    return attention_by(dout, cache, P=P / P.sum(axis=-1, keepdims=True))


def attention_without_scale(dout, cache):
    return attention_by(dout, cache, scale=1.0)


def attention_without_subtraction(dout, cache):
    return attention_by(dout, cache, subtracted=False)


def attention_dk_not_transposed(dout, cache):
    return attention_by(dout, cache, transposed=True)


def attention_swaps_dq_and_dk(dout, cache):
    dq, dk, dv = np.split(ops.attention_backward(dout, cache), 3, axis=-1)
    return np.concatenate([dk, dq, dv], axis=-1)


def attention_of_one_head(dout, cache):
    """The other heads' gradients are never written."""
    dqkv = ops.attention_backward(dout, cache)
    B, T, C3 = dqkv.shape
    dqkv.reshape(B, T, 3, cache[1], -1)[:, :, :, 1:] = 0
    return dqkv


def layernorm_dx(dout, cache, mean=True, variance=True):
    """LayerNorm's dx, with or without the terms through its mean and its variance."""
    x, weight, centre, rstd = cache
    g, xhat = dout * weight, (x - centre) * rstd
    through_mean = g.mean(axis=-1, keepdims=True) if mean else 0
    through_variance = xhat * (g * xhat).mean(axis=-1, keepdims=True) if variance else 0
    return (g - through_mean - through_variance) * rstd


def layernorm_without_variance_term(dout, cache):
    return layernorm_dx(dout, cache, variance=False), *ops.layernorm_backward(dout, cache)[1:]


def layernorm_without_mean_term(dout, cache):
    return layernorm_dx(dout, cache, mean=False), *ops.layernorm_backward(dout, cache)[1:]


def layernorm_of_xhat_as_x(dout, cache):
    """dweight by x instead of the normalised x."""
    dx, _, dbias = ops.layernorm_backward(dout, cache)
    return dx, (dout * cache[0]).reshape(-1, len(dbias)).sum(axis=0), dbias


def residual_forgets_the_identity(douts, cache):
    return ops.residual_layernorm_backward((None, douts[1]), cache)


def residual_forgets_the_norm(douts, cache):
    return douts[0], douts[0], *ops.residual_layernorm_backward(douts, cache)[2:]


def residual_without_variance_term(douts, cache):
    ds = douts[0] + layernorm_dx(douts[1], cache, variance=False)
    return ds, ds, *ops.residual_layernorm_backward(douts, cache)[2:]


def residual_for_x_alone(douts, cache):
    dx, _, *rest = ops.residual_layernorm_backward(douts, cache)
    return dx, np.zeros_like(dx), *rest


def embedding_by_assignment(dout, cache):
    """The last of repeated tokens wins."""
    _, dwpe = ops.embedding_backward(dout, cache)
    dwte = np.zeros_like(cache[1])
    dwte[cache[0]] = dout
    return dwte, dwpe


def embedding_forgets_start(dout, cache):
    """Positions are counted from 0."""
    *rest, _ = cache
    return ops.embedding_backward(dout, (*rest, 0))


def embedding_positions_of_one_sequence(dout, cache):
    dwte, _ = ops.embedding_backward(dout, cache)
    return dwte, ops.embedding_backward(dout * (np.arange(len(dout)) == 0)[:, None, None], cache)[1]


def linear_transposed(dout, cache, into=None):
    """weight instead of weight.T, reshaped to fit."""
    x, weight = cache
    _, dweight, dbias = ops.linear_backward(dout, cache)
    return dout @ weight.reshape(weight.T.shape), dweight, dbias


def linear_weight_by_outputs(dout, cache):
    """The outer product the wrong way round, reshaped to fit."""
    dx, dweight, dbias = ops.linear_backward(dout, cache)
    return dx, dweight.T.reshape(dweight.shape).copy(), dbias


def lora_forgets_the_low_rank_branch(dout, cache, into=None):
    _, da, db = ops.lora_linear_backward(dout, cache)
    return ops.linear_backward(dout, (cache[0], cache[3]))[0], da, db


def lora_forgets_the_mask(dout, cache, into=None):
    """dx passes dropped inputs, too."""
    *rest, p, key = cache
    return ops.lora_linear_backward(dout, (*rest, 0.0, key))


def lora_forgets_the_scale(dout, cache):
    dx, da, db = ops.lora_linear_backward(dout, cache)
    return dx, da, db / cache[6]


def gelu_wrong_constant(dout, cache):
    """0.0044715 for 0.044715."""
    (x,) = cache
    k, a = math.sqrt(2 / math.pi), 0.0044715
    t = np.tanh(k * (x + a * x ** 3))
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * a * x * x))


def gelu_without_the_product_rule(dout, cache):
    (x,) = cache
    return dout * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def gelu_of_the_sigmoid_form(dout, cache):
    """The slope of x s(1.702 x), another approximation of the same function."""
    (x,) = cache
    s = 1 / (1 + np.exp(-1.702 * x))
    return dout * (s + 1.702 * x * s * (1 - s))


def mlp_by(**parts):
    """The MLP's backward with other parts."""
    parts = SimpleNamespace(**vars(MLP_PARTS) | parts)
    return lambda dout, cache: ops.mlp_backward(dout, cache, ops=parts)


def lora_mlp_by(**parts):
    """The backward of the MLP with adapters with other parts."""
    parts = SimpleNamespace(**vars(LORA_MLP_PARTS) | parts)
    return lambda dout, cache: ops.lora_mlp_backward(dout, cache, ops=parts)


def lora_projection_forgets_the_mask(dout, cache):
    *rest, p, key = cache
    return ops.lora_projection_backward(dout, (*rest, 0.0, key))


def dropout_forgets_the_scale(dout, cache):
    return ops.dropout_backward(dout, cache) * (1 - cache[0])


def dropout_draws_another_mask(dout, cache):
    """The next step's."""
    p, (seed, step, site), *rest = cache
    return ops.dropout_backward(dout, (p, (seed, step + 1, site), *rest))


def dropout_passes_everything(dout, cache):
    return dout / (1 - cache[0])


def cross_entropy_forgets_ignored(dout, cache):
    """Ignored rows get the gradient of a row whose target is the last token."""
    logits, targets, _, top, logsum = cache
    dlogits = np.exp(logits - top[:, None] - logsum[:, None])
    dlogits[np.arange(len(targets)), targets] -= 1
    return dlogits * dout[:, None]


def cross_entropy_without_the_target(dout, cache):
    """Probabilities alone: no 1 is taken off."""
    logits, _, valid, top, logsum = cache
    return np.exp(logits - top[:, None] - logsum[:, None]) * (dout * valid)[:, None]


def cross_entropy_next_target(dout, cache):
    """The 1 is taken off the next column."""
    logits, targets, *rest = cache
    return ops.cross_entropy_backward(dout, (logits, np.where(rest[0], (targets + 1) % logits.shape[1], -1), *rest))


def head_by(wrong):
    """linear_cross_entropy's backward with a wrong cross-entropy in it."""
    parts = SimpleNamespace(**vars(HEAD_PARTS) | {"cross_entropy_backward": wrong})
    return lambda dout, cache: ops.linear_cross_entropy_backward(dout, cache, ops=parts)


def head_of_the_last_row(dout, cache):
    """dwte is assigned, not added, row after row."""
    dx, _ = ops.linear_cross_entropy_backward(dout, cache)
    return dx, ops.linear_cross_entropy_backward(dout * (np.arange(len(dout)) == len(dout) // 2), cache)[1]


def distillation_squares_no_temperature(dout, cache):
    """As if the soft part were not scaled by T^2."""
    logs, soft_logs, p, targets, valid, temperature, weight = cache
    soft = (np.exp(soft_logs) - p) * np.where(valid, dout, 0)[:, None]
    return ops.distillation_loss_backward(dout, cache) - weight * (temperature - 1 / temperature) * soft


def distillation_forgets_ignored(dout, cache):
    """As those whose target is the last token."""
    logs, soft_logs, p, targets, valid, *numbers = cache
    forgotten = targets % logs.shape[1], np.ones_like(valid)
    return ops.distillation_loss_backward(dout, (logs, soft_logs, p, *forgotten, *numbers))


def distillation_swaps_the_weights(dout, cache):
    *rest, weight = cache
    return ops.distillation_loss_backward(dout, (*rest, 1 - weight))


def distillation_without_the_teacher(dout, cache):
    logs, soft_logs, p, *rest = cache
    return ops.distillation_loss_backward(dout, (logs, soft_logs, np.zeros_like(p), *rest))


def dpo_without_smoothing(dout, cache):
    z, beta, _ = cache
    return ops.dpo_loss_backward(dout, (z, beta, 0.0))


def dpo_rewards_the_rejected(dout, cache):
    dchosen, _ = ops.dpo_loss_backward(dout, cache)
    return dchosen, dchosen.copy()


def dpo_forgets_beta(dout, cache):
    return tuple(grad / cache[1] for grad in ops.dpo_loss_backward(dout, cache))


def grpo_ignores_the_clip(dout, cache):
    gain, free, back, beta = cache
    return ops.grpo_loss_backward(dout, (gain, np.ones_like(free), back, beta))


def grpo_without_the_penalty(dout, cache):
    gain, free, back, _ = cache
    return ops.grpo_loss_backward(dout, (gain, free, back, 0.0))


def grpo_keeps_the_clipped(dout, cache):
    gain, free, back, beta = cache
    return ops.grpo_loss_backward(dout, (gain, ~free, back, beta))


OWN = {
    "attention": [("mask edge", attention_mask_off_by_one), ("mask edge", attention_hides_itself),
                  ("factor", attention_without_scale), ("dropped term", attention_without_subtraction),
                  ("transposed", attention_dk_not_transposed), ("another's gradient", attention_swaps_dq_and_dk),
                  ("missing rows", attention_of_one_head)],
    "layernorm": [("dropped term", layernorm_without_variance_term), ("dropped term", layernorm_without_mean_term),
                  ("wrong formula", layernorm_of_xhat_as_x)],
    "residual_layernorm": [("dropped term", residual_forgets_the_identity), ("dropped term", residual_forgets_the_norm),
                           ("dropped term", residual_without_variance_term), ("dropped term", residual_for_x_alone)],
    "embedding": [("dropped duplicates", embedding_by_assignment), ("off by one", embedding_forgets_start),
                  ("missing sum", embedding_positions_of_one_sequence)],
    "linear": [("transposed", linear_transposed), ("transposed", linear_weight_by_outputs)],
    "lora_linear": [("dropped term", lora_forgets_the_low_rank_branch), ("mask edge", lora_forgets_the_mask),
                    ("factor", lora_forgets_the_scale)],
    "lora_projection": [("mask edge", lora_projection_forgets_the_mask)],
    "lora_mlp": [("dropped term", lora_mlp_by(lora_linear_backward=lora_forgets_the_low_rank_branch)),
                 ("mask edge", lora_mlp_by(lora_linear_backward=lora_forgets_the_mask)),
                 ("dropped term", lora_mlp_by(gelu_backward=lambda dout, cache: dout))],
    "gelu": [("wrong formula", gelu_wrong_constant), ("dropped term", gelu_without_the_product_rule),
             ("wrong formula", gelu_of_the_sigmoid_form)],
    "mlp": [("wrong formula", mlp_by(gelu_backward=gelu_wrong_constant)),
            ("dropped term", mlp_by(gelu_backward=gelu_without_the_product_rule)),
            ("dropped term", mlp_by(gelu_backward=lambda dout, cache: dout)),
            ("transposed", mlp_by(linear_backward=linear_transposed))],
    "dropout": [("factor", dropout_forgets_the_scale), ("mask edge", dropout_draws_another_mask),
                ("mask edge", dropout_passes_everything)],
    "cross_entropy": [("mask edge", cross_entropy_forgets_ignored), ("dropped term", cross_entropy_without_the_target),
                      ("off by one", cross_entropy_next_target)],
    "linear_cross_entropy": [("mask edge", head_by(cross_entropy_forgets_ignored)),
                             ("dropped term", head_by(cross_entropy_without_the_target)),
                             ("off by one", head_by(cross_entropy_next_target)),
                             ("missing sum", head_of_the_last_row)],
    "distillation_loss": [("factor", distillation_squares_no_temperature), ("mask edge", distillation_forgets_ignored),
                          ("factor", distillation_swaps_the_weights),
                          ("dropped term", distillation_without_the_teacher)],
    "dpo_loss": [("dropped term", dpo_without_smoothing), ("sign", dpo_rewards_the_rejected),
                 ("factor", dpo_forgets_beta)],
    "grpo_loss": [("mask edge", grpo_ignores_the_clip), ("dropped term", grpo_without_the_penalty),
                  ("mask edge", grpo_keeps_the_clipped)],
}
