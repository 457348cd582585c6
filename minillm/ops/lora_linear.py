"""Low-rank adaptation (LoRA): a frozen linear layer plus a trainable low-rank update.

    h = drop(x) @ a                                                   x (N, I), a (I, r), b (r, J), r small
    out = x @ weight + bias + scale * h @ b

weight and bias (of linear.py) are frozen, so they have no gradient, no moments and no update: only r (I + J) numbers
learn instead of I J. With b = 0 at the start the layer is the frozen one. dout reaches x through both branches:

    dh = scale * dout @ b.T                     (N, r)
    da = drop(x).T @ dh,   db = scale * h.T @ dout
    dx = dout @ weight.T + drop(dh @ a.T)       dropout is linear, its mask the same both ways

Merged, weight + scale * a @ b is an ordinary layer again. Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1.
"""
from . import linear
from .checks import added, check_dout, check_dtype, check_number, check_rows, check_shape, from_cache, rows
from .dropout import check_mask, scaled
from .spec import CPU, FLOAT32, Spec, normals, on_gpu, wrong


def lora_linear_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0)):
    """A frozen linear layer plus scale * drop(x) @ a @ b (Hu et al. 2021, section 4.1).

    x (..., I), weight (I, J), bias (J), a (I, r), b (r, J) -> out (..., J), cache. scale: alpha / r. p, key: dropout on
    the way to `a`, as in ops/dropout.py. Raises ValueError for shapes or dtypes that do not fit, for p outside [0, 1)
    and for a key that is not three words.
    """
    check_rows("x", x)
    check_shape("weight", weight, (x.shape[-1], None))
    check_shape("bias", bias, (weight.shape[1],))
    check_shape("a", a, (x.shape[-1], None))
    check_shape("b", b, (a.shape[1], weight.shape[1]))
    for name, array in (("weight", weight), ("bias", bias), ("a", a), ("b", b)):
        check_dtype(name, array, x.dtype)
    check_number("scale", scale, lambda scale: True, "a number")
    check_mask(p, key)
    dropped = rows(scaled(x, p, key) if p else x)                         # (N, I)
    h = dropped @ a                                                       # (N, I) @ (I, r) -> (N, r)
    out = rows(x) @ weight                                                # (N, I) @ (I, J) -> (N, J)
    out += bias
    out += (scale * h) @ b                                                # (N, r) @ (r, J) -> (N, J)
    return out.reshape(*x.shape[:-1], weight.shape[1]), (x, dropped, h, weight, a, b, scale, p, tuple(key))


def lora_linear_backward(dout, cache, into=None):
    """The gradients of lora_linear_forward: dout (..., J), cache -> dx (..., I), da (I, r), db (r, J).

    into: the last two, to add to instead of fresh arrays.
    """
    x, dropped, h, weight, a, b, scale, p, key = from_cache(
        cache, x="...I", dropped="NI", h="Nr", weight="IJ", a="Ir", b="rJ", scale=float, p=float, key=tuple)
    check_mask(p, key)
    check_shape("cached dropped", dropped, rows(x).shape)
    check_dout(dout, (*x.shape[:-1], weight.shape[1]), x.dtype)
    dh = scale * (rows(dout) @ b.T)                                       # (N, J) @ (J, r) -> (N, r)
    dx = (dh @ a.T).reshape(x.shape)                                      # (N, r) @ (r, I) -> (N, I)
    dx = scaled(dx, p, key) if p else dx
    dx += (rows(dout) @ weight.T).reshape(x.shape)                        # (N, J) @ (J, I) -> (N, I)
    return dx, *added(into, dropped.T @ dh, scale * (h.T @ rows(dout)))


def sample(rng, dtype, d):
    return linear.sample(rng, dtype, d) | normals(rng, dtype, a=(d.C, 3), b=(3, 4 * d.C)) | {
        "scale": 0.7, "p": 0.25, "key": (3, 1, 4)}


SPEC = Spec(
    "lora_linear", sample, differentiable=("x", "a", "b"),
    bad=wrong("weight", "flatter", "other_dtype") + wrong("bias", "narrower") + wrong("a", "shorter", "other_dtype")
    + wrong("b", "narrower", "other_dtype") + wrong("p", 1.0) + wrong("x", "narrower", error="weight"),
    flops=lambda d: (2 * d.B * d.T * d.C * (d.OC or 4 * d.C),) * 2,            # and r / C of it for the update
    c=("out[B,T,OC] h[B,T,R] <- x[B,T,C] weight[C,OC] bias[OC] a[C,R] b[R,OC] key[3]:uint64; B T C OC R scale p",
       "dx[B,T,C] da[C,R]+= db[R,OC]+= <- dout[B,T,OC] x[B,T,C] h[B,T,R] weight[C,OC] a[C,R] b[R,OC] key[3]:uint64; "
       "B T C OC R scale p"),
    kept=lambda args, cache: {"h": cache[2].reshape(*args["x"].shape[:-1], -1)},
    torch=lambda torch, x, weight, bias, a, b, scale, p, key: (
        torch.nn.functional.linear(x, weight, bias) + scale * (torch.nn.functional.dropout(x, p) @ a) @ b),
    kernels=CPU | {"cpu/bf16": FLOAT32} | on_gpu(), transposed=("weight",))
