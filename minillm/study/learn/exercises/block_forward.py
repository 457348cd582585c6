"""A whole block of GPT-2, the forward.

Attention and MLP, each behind a LayerNorm, each added to the residual stream.

    s1  = x  + linear(attention(linear(layernorm(x,  ln1), attn)), proj)
    out = s1 + mlp(layernorm(s1, ln2), fc, out)

Every part is given. LayerNorm stands before each sublayer ("pre-LN"), so the residual stream itself runs through the
whole network without one. Parameters come as a dict: "ln1.weight", "ln1.bias", "attn.weight" (C, 3C), "attn.bias",
"proj.weight" (C, C), "proj.bias", "ln2.weight", "ln2.bias", "fc.weight" (C, F), "fc.bias", "out.weight" (F, C),
"out.bias".
"""
import numpy as np

from minillm.ops import attention_forward, layernorm_forward, linear_forward, mlp_forward

from ..exercise import Exercise


def block_forward(x, p, n_head):
    """x (B, T, C), p: the dict of parameters, n_head int -> out (B, T, C)."""
    a, _ = layernorm_forward(x, p["ln1.weight"], p["ln1.bias"])
    qkv, _ = linear_forward(a, p["attn.weight"], p["attn.bias"])
    mixed, _ = attention_forward(qkv, n_head)
    projected, _ = linear_forward(mixed, p["proj.weight"], p["proj.bias"])
    s1 = x + projected
    b, _ = layernorm_forward(s1, p["ln2.weight"], p["ln2.bias"])
    h, _ = mlp_forward(b, p["fc.weight"], p["fc.bias"], p["out.weight"], p["out.bias"])
    return s1 + h


def _parameters(rng, C, F):
    shapes = {"ln1.weight": C, "ln1.bias": C, "attn.weight": (C, 3 * C), "attn.bias": 3 * C, "proj.weight": (C, C),
              "proj.bias": C, "ln2.weight": C, "ln2.bias": C, "fc.weight": (C, F), "fc.bias": F, "out.weight": (F, C),
              "out.bias": C}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def _cases(rng):
    return {"block_forward": [(rng.standard_normal((B, T, C)), _parameters(rng, C, 3 * C), NH)
                              for B, T, C, NH in ((2, 3, 4, 2), (1, 1, 6, 3), (3, 5, 6, 1))]}


def _as_the_model(yours, rng):
    """The block of minillm's own GPT."""
    from ....config import GPTConfig
    from ....models.gpt2 import GPT
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=6, vocab_size=11, dropout=0.0), dtype=np.float64)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.size)
    w, tokens = model.params, rng.integers(0, 11, (2, 6))
    ours = {"ln1": "ln_1", "attn": "attn.c_attn", "proj": "attn.c_proj", "ln2": "ln_2", "fc": "mlp.c_fc",
            "out": "mlp.c_proj"}
    p = {f"{name}.{kind}": w[f"h.0.{there}.{kind}"] for name, there in ours.items() for kind in ("weight", "bias")}
    x = yours.block_forward(w["wte.weight"][tokens] + w["wpe.weight"], p, 2)
    xhat = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    logits = (xhat * w["ln_f.weight"] + w["ln_f.bias"]) @ w["wte.weight"].T
    difference = np.abs(logits - model.forward(tokens)[0]).max()
    assert difference < 1e-9, difference
    return f"minillm's own GPT of one block has the same logits, to {difference:.0e}"


EXERCISE = Exercise(
    __file__, cases=_cases, checks=(("as in the model", _as_the_model),), solve=("block_forward",),
    needs=("residual", "layernorm_forward", "attention_forward", "mlp"),
    hints=(
        "Each given forward returns (out, cache): take the first.",
        "The attention half: layernorm x, a linear to 3C numbers a token, attention, a linear back. Four calls.",
        "Then the residual: s1 = x + that; x itself, not its LayerNorm.",
        "The MLP half: layernorm s1, mlp. Then out = s1 + that.",
    ),
    mistakes=(
        ("return s1 + h", "return h", "the residual around the MLP is missing: out = s1 + mlp(...)"),
        ("s1 = x + projected", "s1 = projected", "the residual around attention is missing: s1 = x + ..."),
        ("s1 = x + projected", "s1 = a + projected", "the LayerNorm of x is added where x itself goes on"),
        ("return s1 + h", "return x + h", "x is added at the end where s1 goes on"),
        ("return s1 + h", "return b + h", "the LayerNorm of s1 is added where s1 itself goes on"),
        ("layernorm_forward(s1, p", "layernorm_forward(x, p",
         "the second LayerNorm takes s1, after attention was added"),
        ('linear_forward(a, p["attn', 'linear_forward(x, p["attn', "the first LayerNorm is left out"),
        ("mlp_forward(b, ", "mlp_forward(s1, ", "the second LayerNorm is left out"),
        ('linear_forward(mixed, p["proj.weight"], p["proj.bias"])', "(mixed, None)",
         "the linear layer after attention is left out"),
    ))
