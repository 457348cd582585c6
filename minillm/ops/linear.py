"""Linear layer: a matmul of the rows of x with a weight, plus a bias.

    out[n, j] = sum over i of x[n, i] * weight[i, j]  +  bias[j]        x (N, I), weight (I, J), bias (J)

Nudge x[n, i]: every out[n, j] of that row moves by weight[i, j]. Nudge weight[i, j]: every row's out[n, j]
moves by x[n, i]. Nudge bias[j]: every row's out[n, j] moves by 1. The chain rule sums over what moved:

    dx[n, i]      = sum over j of dout[n, j] * weight[i, j]     ->  dx      = dout @ weight.T
    dweight[i, j] = sum over n of x[n, i] * dout[n, j]          ->  dweight = x.T @ dout
    dbias[j]      = sum over n of dout[n, j]                    ->  dbias   = sum over rows of dout

Shapes alone nearly force these: (N, J) @ (J, I), (I, N) @ (N, J). Each of the three matmuls costs 2*N*I*J FLOPs,
so a backward is two forwards. Leading axes of x, say (B, T), are just more rows: N = B*T.
The weight is stored (in, out), as GPT-2's Conv1D does, so that the forward needs no transpose.
"""
from .checks import added, check_dout, check_dtype, check_rows, check_shape, from_cache, rows
from .spec import FLOAT32, REAL, Spec, normals, on_gpu, wrong


def linear_forward(x, weight, bias):
    """x @ weight + bias: x (..., I), weight (I, J), bias (J) -> out (..., J), cache.

    Raises ValueError for shapes or dtypes that differ.
    """
    check_rows("x", x)
    check_shape("weight", weight, (x.shape[-1], None))
    check_shape("bias", bias, (weight.shape[1],))
    check_dtype("weight", weight, x.dtype)
    check_dtype("bias", bias, x.dtype)
    out = rows(x) @ weight                        # (N, I) @ (I, J) -> (N, J)
    out += bias
    return out.reshape(*x.shape[:-1], weight.shape[1]), (x, weight)


def linear_backward(dout, cache, into=None):
    """The gradients of linear_forward: dout (..., J), cache -> dx (..., I), dweight (I, J), dbias (J).

    into: the last two, to add to instead of fresh arrays.
    """
    x, weight = from_cache(cache, x="...I", weight="IJ")
    check_dout(dout, (*x.shape[:-1], weight.shape[1]), x.dtype)
    dx = rows(dout) @ weight.T                    # (N, J) @ (J, I) -> (N, I)
    dweight = rows(x).T @ rows(dout)              # (I, N) @ (N, J) -> (I, J)
    dbias = rows(dout).sum(axis=0)                # (N, J) -> (J)
    return dx.reshape(x.shape), *added(into, dweight, dbias)


def sample(rng, dtype, d):
    return normals(rng, dtype, x=(d.B, d.T, d.C), weight=(d.C, 4 * d.C), bias=(4 * d.C,))


SPEC = Spec(
    "linear", sample, differentiable=("x", "weight", "bias"),
    bad=wrong("weight", "flatter", "other_dtype", "shorter") + wrong("bias", "narrower", "other_dtype")
    + wrong("x", "narrower", error="weight"),
    flops=lambda d: (2 * d.B * d.T * d.C * (d.OC or 4 * d.C), 4 * d.B * d.T * d.C * (d.OC or 4 * d.C)),
    c=("out[B,T,OC] <- x[B,T,C] weight[C,OC] bias[OC]; B T C OC",
       "dx[B,T,C] dweight[C,OC]+= dbias[OC]+= <- dout[B,T,OC] x[B,T,C] weight[C,OC]; B T C OC"),
    # float32 arrays, matmuls in bfloat16: 4_amx is emulated where the CPU has no AMX
    kernels=dict.fromkeys(("cpu", "cpu/1_naive", "cpu/2_blocked", "cpu/3_simd"), REAL)
    | dict.fromkeys(("cpu/4_amx", "cpu/bf16"), FLOAT32)
    | on_gpu("3_mma", "4_wgmma", "bf16", dtypes=FLOAT32) | on_gpu("1_naive", "2_tiled"),
    torch=lambda torch, x, weight, bias: torch.nn.functional.linear(x, weight, bias), transposed=("weight",))
