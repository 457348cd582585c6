"""A linear layer that stays as it is, with a small one beside it that learns: low-rank adaptation.

    out = x @ weight + bias + scale * h @ b,    h = drop(x) @ a        x (N, I), a (I, r), b (r, J), r small

weight and bias are frozen, so they have no gradient, no moments and no update: only r (I + J) numbers learn instead of
I J. With b = 0 at the start the layer is the frozen one. dout reaches x on both roads:

    dh = scale * dout @ b.T                     (N, r)
    da = drop(x).T @ dh,   db = scale * h.T @ dout
    dx = dout @ weight.T + drop(dh @ a.T)       dropout is linear, its mask the same both ways

Merged, weight + scale * a @ b is an ordinary layer again. Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1.
"""
from .checks import added, check_dout, check_dtype, check_rows, check_shape, rows
from .dropout import check_mask, scaled


def lora_linear_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0)):
    """x (..., I), weight (I, J), bias (J), a (I, r), b (r, J) -> out (..., J), cache.

    scale: alpha / r. p, key: dropout on the way to `a`, as in ops/dropout.py. Raises ValueError for shapes or dtypes that
    do not fit, for p outside [0, 1) and for a key that is not three words.
    """
    check_rows("x", x)
    check_shape("weight", weight, (x.shape[-1], None))
    check_shape("bias", bias, (weight.shape[1],))
    check_shape("a", a, (x.shape[-1], None))
    check_shape("b", b, (a.shape[1], weight.shape[1]))
    for name, array in (("weight", weight), ("bias", bias), ("a", a), ("b", b)):
        check_dtype(name, array, x.dtype)
    check_mask(p, key)
    dropped = rows(scaled(x, p, key) if p else x)                         # (N, I)
    h = dropped @ a                                                       # (N, I) @ (I, r) -> (N, r)
    out = rows(x) @ weight                                                # (N, I) @ (I, J) -> (N, J)
    out += bias
    out += (scale * h) @ b                                                # (N, r) @ (r, J) -> (N, J)
    return out.reshape(*x.shape[:-1], weight.shape[1]), (x, dropped, h, weight, a, b, scale, p, key)


def lora_linear_backward(dout, cache, into=None):
    """dout (..., J) -> dx (..., I), da (I, r), db (r, J). into: the last two, to add to instead of fresh arrays."""
    x, dropped, h, weight, a, b, scale, p, key = cache
    check_dout(dout, (*x.shape[:-1], weight.shape[1]), x.dtype)
    dh = scale * (rows(dout) @ b.T)                                       # (N, J) @ (J, r) -> (N, r)
    dx = (dh @ a.T).reshape(x.shape)                                      # (N, r) @ (r, I) -> (N, I)
    dx = scaled(dx, p, key) if p else dx
    dx += (rows(dout) @ weight.T).reshape(x.shape)                        # (N, J) @ (J, I) -> (N, I)
    return dx, *added(into, dropped.T @ dh, scale * (h.T @ rows(dout)))
