"""The MLP of a transformer block: expand to 4C, GELU, project back to C, for each token by itself.

    h = x @ fc_weight + fc_bias            (N, C)  -> (N, 4C)     `linear`
    a = gelu(h)                            (N, 4C) -> (N, 4C)     `gelu`
    out = a @ proj_weight + proj_bias      (N, 4C) -> (N, C)      `linear`

A composition f3(f2(f1(x))) is walked back in reverse, each step handing its input's gradient to the one before:

    dproj_weight = a.T @ dout       dproj_bias = sum over rows of dout       da = dout @ proj_weight.T
    dh = gelu_backward(da)
    dfc_weight = x.T @ dh           dfc_bias = sum over rows of dh           dx = dh @ fc_weight.T

Nothing new is derived here; that is the point of backpropagation. `ops` is the namespace the two smaller ops are
taken from, so the same page serves every backend.
"""
from types import SimpleNamespace

from . import gelu, linear
from .checks import check_dtype, check_rows, check_shape, from_cache
from .spec import CPU, FLOAT32, Spec, normals, on_gpu, wrong

REFERENCE = SimpleNamespace(**{**vars(linear), **vars(gelu)})


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, ops=REFERENCE):
    """linear, GELU, linear: x (..., C), fc_weight (C, F), fc_bias (F), proj_weight (F, C), proj_bias (C) -> out, cache.

    out has the shape of x. Raises ValueError for shapes or dtypes that differ. ops: the namespace of the smaller ops.
    """
    check_rows("x", x)
    check_shape("fc_weight", fc_weight, (x.shape[-1], None))
    check_shape("fc_bias", fc_bias, (fc_weight.shape[1],))
    check_shape("proj_weight", proj_weight, (fc_weight.shape[1], None))
    check_shape("proj_bias", proj_bias, (proj_weight.shape[1],))
    for name, array in (("fc_weight", fc_weight), ("fc_bias", fc_bias), ("proj_weight", proj_weight),
                        ("proj_bias", proj_bias)):
        check_dtype(name, array, x.dtype)
    h, fc_cache = ops.linear_forward(x, fc_weight, fc_bias)              # (..., F)
    a, gelu_cache = ops.gelu_forward(h)                                  # (..., F)
    out, proj_cache = ops.linear_forward(a, proj_weight, proj_bias)      # (..., C)
    return out, (fc_cache, gelu_cache, proj_cache)


def mlp_backward(dout, cache, into=None, ops=REFERENCE):
    """The gradients of mlp_forward: dout (..., C), cache -> dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias.

    into: the last four, to add to instead of fresh arrays.
    """
    fc_cache, gelu_cache, proj_cache = from_cache(cache, fc_cache=tuple, gelu_cache=tuple, proj_cache=tuple)
    da, dproj_weight, dproj_bias = ops.linear_backward(dout, proj_cache, into=into and into[2:])
    dh = ops.gelu_backward(da, gelu_cache)
    dx, dfc_weight, dfc_bias = ops.linear_backward(dh, fc_cache, into=into and into[:2])
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias


def torch_mlp(torch, x, fc_weight, fc_bias, proj_weight, proj_bias):
    F = torch.nn.functional
    return F.linear(F.gelu(F.linear(x, fc_weight, fc_bias), approximate="tanh"), proj_weight, proj_bias)


SPEC = Spec(
    "mlp", differentiable=("x", "fc_weight", "fc_bias", "proj_weight", "proj_bias"), composite=True,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), fc_weight=(d.C, 4 * d.C), fc_bias=(4 * d.C,),
                                         proj_weight=(4 * d.C, d.C), proj_bias=(d.C,)),
    bad=wrong("fc_weight", "flatter", "shorter", "other_dtype") + wrong("fc_bias", "narrower", "other_dtype")
    + wrong("proj_weight", "flatter", "shorter", "other_dtype") + wrong("proj_bias", "narrower", "other_dtype")
    + wrong("x", "narrower", error="fc_weight"),
    flops=lambda d: (4 * d.B * d.T * d.C * (d.OC or 4 * d.C), 8 * d.B * d.T * d.C * (d.OC or 4 * d.C)),
    c=("out[B,T,C] h[B,T,OC] <- x[B,T,C] fc_weight[C,OC] fc_bias[OC] proj_weight[OC,C] proj_bias[C]; B T C OC",
       "dx[B,T,C] dfc_weight[C,OC]+= dfc_bias[OC]+= dproj_weight[OC,C]+= dproj_bias[C]+= <- "
       "dout[B,T,C] x[B,T,C] h[B,T,OC] fc_weight[C,OC] proj_weight[OC,C]; B T C OC"),
    kept=lambda args, cache: {"h": cache[1][0]},
    kernels=CPU | {"cpu/bf16": FLOAT32} | on_gpu("bf16", dtypes=FLOAT32) | on_gpu(),
    torch=torch_mlp, transposed=("fc_weight", "proj_weight"))
