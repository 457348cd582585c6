"""Wrong gradients, planted one by one: each is caught, and the failing tensor and element are named."""
import math

import numpy as np
import pytest
from cases import sample
from tolerances import TOLERANCES

from minillm import ops
from minillm.gradcheck import GradcheckError, gradcheck
from minillm.ops.attention import causal_softmax, merge_heads, split_heads
from minillm.ops.table import OPS, Dims


def layernorm_without_a_term(dout, cache):
    """dx lacks - xhat * mean(g * xhat)."""
    _, weight, _, rstd = cache
    g = dout * weight
    return (g - g.mean(axis=-1, keepdims=True)) * rstd, *ops.layernorm_backward(dout, cache)[1:]


def embedding_by_assignment(dout, cache):
    """The last of repeated tokens wins."""
    _, dwpe = ops.embedding_backward(dout, cache)
    dwte = np.zeros_like(cache[1])
    dwte[cache[0]] = dout
    return dwte, dwpe


def linear_transposed(dout, cache):
    """weight instead of weight.T, which fits when it is square."""
    _, dweight, dbias = ops.linear_backward(dout, cache)
    return dout @ cache[1], dweight, dbias


def attention_by(dout, cache, P=None, scale=None):
    """Attention's backward with other probabilities or another scale."""
    qkv, n_head, right_P = cache
    q, k, v = split_heads(qkv, n_head)
    P = right_P if P is None else P
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    dout = dout.reshape(*dout.shape[:2], n_head, -1).swapaxes(1, 2)
    dP = dout @ v.swapaxes(-1, -2)
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
    parts = scale * (dS @ k), scale * (dS.swapaxes(-1, -2) @ q), P.swapaxes(-1, -2) @ dout
    return np.concatenate([merge_heads(d) for d in parts], axis=-1)


def shifted_probabilities(qkv, n_head, shift):
    """Probabilities under a mask that shows `shift` columns more."""
    q, k, _ = split_heads(qkv, n_head)
    S = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    P = np.exp(np.where(np.tri(*S.shape[-2:], k=shift, dtype=bool), S, -np.inf))
    return P / P.sum(axis=-1, keepdims=True)


def attention_mask_off_by_one(dout, cache):
    return attention_by(dout, cache, P=shifted_probabilities(cache[0], cache[1], 1))


def attention_without_scale(dout, cache):
    return attention_by(dout, cache, scale=1.0)


def gelu_wrong_constant(dout, cache):
    """0.0044715 for 0.044715."""
    (x,) = cache
    k, a = math.sqrt(2 / math.pi), 0.0044715
    t = np.tanh(k * (x + a * x ** 3))
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * a * x * x))


def cross_entropy_forgets_ignored(dout, cache):
    """Ignored rows get the gradient of a row whose target is the last token."""
    logits, targets, _, top, logsum = cache
    dlogits = np.exp(logits - top[:, None] - logsum[:, None])
    dlogits[np.arange(len(targets)), targets] -= 1
    return dlogits * dout[:, None]


def residual_forgets_the_identity(douts, cache):
    """Only LayerNorm's way back."""
    return ops.residual_layernorm_backward((None, douts[1]), cache)


def dropout_forgets_the_scale(dout, cache):
    return ops.dropout_backward(dout, cache) * (1 - cache[0])


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


def dpo_without_smoothing(dout, cache):
    z, beta, _ = cache
    return ops.dpo_loss_backward(dout, (z, beta, 0.0))


def dpo_rewards_the_rejected(dout, cache):
    dchosen, _ = ops.dpo_loss_backward(dout, cache)
    return dchosen, dchosen


def grpo_ignores_the_clip(dout, cache):
    gain, free, back, beta = cache
    return ops.grpo_loss_backward(dout, (gain, np.ones_like(free), back, beta))


def lora_forgets_the_low_rank_branch(dout, cache):
    _, da, db = ops.lora_linear_backward(dout, cache)
    return ops.linear_backward(dout, (cache[0], cache[3]))[0], da, db


PLANTED = [   # op, wrong backward, the gradients that are wrong
    ("layernorm", layernorm_without_a_term, ["x"]),
    ("embedding", embedding_by_assignment, ["wte"]),
    ("linear", linear_transposed, ["x"]),
    ("attention", attention_mask_off_by_one, ["qkv"]),
    ("attention", attention_without_scale, ["qkv"]),
    ("gelu", gelu_wrong_constant, ["x"]),
    ("cross_entropy", cross_entropy_forgets_ignored, ["logits"]),
    ("residual_layernorm", residual_forgets_the_identity, ["x", "y"]),
    ("dropout", dropout_forgets_the_scale, ["x"]),
    ("lora_linear", lora_forgets_the_low_rank_branch, ["x"]),
    ("distillation_loss", distillation_squares_no_temperature, ["logits"]),
    ("distillation_loss", distillation_forgets_ignored, ["logits"]),
    ("dpo_loss", dpo_without_smoothing, ["chosen", "rejected"]),
    ("dpo_loss", dpo_rewards_the_rejected, ["rejected"]),
    ("grpo_loss", grpo_ignores_the_clip, ["logp"]),
]


def inputs_of(op):
    """Samples on which the planted bugs show: tokens repeat, some targets are ignored, linear's weight is square."""
    inputs = sample(op, "float64", Dims(B=3, T=6, V=5))
    if op == "linear":
        inputs |= {"weight": inputs["weight"][:, :8].copy(), "bias": inputs["bias"][:8].copy()}
    return inputs


@pytest.mark.parametrize("method", ["central", "complex"])
@pytest.mark.parametrize("op, wrong, names", PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_planted_bug_is_caught_and_named(op, wrong, names, method):
    """The reported element is the one where wrong and right differ most, and by as much as is reported."""
    forward, right = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
    inputs, seen = inputs_of(op), {}

    def backward(dout, cache):
        pairs = [grads if isinstance(grads, tuple) else (grads,) for grads in (wrong(dout, cache), right(dout, cache))]
        seen.update({name: (w - r, r) for name, w, r in zip(OPS[op].differentiable, *pairs)})
        return pairs[0]

    tolerance = TOLERANCES[method]
    with pytest.raises(GradcheckError) as caught:
        gradcheck(forward, backward, inputs, method=method, wrt=OPS[op].differentiable, **tolerance.both)
    failed = {row.name: row for row in caught.value.rows if not row.passed}
    assert list(failed) == names
    for name, row in failed.items():
        assert f"FAIL {name}{list(row.index)}" in str(caught.value)
        difference, exact = seen[name]
        assert row.error == pytest.approx(abs(difference[row.index]), rel=1e-4)
        relative = np.abs(difference) / (np.abs(exact) + tolerance.atol / tolerance.rtol)
        assert relative[row.index] >= 0.999 * relative.max()


def test_the_right_backwards_pass_on_the_same_inputs():
    """So the failures above are the planted bugs and nothing else."""
    for op in dict.fromkeys(op for op, _, _ in PLANTED):
        forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
        gradcheck(forward, backward, inputs_of(op), wrt=OPS[op].differentiable, **TOLERANCES["central"].both)


def test_forward_and_backward_that_disagree_on_the_mask():
    """The bug in the forward: it shows one future token, and the backward is that of the right mask."""
    def forward(qkv, n_head):
        q, k, v = split_heads(qkv, n_head)
        right = causal_softmax(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
        return merge_heads(shifted_probabilities(qkv, n_head, 1) @ v), (qkv, n_head, right)

    with pytest.raises(GradcheckError, match=r"FAIL qkv\["):
        gradcheck(forward, ops.attention_backward, inputs_of("attention"))


def test_ignored_rows_are_the_ones_named():
    """Forgetting ignore_index shows in an ignored row; assignment in the row of a repeated token."""
    inputs = inputs_of("cross_entropy")
    rows = gradcheck(ops.cross_entropy_forward, cross_entropy_forgets_ignored, inputs, raise_exception=False)
    assert inputs["targets"][rows[0].index[0]] == -1
    inputs = inputs_of("embedding")
    rows = gradcheck(ops.embedding_forward, embedding_by_assignment, inputs, raise_exception=False)
    assert (inputs["tokens"] == rows[0].index[0]).sum() > 1
