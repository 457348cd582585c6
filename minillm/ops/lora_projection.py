"""Low-rank adaptation (LoRA) of a projection: lora_linear.py with matrices stored (out, in), the bias optional.

    h = drop(x) @ a.T                                                 x (N, I), a (r, I), b (J, r), r small
    out = x @ weight.T + bias + scale * h @ b.T                       weight (J, I)

The layout of Llama and its kin, and of PEFT's files. weight and bias are frozen:

    dh = scale * dout @ b                       (N, r)
    da = dh.T @ drop(x),   db = scale * dout.T @ h
    dx = dout @ weight + drop(dh @ a)           dropout is linear, its mask the same both ways

Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1.
"""
from . import lora_linear, projection
from .checks import added, check_dout, check_dtype, check_number, check_rows, check_shape, from_cache, rows
from .dropout import check_mask, scaled
from .spec import CPU, FLOAT32, Spec, normals, on_gpu, wrong


def lora_projection_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0)):
    """A frozen projection plus scale * drop(x) @ a.T @ b.T (Hu et al. 2021, section 4.1).

    x (..., I), weight (J, I), bias (J) or None, a (r, I), b (J, r) -> out (..., J), cache. scale, p, key: as in
    lora_linear. Raises ValueError for shapes or dtypes that do not fit, for p outside [0, 1) and for a key that is not
    three words.
    """
    check_rows("x", x)
    check_shape("weight", weight, (None, x.shape[-1]))
    check_shape("a", a, (None, x.shape[-1]))
    check_shape("b", b, (len(weight), len(a)))
    for name, array in (("weight", weight), ("a", a), ("b", b)):
        check_dtype(name, array, x.dtype)
    check_number("scale", scale, lambda scale: True, "a number")
    check_mask(p, key)
    dropped = rows(scaled(x, p, key) if p else x)                         # (N, I)
    h = dropped @ a.T                                                     # (N, I) @ (I, r) -> (N, r)
    out = rows(x) @ weight.T                                              # (N, I) @ (I, J) -> (N, J)
    if bias is not None:
        check_shape("bias", bias, (len(weight),))
        check_dtype("bias", bias, x.dtype)
        out += bias
    out += (scale * h) @ b.T                                              # (N, r) @ (r, J) -> (N, J)
    return out.reshape(*x.shape[:-1], len(weight)), (x, dropped, h, weight, a, b, scale, p, tuple(key))


def lora_projection_backward(dout, cache, into=None):
    """The gradients of lora_projection_forward: dout (..., J), cache -> dx (..., I), da (r, I), db (J, r).

    into: the last two, to add to instead of fresh arrays.
    """
    x, dropped, h, weight, a, b, scale, p, key = from_cache(
        cache, x="...I", dropped="NI", h="Nr", weight="JI", a="rI", b="Jr", scale=float, p=float, key=tuple)
    check_mask(p, key)
    check_shape("cached dropped", dropped, rows(x).shape)
    check_dout(dout, (*x.shape[:-1], len(weight)), x.dtype)
    dh = scale * (rows(dout) @ b)                                         # (N, J) @ (J, r) -> (N, r)
    dx = (dh @ a).reshape(x.shape)                                        # (N, r) @ (r, I) -> (N, I)
    dx = scaled(dx, p, key) if p else dx
    dx += (rows(dout) @ weight).reshape(x.shape)                          # (N, J) @ (J, I) -> (N, I)
    return dx, *added(into, dh.T @ dropped, scale * (rows(dout).T @ h))


SPEC = Spec(
    "lora_projection", differentiable=("x", "a", "b"),
    sample=lambda rng, dtype, d: projection.SPEC.sample(rng, dtype, d) | normals(
        rng, dtype, a=(3, d.C), b=(4 * d.C, 3)) | {"scale": 0.7, "p": 0.25, "key": (3, 1, 4)},
    bad=wrong("weight", "flatter", "other_dtype") + wrong("bias", "narrower") + wrong("a", "narrower", "other_dtype")
    + wrong("b", "shorter", "other_dtype") + wrong("p", 1.0) + wrong("x", "narrower", error="weight"),
    flops=lora_linear.SPEC.flops,
    c=("out[B,T,OC] h[B,T,R] <- x[B,T,C] weight[OC,C] bias[OC] a[R,C] b[OC,R] key[3]:uint64; B T C OC R scale p",
       "dx[B,T,C] da[R,C]+= db[OC,R]+= <- dout[B,T,OC] x[B,T,C] h[B,T,R] weight[OC,C] a[R,C] b[OC,R] key[3]:uint64; "
       "B T C OC R scale p"),
    kept=lora_linear.SPEC.kept, kernels=CPU | {"cpu/bf16": FLOAT32} | on_gpu(),
    torch=lambda torch, x, weight, bias, a, b, scale, p, key: (
        torch.nn.functional.linear(x, weight, bias) + scale * (torch.nn.functional.dropout(x, p) @ a.T) @ b.T))
