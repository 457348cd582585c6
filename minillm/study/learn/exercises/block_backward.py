"""A whole block of GPT-2, the backward.

Walk the forward back, and add where something was used twice.

    s1  = x  + linear(attention(linear(layernorm(x,  ln1), attn)), proj)
    out = s1 + mlp(layernorm(s1, ln2), fc, out)

Every part's backward is given, and the forward with the caches of its parts. x and s1 are each used twice: by the
residual and by a LayerNorm. The gradients come back in the order of the forward's arguments.
"""
from minillm.ops import (
    attention_backward,
    attention_forward,
    layernorm_backward,
    layernorm_forward,
    linear_backward,
    linear_forward,
    mlp_backward,
    mlp_forward,
)

from ..exercise import Exercise


def block_forward(x, ln1_weight, ln1_bias, attn_weight, attn_bias, proj_weight, proj_bias, ln2_weight, ln2_bias,
                  fc_weight, fc_bias, out_weight, out_bias, n_head):
    """x (B, T, C) and the parameters -> out (B, T, C), cache: that of each part, in order."""
    a, ln1 = layernorm_forward(x, ln1_weight, ln1_bias)
    qkv, attn = linear_forward(a, attn_weight, attn_bias)
    mixed, attention = attention_forward(qkv, n_head)
    projected, proj = linear_forward(mixed, proj_weight, proj_bias)
    s1 = x + projected
    b, ln2 = layernorm_forward(s1, ln2_weight, ln2_bias)
    h, mlp = mlp_forward(b, fc_weight, fc_bias, out_weight, out_bias)
    return s1 + h, (ln1, attn, attention, proj, ln2, mlp)


def block_backward(dout, cache):
    """dout (B, T, C), cache -> dx, then the parameters' gradients: weight and bias of ln1, attn, proj, ln2, fc, out."""
    ln1, attn, attention, proj, ln2, mlp = cache
    db, dfc_weight, dfc_bias, dout_weight, dout_bias = mlp_backward(dout, mlp)
    ds1, dln2_weight, dln2_bias = layernorm_backward(db, ln2)
    ds1 = ds1 + dout
    dmixed, dproj_weight, dproj_bias = linear_backward(ds1, proj)
    dqkv = attention_backward(dmixed, attention)
    da, dattn_weight, dattn_bias = linear_backward(dqkv, attn)
    dx, dln1_weight, dln1_bias = layernorm_backward(da, ln1)
    dx = dx + ds1
    return (dx, dln1_weight, dln1_bias, dattn_weight, dattn_bias, dproj_weight, dproj_bias, dln2_weight, dln2_bias,
            dfc_weight, dfc_bias, dout_weight, dout_bias)


def _inputs(rng):
    B, T, C, NH, F = ((2, 3, 4, 2, 5), (1, 2, 6, 3, 4))[rng.integers(2)]
    shapes = {"x": (B, T, C), "ln1_weight": C, "ln1_bias": C, "attn_weight": (C, 3 * C), "attn_bias": 3 * C,
              "proj_weight": (C, C), "proj_bias": C, "ln2_weight": C, "ln2_bias": C, "fc_weight": (C, F), "fc_bias": F,
              "out_weight": (F, C), "out_bias": C}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()} | {"n_head": NH}


EXERCISE = Exercise(
    __file__, inputs=_inputs, solve=("block_backward",),
    needs=("block_forward", "residual_layernorm", "attention_backward", "mlp"),
    hints=(
        "out = s1 + h: dout reaches both. The MLP's backward takes it first: db, dfc_weight, dfc_bias, dout_weight, "
        "dout_bias = mlp_backward(dout, mlp).",
        "b = layernorm(s1): layernorm_backward(db, ln2) gives one part of ds1, and two parameters. The other part is "
        "dout itself, by the residual: add it.",
        "s1 = x + projected: ds1 reaches both. Walk the attention half back on it: linear, attention, linear.",
        "a = layernorm(x): layernorm_backward(da, ln1) gives one part of dx; the other is ds1, by the residual.",
        "Return thirteen gradients, in the order of block_forward's arguments.",
    ),
    mistakes=(
        ("    ds1 = ds1 + dout\n", "",
         "lacks dout at s1: out = s1 + mlp(...), so the residual brings dout to s1 as well"),
        ("    dx = dx + ds1\n", "", "lacks ds1: s1 = x + ..., so the residual brings ds1 to x as well"),
        ("    dx = dx + ds1\n", "    dx = dx + dout\n",
         "has dout added where ds1 belongs: the MLP's part is missing in it"),
        ("    ds1 = ds1 + dout\n", "    ds1 = dout\n", "lacks the way through the second LayerNorm and the MLP"),
        ("    dx = dx + ds1\n", "    dx = ds1\n", "lacks the way through the first LayerNorm and attention"),
        ("linear_backward(ds1, proj)", "linear_backward(dout, proj)", "is made from dout where ds1 belongs"),
        ("    dqkv = attention_backward(dmixed, attention)\n",
         "    dqkv = attention_backward(dmixed[:, ::-1], attention)\n",
         "has the tokens in reverse order"),
    ))
