"""The MLP of a transformer block whose two frozen linear layers have low-rank updates (LoRA).

    h = x @ fc_weight + fc_bias + fc_scale * drop_x(x) @ fc_a @ fc_b              (N, C)  -> (N, 4C)    `lora_linear`
    z = gelu(h)                                                                   (N, 4C) -> (N, 4C)    `gelu`
    out = z @ proj_weight + proj_bias + proj_scale * drop_z(z) @ proj_a @ proj_b  (N, 4C) -> (N, C)     `lora_linear`

A composition, as in mlp.py, walked back in reverse. Only the updates have gradients, so no sum over rows is as large as
a weight; dout reaches z and x through both branches of a layer:

    dz = dout @ proj_weight.T + drop_z(proj_scale * dout @ proj_b.T @ proj_a.T)
    dproj_a = proj_scale * drop_z(z).T @ dout @ proj_b.T      dproj_b = proj_scale * proj_a.T @ drop_z(z).T @ dout
    dh = gelu_backward(dz)
    dx = dh @ fc_weight.T + drop_x(fc_scale * dh @ fc_b.T @ fc_a.T)
    dfc_a = fc_scale * drop_x(x).T @ dh @ fc_b.T              dfc_b = fc_scale * fc_a.T @ drop_x(x).T @ dh

Where only one of the layers has an update, the other's matrices have rank 0. `ops` is the namespace the smaller ops are
taken from, so the same page serves every backend. Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1.
"""
from types import SimpleNamespace

from . import gelu, lora_linear, mlp
from .checks import check_dtype, check_number, check_rows, check_shape, from_cache
from .dropout import check_mask
from .spec import CPU, FLOAT32, Spec, normals, on_gpu, wrong

REFERENCE = SimpleNamespace(**{**vars(lora_linear), **vars(gelu)})


def lora_mlp_forward(x, fc_weight, fc_bias, fc_a, fc_b, proj_weight, proj_bias, proj_a, proj_b, fc_scale=1.0,
                     proj_scale=1.0, p=0.0, fc_key=(0, 0, 0), proj_key=(0, 0, 0), ops=REFERENCE):
    """lora_linear, GELU, lora_linear: x (..., C), fc_weight (C, F), fc_bias (F), fc_a (C, r), fc_b (r, F), proj_weight
    (F, D), proj_bias (D), proj_a (F, s), proj_b (s, D) -> out (..., D), cache.

    p: dropout on the way to both updates, each with a key of its own. Raises ValueError as lora_linear does. ops: the
    namespace of the smaller ops.
    """
    check_rows("x", x)
    check_layer("fc", x, x.shape[-1], fc_weight, fc_bias, fc_a, fc_b, fc_scale)
    check_layer("proj", x, fc_weight.shape[1], proj_weight, proj_bias, proj_a, proj_b, proj_scale)
    check_mask(p, fc_key, "fc_key")
    check_mask(p, proj_key, "proj_key")
    h, fc_cache = ops.lora_linear_forward(x, fc_weight, fc_bias, fc_a, fc_b, fc_scale, p, fc_key)          # (..., F)
    z, gelu_cache = ops.gelu_forward(h)                                                                    # (..., F)
    out, proj_cache = ops.lora_linear_forward(z, proj_weight, proj_bias, proj_a, proj_b, proj_scale, p, proj_key)
    return out, (fc_cache, gelu_cache, proj_cache)


def check_layer(layer, x, inputs, weight, bias, a, b, scale):
    """Raise unless the arrays of one of the two layers fit to its inputs and to each other."""
    check_shape(f"{layer}_weight", weight, (inputs, None))
    check_shape(f"{layer}_bias", bias, (weight.shape[1],))
    check_shape(f"{layer}_a", a, (inputs, None))
    check_shape(f"{layer}_b", b, (a.shape[1], weight.shape[1]))
    for name, array in (("weight", weight), ("bias", bias), ("a", a), ("b", b)):
        check_dtype(f"{layer}_{name}", array, x.dtype)
    check_number(f"{layer}_scale", scale, lambda scale: True, "a number")


def lora_mlp_backward(dout, cache, into=None, ops=REFERENCE):
    """The gradients of lora_mlp_forward: dout (..., D), cache -> dx, dfc_a, dfc_b, dproj_a, dproj_b.

    into: the last four, to add to instead of fresh arrays.
    """
    fc_cache, gelu_cache, proj_cache = from_cache(cache, fc_cache=tuple, gelu_cache=tuple, proj_cache=tuple)
    dz, dproj_a, dproj_b = ops.lora_linear_backward(dout, proj_cache, into=into and into[2:])
    dh = ops.gelu_backward(dz, gelu_cache)
    dx, dfc_a, dfc_b = ops.lora_linear_backward(dh, fc_cache, into=into and into[:2])
    return dx, dfc_a, dfc_b, dproj_a, dproj_b


def sample(rng, dtype, d):
    """Matrices of a half and a quarter, so that six of them in a row leave numbers of about one."""
    base, F = mlp.SPEC.sample(rng, dtype, d), 4 * d.C
    fc = normals(rng, dtype, fc_a=(d.C, 3), fc_b=(3, F))
    proj = normals(rng, dtype, proj_a=(F, 2), proj_b=(2, d.C))
    fc, proj = ({name: array / 4 for name, array in update.items()} for update in (fc, proj))
    return {"x": base["x"], "fc_weight": base["fc_weight"] / 2, "fc_bias": base["fc_bias"], **fc,
            "proj_weight": base["proj_weight"] / 2, "proj_bias": base["proj_bias"], **proj,
            "fc_scale": 0.7, "proj_scale": 0.4, "p": 0.25, "fc_key": (3, 1, 4), "proj_key": (3, 1, 5)}


def torch_lora_mlp(torch, x, fc_weight, fc_bias, fc_a, fc_b, proj_weight, proj_bias, proj_a, proj_b, fc_scale,
                   proj_scale, p, fc_key, proj_key):
    F = torch.nn.functional
    z = F.gelu(F.linear(x, fc_weight, fc_bias) + fc_scale * (F.dropout(x, p) @ fc_a) @ fc_b, approximate="tanh")
    return F.linear(z, proj_weight, proj_bias) + proj_scale * (F.dropout(z, p) @ proj_a) @ proj_b


SPEC = Spec(
    "lora_mlp", sample, differentiable=("x", "fc_a", "fc_b", "proj_a", "proj_b"), composite=True,
    bad=wrong("fc_weight", "flatter", "shorter", "other_dtype") + wrong("fc_bias", "narrower", "other_dtype")
    + wrong("fc_a", "shorter", "other_dtype") + wrong("fc_b", "narrower", "other_dtype")
    + wrong("proj_weight", "flatter", "shorter", "other_dtype") + wrong("proj_bias", "narrower", "other_dtype")
    + wrong("proj_a", "shorter", "other_dtype") + wrong("proj_b", "narrower", "other_dtype") + wrong("p", 1.0)
    + wrong("x", "narrower", error="fc_weight"),
    flops=lambda d: (4 * d.B * d.T * d.C * (d.OC or 4 * d.C),) * 2,            # and the updates' small part of it
    c=("out[B,T,C] h[B,T,OC] fc_h[B,T,R] proj_h[B,T,S] <- x[B,T,C] fc_weight[C,OC] fc_bias[OC] fc_a[C,R] fc_b[R,OC] "
       "proj_weight[OC,C] proj_bias[C] proj_a[OC,S] proj_b[S,C] fc_key[3]:uint64 proj_key[3]:uint64; "
       "B T C OC R S fc_scale proj_scale p",
       "dx[B,T,C] dfc_a[C,R]+= dfc_b[R,OC]+= dproj_a[OC,S]+= dproj_b[S,C]+= <- dout[B,T,C] x[B,T,C] h[B,T,OC] "
       "fc_h[B,T,R] proj_h[B,T,S] fc_weight[C,OC] fc_a[C,R] fc_b[R,OC] proj_weight[OC,C] proj_a[OC,S] proj_b[S,C] "
       "fc_key[3]:uint64 proj_key[3]:uint64; B T C OC R S fc_scale proj_scale p"),
    kept=lambda args, cache: {"h": cache[1][0], "fc_h": cache[0][2].reshape(*args["x"].shape[:-1], -1),
                              "proj_h": cache[2][2].reshape(*args["x"].shape[:-1], -1)},
    kernels=CPU | {"cpu/bf16": FLOAT32} | on_gpu(), torch=torch_lora_mlp, transposed=("fc_weight", "proj_weight"))
