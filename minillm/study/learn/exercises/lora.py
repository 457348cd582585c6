"""LoRA: a frozen linear layer plus a trainable low-rank update.

To fine-tune a large model, leave each weight (I, J) as it is and learn a correction of rank r, the product of a (I, r)
and b (r, J): r (I + J) numbers instead of I J. At the start b is 0, and the layer is the old one.

    h   = x @ a                                                    (..., r)
    out = x @ weight + bias + scale * h @ b                        (..., J)

weight and bias are constants: they get no gradient. x may have leading axes, say (B, T, I).

Write both: lora_linear_forward returns out and a cache of your own, and lora_linear_backward, from dout (..., J) and the
cache, the gradients dx (..., I), da (I, r) and db (r, J). x reaches out along two ways. h is small: multiply in the order
that never makes an (I, J) matrix of a and b.

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
"""
from ....ops import lora_linear
from ....ops.spec import normals
from ..exercise import Exercise
from ..rules import tried


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
