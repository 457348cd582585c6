"""Wrong gradients, planted one by one: each is caught, and the failing tensor and element are named."""
import math

import numpy as np
import pytest
from cases import sample
from tolerances import TOLERANCES

from benchmarks.planted_ops import (
    attention_mask_off_by_one,
    attention_without_scale,
    cross_entropy_forgets_ignored,
    distillation_forgets_ignored,
    distillation_squares_no_temperature,
    dpo_rewards_the_rejected,
    dpo_without_smoothing,
    dropout_forgets_the_scale,
    embedding_by_assignment,
    gelu_wrong_constant,
    grpo_ignores_the_clip,
    layernorm_without_variance_term,
    linear_transposed,
    lora_forgets_the_low_rank_branch,
    lora_forgets_the_mask,
    lora_mlp_by,
    lora_projection_forgets_the_mask,
    residual_forgets_the_identity,
    shifted_probabilities,
)
from minillm import ops
from minillm.gradcheck import GradcheckError, gradcheck
from minillm.ops.attention import causal_softmax, merge_heads, split_heads
from minillm.ops.table import OPS, Dims

PLANTED = [   # op, wrong backward, the gradients that are wrong
    ("layernorm", layernorm_without_variance_term, ["x"]),
    ("embedding", embedding_by_assignment, ["wte"]),
    ("linear", linear_transposed, ["x"]),
    ("attention", attention_mask_off_by_one, ["qkv"]),
    ("attention", attention_without_scale, ["qkv"]),
    ("gelu", gelu_wrong_constant, ["x"]),
    ("cross_entropy", cross_entropy_forgets_ignored, ["logits"]),
    ("residual_layernorm", residual_forgets_the_identity, ["x", "y"]),
    ("dropout", dropout_forgets_the_scale, ["x"]),
    ("lora_linear", lora_forgets_the_low_rank_branch, ["x"]),
    ("lora_projection", lora_projection_forgets_the_mask, ["x"]),
    ("lora_mlp", lora_mlp_by(lora_linear_backward=lora_forgets_the_low_rank_branch), ["x", "fc_a", "fc_b"]),
    ("lora_mlp", lora_mlp_by(lora_linear_backward=lora_forgets_the_mask), ["x", "fc_a", "fc_b"]),
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
        for name, w, r in zip(OPS[op].differentiable, *pairs):          # of the first call: others have another dout
            seen.setdefault(name, (w - r, r))
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
