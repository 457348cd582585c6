"""Linear layer: every row of x times one matrix, plus one vector.

    out[n, j] = sum over i of x[n, i] * weight[i, j]  +  bias[j]        x (N, I), weight (I, J), bias (J)

Nudge x[n, i]: every out[n, j] of that row moves by weight[i, j]. Nudge weight[i, j]: every row's out[n, j]
moves by x[n, i]. Nudge bias[j]: every row's out[n, j] moves by 1. The chain rule sums over what moved:

    dx[n, i]      = sum over j of dout[n, j] * weight[i, j]     ->  dx      = dout @ weight.T
    dweight[i, j] = sum over n of x[n, i] * dout[n, j]          ->  dweight = x.T @ dout
    dbias[j]      = sum over n of dout[n, j]                    ->  dbias   = dout.sum(0)

Shapes alone nearly force these: (N, J) @ (J, I), (I, N) @ (N, J). Each of the three products costs 2*N*I*J FLOPs,
so a backward is two forwards. Leading axes of x, say (B, T), are just more rows: N = B*T.
The weight is stored (in, out), as GPT-2's Conv1D does, so that the forward needs no transpose.
"""
from .checks import added, check_dout, check_dtype, check_rows, check_shape, rows


def linear_forward(x, weight, bias):
    """x (..., I), weight (I, J), bias (J) -> out (..., J), cache. Raises ValueError for shapes or dtypes that differ."""
    check_rows("x", x)
    check_shape("weight", weight, (x.shape[-1], None))
    check_shape("bias", bias, (weight.shape[1],))
    check_dtype("weight", weight, x.dtype)
    check_dtype("bias", bias, x.dtype)
    out = rows(x) @ weight                        # (N, I) @ (I, J) -> (N, J)
    out += bias
    return out.reshape(*x.shape[:-1], weight.shape[1]), (x, weight)


def linear_backward(dout, cache, into=None):
    """dout (..., J) -> dx (..., I), dweight (I, J), dbias (J). into: the last two, to add to instead of fresh arrays."""
    x, weight = cache
    check_dout(dout, (*x.shape[:-1], weight.shape[1]), x.dtype)
    dx = rows(dout) @ weight.T                    # (N, J) @ (J, I) -> (N, I)
    dweight = rows(x).T @ rows(dout)              # (I, N) @ (N, J) -> (I, J)
    dbias = rows(dout).sum(axis=0)                # (N, J) -> (J)
    return dx.reshape(x.shape), *added(into, dweight, dbias)
