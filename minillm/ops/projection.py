"""Projection: a linear layer whose weight is stored (out, in), and whose bias may be missing.

    out[n, j] = sum over i of x[n, i] * weight[j, i]  +  bias[j]        x (N, I), weight (J, I), bias (J)

The same layer as in linear.py with the weight transposed, as PyTorch's Linear and so the files of Llama and its kin
hold it:

    dx = dout @ weight          dweight = dout.T @ x          dbias = sum over rows of dout

The gradient has the weight's own layout. Nothing is transposed in memory: a GEMM may read either operand by columns.
"""
from .checks import added, check_dout, check_dtype, check_rows, check_shape, from_cache, rows
from .spec import FLOAT32, REAL, Spec, normals, on_gpu, wrong


def projection_forward(x, weight, bias=None):
    """x @ weight.T + bias: x (..., I), weight (J, I), bias (J) or None -> out (..., J), cache.

    Raises ValueError for shapes or dtypes that differ.
    """
    check_rows("x", x)
    check_shape("weight", weight, (None, x.shape[-1]))
    check_dtype("weight", weight, x.dtype)
    out = rows(x) @ weight.T                      # (N, I) @ (I, J) -> (N, J)
    if bias is not None:
        check_shape("bias", bias, (len(weight),))
        check_dtype("bias", bias, x.dtype)
        out += bias
    return out.reshape(*x.shape[:-1], len(weight)), (x, weight)


def projection_backward(dout, cache, into=None):
    """The gradients of projection_forward: dout (..., J), cache -> dx (..., I), dweight (J, I), dbias (J).

    into: the last two, to add to instead of fresh arrays; None in the place of one that is not wanted.
    """
    x, weight = from_cache(cache, x="...I", weight="JI")
    check_dout(dout, (*x.shape[:-1], len(weight)), x.dtype)
    dx = rows(dout) @ weight                      # (N, J) @ (J, I) -> (N, I)
    dweight = rows(dout).T @ rows(x)              # (J, N) @ (N, I) -> (J, I)
    dbias = rows(dout).sum(axis=0)                # (N, J) -> (J)
    return dx.reshape(x.shape), *added(into, dweight, dbias)


SPEC = Spec(
    "projection", differentiable=("x", "weight", "bias"),
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), weight=(4 * d.C, d.C), bias=(4 * d.C,)),
    bad=wrong("weight", "flatter", "other_dtype", "narrower") + wrong("bias", "narrower", "other_dtype")
    + wrong("x", "narrower", error="weight"),
    flops=lambda d: (2 * d.B * d.T * d.C * (d.OC or 4 * d.C), 4 * d.B * d.T * d.C * (d.OC or 4 * d.C)),
    c=("out[B,T,OC] <- x[B,T,C] weight[OC,C] bias[OC]; B T C OC",
       "dx[B,T,C] dweight[OC,C]+= dbias[OC]+= <- dout[B,T,OC] x[B,T,C] weight[OC,C]; B T C OC"),
    kernels={"cpu": REAL, "cpu/bf16": FLOAT32} | on_gpu("bf16", dtypes=FLOAT32) | on_gpu(),
    torch=lambda torch, x, weight, bias: torch.nn.functional.linear(x, weight, bias))
