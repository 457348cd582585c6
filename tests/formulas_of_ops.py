"""What the names in an op's formulas stand for: its sample inputs, and what its functions give for them in float64.

values_of(op) yields (values, expected) pairs: an op for whole arrays has one, others one for each row or head. An op
whose formulas use only the names of its arguments needs no entry in VALUES.
"""
from typing import Any, NamedTuple

import numpy as np
from cases import as_tuple, sample
from formula_checks import UNNAMED

from minillm.ops.attention import split_heads
from minillm.ops.dropout import random_bits, scaled
from minillm.ops.gelu_exact import normal_cdf
from minillm.ops.layernorm import layernorm_backward, layernorm_forward
from minillm.ops.losses.cross_entropy import cross_entropy_backward, cross_entropy_forward
from minillm.ops.optimizer.muon import COEFFICIENTS, EPS, orthogonalised, polynomial
from minillm.ops.rmsnorm import rmsnorm_backward, rmsnorm_forward
from minillm.ops.softcap import capped, slope_at
from minillm.ops.table import OPS, REFERENCE, Dims, functions

DIMS = Dims(B=2, T=3, C=4, NH=2, V=5)


class Called(NamedTuple):
    args: dict[str, Any]
    out: Any
    cache: Any
    dout: Any
    grads: dict[str, Any]               # dx, dweight and so on


def called(op, seed=0):
    """An op, called forward and backward on sample inputs."""
    args, names = sample(op, "float64", DIMS, seed), functions(OPS[op])
    if OPS[op].kind == "update":
        args = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in args.items()}
        after = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in args.items()}
        REFERENCE[names[0]](**after)
        return Called(args, after, None, None, {})
    result = REFERENCE[names[0]](**args)
    if OPS[op].kind != "pair":
        return Called(args, result, None, None, {})
    out, cache = result
    rng = np.random.default_rng(seed + 1)
    douts = tuple(rng.standard_normal(part.shape) for part in as_tuple(out))
    dout = douts if isinstance(out, tuple) else douts[0]
    grads = as_tuple(REFERENCE[names[1]](dout, cache))
    return Called(args, out, cache, dout, {f"d{name}": grad for name, grad in zip(OPS[op].differentiable, grads)})


def rows(value):
    """(B, T, C) -> (B*T, C); others as they are."""
    return value.reshape(-1, value.shape[-1]) if isinstance(value, np.ndarray) and value.ndim == 3 else value


def by_rows(values):
    return {name: rows(value) for name, value in values.items()}


def whole(call, **more):
    yield by_rows(call.args | {"dout": call.dout, **more}), by_rows({"out": call.out, **call.grads})


def embedding(call):
    yield call.args | {"dout": call.dout}, {"out": call.out, **call.grads}


def layernorm(call):
    """The three ways by which x reaches the loss have no name: they add up to dx."""
    for values, expected in whole(call, C=DIMS.C):
        yield values, expected | {UNNAMED: expected["dx"]}


def softmax(call):
    for x, dout, out, dx in zip(*map(rows, (call.args["x"], call.dout, call.out, call.grads["dx"]))):
        yield {"x": x, "dout": dout}, {"out": out, "dx": dx}


def dropout(call):
    x, p, key = call.args.values()
    yield ({"x": x.ravel(), "p": p, "u": random_bits(x.size, key) / 2 ** 32, "dout": call.dout.ravel()},
           {"out": call.out.ravel(), "dx": call.grads["dx"].ravel()})


def lora_linear(call):
    p, key, shape = call.args["p"], call.args["key"], call.args["x"].shape
    yield from whole(call, drop=lambda x: scaled(x.reshape(shape), p, key).reshape(x.shape))


def residual_layernorm(call):
    x, y, weight, bias, eps = call.args.values()
    dsum, dout = call.dout
    cache = layernorm_forward(x + y, weight, bias, eps)[1]
    yield ({"x": x, "y": y, "dsum": dsum, "dout": dout,
            "layernorm": lambda s: layernorm_forward(s, weight, bias, eps)[0],
            "layernorm_backward": lambda dout: layernorm_backward(dout, cache)[0]},
           {"s": call.out[0], "out": call.out[1], "dx": call.grads["dx"], "dy": call.grads["dy"]})


def mlp(call):
    hidden = call.cache[1]
    yield from whole(call, gelu=lambda h: REFERENCE["gelu_forward"](h)[0],
                     gelu_backward=lambda da: rows(REFERENCE["gelu_backward"](da.reshape(2, 3, -1), hidden)))


def lora_mlp(call):
    args, hidden = call.args, call.cache[1]

    def drop(key, shape):
        return lambda x: scaled(x.reshape(shape), args["p"], args[key]).reshape(x.shape)
    yield from whole(call, drop_x=drop("fc_key", args["x"].shape), drop_z=drop("proj_key", hidden[0].shape),
                     gelu=lambda h: REFERENCE["gelu_forward"](h)[0],
                     gelu_backward=lambda dz: rows(REFERENCE["gelu_backward"](dz.reshape(hidden[0].shape), hidden)))


def geglu(call):
    gate = rows(call.args["gate"])
    yield from whole(call, gelu=lambda x: REFERENCE["gelu_forward"](x)[0],
                     gelu_backward=lambda d: REFERENCE["gelu_backward"](d, (gate,)))


def gelu_exact(call):
    yield from whole(call, erf=lambda z: 2 * normal_cdf(z * np.sqrt(2)) - 1)


def attention(call):
    def split(qkv):
        return split_heads(qkv, DIMS.NH)
    parts = split(call.args["qkv"]), split(call.grads["dqkv"])
    (q, k, v), (dq, dk, dv) = parts
    out, dout = (a.reshape(DIMS.B, DIMS.T, DIMS.NH, -1).swapaxes(1, 2) for a in (call.out, call.dout))
    for at in np.ndindex(DIMS.B, DIMS.NH):
        yield ({"q": q[at], "k": k[at], "v": v[at], "dout": dout[at], "HS": DIMS.C // DIMS.NH},
               {"P": call.cache[2][at], "out": out[at], "dq": dq[at], "dk": dk[at], "dv": dv[at]})


def grouped_attention(call):
    """One query head of a group of one, as its k and v are then its own: the sums over a group are words."""
    q, k, v = (call.args[name] for name in "qkv")
    n_head = q.shape[-1] // k.shape[-1]                                     # as many heads as one of k can serve
    HS, cap, sinks = k.shape[-1], 0.7, np.linspace(-1, 1, n_head)
    forward, backward = (REFERENCE[f"grouped_attention_{way}"] for way in ("forward", "backward"))
    for b, h in np.ndindex(len(q), n_head):
        head = slice(h * HS, (h + 1) * HS)
        one = np.ascontiguousarray(q[b:b + 1, :, head]), k[b:b + 1], v[b:b + 1]
        dout = np.ascontiguousarray(call.dout[b:b + 1, :, head])
        out, cache = forward(*one, 1)
        with_sink = forward(*one, 1, sinks=sinks[h:h + 1])[1]
        S = one[0][0] @ k[b].T / np.sqrt(HS)
        yield ({"q": one[0][0], "k": k[b], "v": v[b], "dout": dout[0], "HS": HS, "z": sinks[h], "cap": cap},
               {"P": cache[-1][0, 0, 0], "out": out[0], "dq": backward(dout, cache)[0][0],
                "A": with_sink[-1][0, 0, 0, :, :-1], "A0": with_sink[-1][0, 0, 0, :, -1],
                "dz": backward(dout, with_sink)[3][0], "U": capped(S, cap), "dU/dS": slope_at(capped(S, cap), cap)})


def rope(call):
    x, cos, sin, _ = call.args.values()
    half = cos.shape[1]
    for at in np.ndindex(len(x), x.shape[1], x.shape[2] // (2 * half)):
        parts = [a[at[0], at[1], at[2] * 2 * half:][:2 * half].reshape(2, half)
                 for a in (x, call.out, call.dout, call.grads["dx"])]
        (a, b), (out_a, out_b), (dout_a, dout_b), (da, db) = parts
        yield ({"a": a, "b": b, "c": cos[at[1]], "s": sin[at[1]], "dout_a": dout_a, "dout_b": dout_b},
               {"out_a": out_a, "out_b": out_b, "da": da, "db": db})


def residual_rmsnorm(call):
    x, y, weight, eps = call.args.values()
    dsum, dout = call.dout
    cache = rmsnorm_forward(x + y, weight, eps)[1]
    yield ({"x": x, "y": y, "dsum": dsum, "dout": dout, "rmsnorm": lambda s: rmsnorm_forward(s, weight, eps)[0],
            "rmsnorm_backward": lambda dout: rmsnorm_backward(dout, cache)[0]},
           {"s": call.out[0], "out": call.out[1], "dx": call.grads["dx"], "dy": call.grads["dy"]})


def attention_decode(call):
    """The sample has one query; here are two, so that one of them does not see the last key."""
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal((DIMS.B, DIMS.NH, length, 3)) for length in (2, 5, 5))
    out = REFERENCE["attention_decode"](q, k, v).reshape(DIMS.B, 2, DIMS.NH, 3).swapaxes(1, 2)
    for at in np.ndindex(DIMS.B, DIMS.NH):
        yield {"q": q[at], "k": k[at], "v": v[at], "HS": 3, "T": 2, "S": 5}, {"out": out[at]}


def head(call):
    yield by_rows(call.args), {"logits": rows(call.out)}


def losses_of(call, **names):
    """One row after the other whose target is not ignored; names: the formulas' for the arguments'."""
    for n, target in enumerate(call.args["targets"]):
        if target != -1:
            values = {names.get(name, name): value[n] if isinstance(value, np.ndarray) else value
                      for name, value in call.args.items()}
            yield values | {"dout": call.dout[n]}, {"loss": call.out[n], "dz": call.grads["dlogits"][n]}


def cross_entropy(call):
    yield from losses_of(call, logits="z", targets="y")


def distillation_loss(call):
    yield from losses_of(call, logits="z", teacher="u", targets="y", temperature="T", weight="w")


def dpo_loss(call):
    yield call.args | {"dout": call.dout, "e": call.args["label_smoothing"]}, {"loss": call.out, **call.grads}


def grpo_loss(call):
    values = call.args | {"dout": call.dout, "e": call.args["clip"], "A": call.args["advantages"]}
    yield {name: value for name, value in values.items() if name != "clip"}, {"loss": call.out, **call.grads}


def linear_cross_entropy(call):
    x, wte, targets, _ = call.args.values()
    cache = cross_entropy_forward(x @ wte.T, targets)[1]
    yield (call.args | {"dout": call.dout, "dwte": np.zeros_like(wte), "cross_entropy": lambda logits, targets:
                        cross_entropy_forward(logits, targets)[0],
                        "cross_entropy_backward": lambda dout: cross_entropy_backward(dout, cache)},
           {"losses": call.out, **call.grads})


def adamw(call):
    args = call.args
    yield (args | {"g": args["grad"] * args["scale"], "t": args["step"]},
           {"mhat": call.out["m"] / (1 - args["beta1"] ** args["step"]),
            "vhat": call.out["v"] / (1 - args["beta2"] ** args["step"])} | {"w last": call.out["w"]})


def muon(call):
    """One of the five steps, and what it does to the singular values."""
    args, (a, b, c) = call.args, COEFFICIENTS
    m, g = args["momentum"], args["grad"] * args["scale"]
    u = m * call.out["m"] + (1 - m) * g
    X0 = u / (np.linalg.norm(u) + EPS)
    X1 = polynomial(X0) @ X0
    U, s, Vt = np.linalg.svd(X0, full_matrices=False)
    rows, columns = u.shape
    yield (args | {"g": g, "a": a, "b": b, "c": c, "eps": EPS, "R": rows, "K": columns, "X": orthogonalised(u),
                   "s": s},
           {"w last": call.out["w"], "m last": call.out["m"], "u": u, "X0": X0, "A": X0 @ X0.T, "X1": X1,
            "s1": np.diag(U.T @ X1 @ Vt.T)})


def sum_squares(call):
    yield call.args, {"out": call.out}


def values_of(op, seed=0):
    return VALUES.get(op, whole)(called(op, seed))


VALUES = dict(linear=whole, gelu=whole, gelu_exact=gelu_exact, residual=whole, embedding=embedding,
              layernorm=layernorm, softmax=softmax, dropout=dropout, lora_linear=lora_linear,
              lora_projection=lora_linear, lora_mlp=lora_mlp,
              residual_layernorm=residual_layernorm, mlp=mlp, geglu=geglu,
              attention=attention, grouped_attention=grouped_attention, rope=rope, rmsnorm=layernorm,
              residual_rmsnorm=residual_rmsnorm, token_embedding=embedding, attention_decode=attention_decode,
              head=head, cross_entropy=cross_entropy,
              distillation_loss=distillation_loss, dpo_loss=dpo_loss, grpo_loss=grpo_loss,
              linear_cross_entropy=linear_cross_entropy, adamw=adamw, muon=muon, sum_squares=sum_squares)
NAMES = {"attention": {"dqkv": ("dq", "dk", "dv")}, "rope": {"dx": ("da", "db"), "out": ("out_a", "out_b")},
         "cross_entropy": {"dlogits": ("dz",)},
         "distillation_loss": {"dlogits": ("dz",)}}              # gradients that formulas give under other names
ELSEWHERE = {"residual_layernorm": ("dweight", "dbias"), "residual_rmsnorm": ("dweight",),       # by the norm's
             "grouped_attention": ("dk", "dv")}                                                  # by attention's
