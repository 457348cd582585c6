"""Layer normalisation: centre and scale each row, then give it a learned scale and shift.

For one row x of C numbers:

    mean = sum(x) / C        var = sum((x - mean)^2) / C        rstd = 1 / sqrt(var + eps)
    xhat = (x - mean) * rstd                                    out  = xhat * weight + bias

Every row uses weight and bias, so their gradients are sums over rows; and let g be the gradient at xhat:

    dbias = sum over rows of dout            dweight = sum over rows of dout * xhat            g = dout * weight

x reaches the loss along three ways:

    directly:          g * rstd
    through the mean:  dmean/dx = 1 / C                 ->  -rstd * mean(g)
    through rstd:      drstd/dx = -rstd^2 * xhat / C    ->  -rstd * xhat * mean(g * xhat)   as   x - mean = xhat / rstd

(the mean inside var adds nothing: sum(x - mean) = 0). Together:

    dx = rstd * (g - mean(g) - xhat * mean(g * xhat))

So dx is g with its component along 1 and along xhat taken out: moving x along either changes nothing in xhat.
Source: Ba, Kiros, Hinton 2016, arXiv 1607.06450. Cached: x, mean and rstd (two numbers a row); xhat is cheap.
"""
import math

from .checks import added, check_dout, check_dtype, check_number, check_rows, check_shape, from_cache, rows
from .spec import CPU, GPU, Spec, normals, wrong


def layernorm_forward(x, weight, bias, eps=1e-5):
    """Normalise each row, then scale and shift it (Ba et al. 2016).

    x (..., C), weight (C), bias (C) -> out (..., C), cache. Raises ValueError for shapes or dtypes that differ, for
    rows of no numbers and unless 0 < eps < infinity.
    """
    check_rows("x", x)
    if not x.shape[-1]:
        raise ValueError(f"x must have at least one number a row: got {x.shape}")
    for name, array in (("weight", weight), ("bias", bias)):
        check_shape(name, array, (x.shape[-1],))
        check_dtype(name, array, x.dtype)
    check_number("eps", eps, is_eps, "a number above 0")
    mean = x.mean(axis=-1, keepdims=True)                            # (..., 1)
    centred = x - mean
    var = (centred * centred).mean(axis=-1, keepdims=True)           # (..., 1)
    rstd = (var + float(eps)) ** -0.5
    return centred * rstd * weight + bias, (x, weight, mean, rstd)


def layernorm_backward(dout, cache, into=None):
    """The gradients of layernorm_forward: dout (..., C), cache -> dx (..., C), dweight (C), dbias (C).

    into: the last two, to add to instead of fresh arrays.
    """
    x, weight, mean, rstd = from_cache(cache, x="...C", weight="C", mean="...1", rstd="...1")
    check_dout(dout, x.shape, x.dtype)
    xhat = (x - mean) * rstd                                         # (..., C)
    dbias = rows(dout).sum(axis=0)                                   # (N, C) -> (C)
    dweight = rows(dout * xhat).sum(axis=0)
    g = dout * weight
    dx = g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True)
    return dx * rstd, *added(into, dweight, dbias)


def is_eps(eps):
    return 0 < eps < math.inf


NO_EPS = (0.0, -1e-5, math.nan, math.inf)

SPEC = Spec(
    "layernorm", differentiable=("x", "weight", "bias"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), weight=(d.C,), bias=(d.C,)) | {"eps": 1e-5},
    bad=wrong("weight", "narrower", "other_dtype") + wrong("bias", "narrower", "other_dtype")
    + wrong("x", "narrower", error="weight") + wrong("eps", *NO_EPS),
    flops=lambda d: (8 * d.B * d.T * d.C, 12 * d.B * d.T * d.C),
    c=("out[B,T,C] mean[B,T] rstd[B,T] <- x[B,T,C] weight[C] bias[C]; B T C",
       "dx[B,T,C] dweight[C]+= dbias[C]+= <- dout[B,T,C] x[B,T,C] weight[C] mean[B,T] rstd[B,T]; B T C"),
    kept=lambda args, cache: {"mean": cache[2][..., 0], "rstd": cache[3][..., 0]},
    torch=lambda torch, x, weight, bias, eps: torch.nn.functional.layer_norm(x, weight.shape, weight, bias, eps))
