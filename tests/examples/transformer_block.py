"""One pre-norm transformer block out of op pairs: the forward, and the backward that walks it back line for line.

    h   = x + proj(attention(qkv(layernorm(x))))
    out = h + mlp(layernorm(h))
"""
import numpy as np

from minillm import gradcheck, select

B, T, C, NH = 2, 5, 8, 2
ops = select("numpy")                                               # "auto" takes the compiled kernels


def block_forward(x, w1, b1, qkv_w, qkv_b, proj_w, proj_b, w2, b2, fc_w, fc_b, out_w, out_b):
    n1, norm1 = ops.layernorm_forward(x, w1, b1)                    # (B, T, C)
    qkv, linear1 = ops.linear_forward(n1, qkv_w, qkv_b)             # (B, T, 3C)
    heads, attention = ops.attention_forward(qkv, NH)               # (B, T, C)
    attended, linear2 = ops.linear_forward(heads, proj_w, proj_b)   # (B, T, C), the sublayer's output
    h = x + attended                                                # the residual stream
    n2, norm2 = ops.layernorm_forward(h, w2, b2)
    changed, mlp = ops.mlp_forward(n2, fc_w, fc_b, out_w, out_b)    # C -> 4C -> C
    return h + changed, (norm1, linear1, attention, linear2, norm2, mlp)


def block_backward(dout, cache):
    norm1, linear1, attention, linear2, norm2, mlp = cache
    dn2, dfc_w, dfc_b, dout_w, dout_b = ops.mlp_backward(dout, mlp)
    dh, dw2, db2 = ops.layernorm_backward(dn2, norm2)
    dh = dout + dh                                                  # h goes two ways, so its gradients add up
    dheads, dproj_w, dproj_b = ops.linear_backward(dh, linear2)
    dqkv = ops.attention_backward(dheads, attention)
    dn1, dqkv_w, dqkv_b = ops.linear_backward(dqkv, linear1)
    dx, dw1, db1 = ops.layernorm_backward(dn1, norm1)
    return dh + dx, dw1, db1, dqkv_w, dqkv_b, dproj_w, dproj_b, dw2, db2, dfc_w, dfc_b, dout_w, dout_b


shapes = {"x": (B, T, C), "w1": (C,), "b1": (C,), "qkv_w": (C, 3 * C), "qkv_b": (3 * C,), "proj_w": (C, C),
          "proj_b": (C,), "w2": (C,), "b2": (C,), "fc_w": (C, 4 * C), "fc_b": (4 * C,), "out_w": (4 * C, C),
          "out_b": (C,)}
rng = np.random.default_rng(0)
gradcheck(block_forward, block_backward, {name: rng.standard_normal(shape) for name, shape in shapes.items()},
          samples=20, rtol=1e-5, atol=1e-6)
