"""AdamW: one step of the optimizer over a flat buffer of parameters. Not a differentiable op, but a hot loop.

With gradient g, first moment m, second moment v (both start at 0) and step number t = 1, 2, ...:

    m <- beta1 * m + (1 - beta1) * g                v <- beta2 * v + (1 - beta2) * g^2
    mhat = m / (1 - beta1^t)                        vhat = v / (1 - beta2^t)
    w[i] <- w[i] - lr * weight_decay * w[i]   for i < n_decayed                  decoupled decay, of the matrices
    w <- w - lr * mhat / (sqrt(vhat) + eps)

mhat and vhat undo the bias towards the zero start: after one step mhat = g exactly. Decay acts on w itself and does not
pass through the moments, which is the W in AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2). `scale`
multiplies g first: that is gradient clipping in the same pass over memory. So is `bits`, the bf16 weight copy for
matmuls in that type, of which w is the master (AdamW.keep_bits says what for).
"""
import math

import numpy as np

from ..bfloat16 import bfloat16_bits
from ..checks import check_dtype, check_float, check_number, check_shape
from ..spec import CPU, GPU, Spec, normals, wrong


def adamw_update(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, n_decayed=0, scale=1.0,
                 bits=None):
    """One step of AdamW, in place on w, m and v (Loshchilov & Hutter 2019, algorithm 2).

    w, grad, m, v: (P,) of one dtype; step counts from 1; n_decayed in [0, P]. bits: None, or (P,) uint16 that receives
    the new w rounded to bfloat16 (to nearest even), w being float32. Raises ValueError for anything else.
    """
    check_float("w", w)
    for name, array in (("w", w), ("grad", grad), ("m", m), ("v", v)):
        check_shape(name, array, (w.size,))
        check_dtype(name, array, w.dtype)
    if bits is not None:
        check_bits(bits, w)
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay), ("scale", scale), ("beta1", beta1),
                        ("beta2", beta2)):
        check_number(name, value, lambda value: True, "a number")
    for name, value in (("step", step), ("n_decayed", n_decayed)):
        check_number(name, value, lambda value: True, "an integer", int)
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"beta1 and beta2 must be in [0, 1): got {beta1}, {beta2}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be a number of at least 0: got {eps}")
    if step < 1 or not 0 <= n_decayed <= w.size:
        raise ValueError(f"step must be at least 1 and n_decayed in [0, {w.size}]: got {step}, {n_decayed}")
    g = grad * scale
    m[:] = beta1 * m + (1 - beta1) * g     # not m += (1 - beta1) * (g - m): it cancels where m >> g
    v[:] = beta2 * v + (1 - beta2) * (g * g)
    w[:n_decayed] *= 1 - lr * weight_decay
    w -= lr / (1 - beta1 ** step) * m / (np.sqrt(v) * (1 / math.sqrt(1 - beta2 ** step)) + eps)
    if bits is not None:
        bits[:] = bfloat16_bits(w)


def check_bits(bits, w):
    if w.dtype != np.float32:
        raise ValueError(f"bits are of a float32 w: got a w of {w.dtype}")
    if not isinstance(bits, np.ndarray):
        raise ValueError(f"bits must be None or an array of uint16: got {type(bits).__name__}")
    check_shape("bits", bits, w.shape)
    check_dtype("bits", bits, np.dtype(np.uint16))


def sample(rng, dtype, d):
    size = 12 * d.C * d.C
    args = normals(rng, dtype, w=size, grad=size, m=size, v=size)
    return args | {"v": args["v"] ** 2, "step": 3, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8,
                   "weight_decay": 0.1, "n_decayed": size // 2, "scale": 0.5}


def torch_adamw(torch, w, grad, m, v, step, lr, beta1, beta2, eps, weight_decay, n_decayed, scale):
    """torch.optim.AdamW(fused=True) on two parameters, the decayed numbers and the rest. The gradient is scaled before:
    clipping is no part of its pass."""
    groups, states = [], []
    for part, decay in ((slice(0, n_decayed), weight_decay), (slice(n_decayed, None), 0.0)):
        parameter = w[part].clone().requires_grad_()
        parameter.grad = grad[part] * scale
        groups.append({"params": [parameter], "weight_decay": decay})
        states.append({"step": torch.tensor(float(step - 1)),
                       "exp_avg": m[part].clone(), "exp_avg_sq": v[part].clone()})
    parameters = [group["params"][0] for group in groups]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=True)
    optimizer.state.update(zip(parameters, states))

    def update():
        optimizer.step()
        return parameters

    def result():
        found = {"w": parameters, "m": [s["exp_avg"] for s in states], "v": [s["exp_avg_sq"] for s in states]}
        return {name: torch.cat([part.detach() for part in parts]) for name, parts in found.items()}

    return update, result


SPEC = Spec(
    "adamw", sample, kind="update", differentiable=(), kernels=CPU | GPU,
    bad=wrong("grad", "narrower", "other_dtype") + wrong("m", "narrower") + wrong("v", "other_dtype") + wrong("step", 0)
    + wrong("n_decayed", 10 ** 9) + wrong("beta1", 1.0, math.nan) + wrong("beta2", 1.0, -0.1, math.nan)
    + wrong("eps", -1e-8, math.nan, math.inf),
    flops=lambda d: (12 * (d.N or 12 * d.C ** 2), 0),
    c=("w[N]+= m[N]+= v[N]+= <- grad[N]; N step lr beta1 beta2 eps weight_decay n_decayed scale",),
    torch=torch_adamw)
