"""RMSNorm: scale each row to a root mean square of 1, then give it a learned scale.

It is layernorm.py without the mean. For one row x of C numbers:

    rstd = 1 / sqrt(sum(x^2) / C + eps)        xhat = x * rstd        out = xhat * weight

Every row uses weight, so its gradient is a sum over rows; and let g be the gradient at xhat:

    dweight = sum over rows of dout * xhat            g = dout * weight

x reaches the loss along two ways:

    directly:          g * rstd
    through rstd:      drstd/dx = -rstd^2 * xhat / C    ->  -rstd * xhat * mean(g * xhat)

Together:

    dx = rstd * (g - xhat * mean(g * xhat))

So dx is g with its component along xhat taken out: making x longer changes nothing in xhat. Nothing takes the mean
away, and no bias puts one back, which saves a pass and is as good in large models.
Source: Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4. Cached: x and rstd (a number a row).
"""
from .checks import added, check_dout, check_dtype, check_number, check_rows, check_shape, from_cache, rows
from .layernorm import NO_EPS, is_eps
from .spec import CPU, GPU, Spec, normals, wrong


def rmsnorm_forward(x, weight, eps=1e-6):
    """Scale each row to root mean square 1, then by weight (Zhang & Sennrich 2019, eq. 4).

    x (..., C), weight (C) -> out (..., C), cache. Raises ValueError for shapes or dtypes that differ, for rows of no
    numbers and unless 0 < eps < infinity.
    """
    check_rows("x", x)
    if not x.shape[-1]:
        raise ValueError(f"x must have at least one number a row: got {x.shape}")
    check_shape("weight", weight, (x.shape[-1],))
    check_dtype("weight", weight, x.dtype)
    check_number("eps", eps, is_eps, "a number above 0")
    rstd = ((x * x).mean(axis=-1, keepdims=True) + float(eps)) ** -0.5          # (..., 1)
    return x * rstd * weight, (x, weight, rstd)


def rmsnorm_backward(dout, cache, into=None):
    """The gradients of rmsnorm_forward: dout (..., C), cache -> dx (..., C), dweight (C).

    into: (dweight,) to add to instead of a fresh array.
    """
    x, weight, rstd = from_cache(cache, x="...C", weight="C", rstd="...1")
    check_dout(dout, x.shape, x.dtype)
    xhat = x * rstd                                                  # (..., C)
    dweight = rows(dout * xhat).sum(axis=0)                          # (N, C) -> (C)
    g = dout * weight
    dx = rstd * (g - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    return dx, *added(into, dweight)


def torch_rmsnorm(torch, x, weight, eps):
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


SPEC = Spec(
    "rmsnorm", differentiable=("x", "weight"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), weight=(d.C,)) | {"eps": 1e-6},
    bad=wrong("weight", "narrower", "other_dtype") + wrong("x", "narrower", error="weight") + wrong("eps", *NO_EPS),
    flops=lambda d: (4 * d.B * d.T * d.C, 8 * d.B * d.T * d.C),
    c=("out[B,T,C] rstd[B,T] <- x[B,T,C] weight[C]; B T C",
       "dx[B,T,C] dweight[C]+= <- dout[B,T,C] x[B,T,C] weight[C] rstd[B,T]; B T C"),
    kept=lambda args, cache: {"rstd": cache[2][..., 0]}, torch=torch_rmsnorm)
