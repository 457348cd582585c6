"""LoRA: a frozen layer and a low-rank update.

To fine-tune a large model, leave each weight (I, J) as it is and learn a correction of rank r, the product of a (I, r)
and b (r, J): r (I + J) numbers instead of I J. At the start b is 0, and the layer is the old one.

    h   = x @ a                                                    (..., r)
    out = x @ weight + bias + scale * h @ b                        (..., J)

weight and bias are constants: they get no gradient. x may have leading axes, say (B, T, I).

Write both: lora_linear_forward returns out and a cache of your own, and lora_linear_backward, from dout (..., J) and
the cache, the gradients dx (..., I), da (I, r) and db (r, J). x reaches out along two ways. h is small: multiply in the
order that never makes an (I, J) matrix of a and b.

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
"""
from ....ops.spec import normals
from ..exercise import Exercise


def lora_linear_forward(x, weight, bias, a, b, scale=1.0):
    """x (..., I), weight (I, J), bias (J,), a (I, r), b (r, J) -> out (..., J), cache."""
    h = x @ a                                                    # (..., I) @ (I, r) -> (..., r)
    out = x @ weight + bias + (scale * h) @ b
    return out, (x, h, weight, a, b, scale)


def lora_linear_backward(dout, cache):
    """dout (..., J), cache -> dx (..., I), da (I, r), db (r, J)."""
    x, h, weight, a, b, scale = cache
    dh = scale * (dout @ b.T)                                    # (..., J) @ (J, r) -> (..., r)
    dx = dout @ weight.T + dh @ a.T                              # both ways, each (..., I)
    rank = a.shape[1]
    da = x.reshape(-1, x.shape[-1]).T @ dh.reshape(-1, rank)     # (I, N) @ (N, r) -> (I, r)
    db = scale * (h.reshape(-1, rank).T @ dout.reshape(-1, dout.shape[-1]))      # (r, N) @ (N, J) -> (r, J)
    return dx, da, db


def _inputs(rng):
    args = normals(rng, "float64", x=(2, 5, 6), weight=(6, 8), bias=8, a=(6, 3), b=(3, 8))
    return args | {"scale": 0.7}


EXERCISE = Exercise(
    __file__, solve=("lora_linear_forward", "lora_linear_backward"), needs=("linear_backward", "adamw"),
    inputs=_inputs, wrt=("x", "a", "b"),
    hints=("Without the update it is a linear layer: x @ weight + bias. Add scale * (x @ a) @ b, h = x @ a first: "
           "(N, I) @ (I, r) and (N, r) @ (r, J) are cheap, a @ b is not.",
           "Let u = h @ b. out depends on u by the factor scale, so the gradient at u is scale * dout.",
           "u = h @ b is a linear layer in h with weight b: dh = scale * dout @ b.T, db = h.T @ (scale * dout), rows "
           "flattened.",
           "h = x @ a is one in x with weight a: da = x.T @ dh, and along this way dx gets dh @ a.T.",
           "Along the frozen way dx gets dout @ weight.T. Add the two."),
    mistakes=(
        ("dx = dout @ weight.T + dh @ a.T", "dx = dout @ weight.T",
         "the way through the update is missing: x reaches out through a and b, too"),
        ("dx = dout @ weight.T + dh @ a.T", "dx = dh @ a.T",
         "the way through the frozen weight is missing: frozen means that weight has no gradient, x has one"),
        ("dh = scale * (dout @ b.T)", "dh = dout @ b.T", "scale is missing on the way back through the update"),
        ("db = scale * (h", "db = (h", "scale is missing: out depends on b by scale * h"),
        ("db = scale * (h", "db = scale ** 2 * (h", "scale is in it twice: once when h was scaled, and again"),
        ("out = x @ weight + bias + (scale * h) @ b", "out = x @ weight + bias + h @ b",
         "the update is not multiplied by scale"),
        ("out = x @ weight + bias + (scale * h) @ b", "out = x @ weight + (scale * h) @ b", "the bias is not added"),
        ("out = x @ weight + bias + (scale * h) @ b", "out = scale * (x @ weight + bias + h @ b)",
         "scale multiplies the update only, not the frozen layer"),
        ("out = x @ weight + bias + (scale * h) @ b", "out = (scale * h) @ b", "the frozen layer is missing")))
