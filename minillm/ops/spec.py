"""The op table. Gradient checks, tests, benchmarks and `minillm info` read it; nothing else lists ops.

`OPS` holds each op once: how to make inputs for it, which of them have gradients, which inputs are wrong and what the
error must name, and what it costs. `KERNELS` holds each compiled kernel once. Adding a kernel is one C++ file and one
line here; `registry.select` turns both tables into the functions that a model runs on.
"""
from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np


class Dims(NamedTuple):
    """Sizes from which an op makes its sample inputs."""

    B: int = 2      # batch
    T: int = 5      # tokens in a sequence
    C: int = 8      # width, a multiple of NH
    NH: int = 2     # heads
    V: int = 11     # vocabulary


@dataclass(frozen=True)
class OpSpec:
    """One op. `sample(rng, dtype, dims)` gives {argument: value} in the order of the signature."""

    name: str
    sample: Callable
    differentiable: tuple                 # arguments with a gradient, in the order backward returns them
    bad: tuple                            # (label, argument, value -> wrong value, words the error must hold)
    flops: Callable                       # dims -> (forward, backward)
    kind: str = "pair"                    # pair: forward and backward; decode: forward only; reduce: an array to a
                                          # number; update: in place
    composite: bool = False               # calls smaller ops, taken from the `ops` it is given
    looked_up: tuple = ()                 # arguments of which only as many numbers are read as `out` has
    alike: tuple = ()                     # arguments whose gradient is one array with another's; backward reads none


@dataclass(frozen=True)
class Kernel:
    """A compiled implementation of an op. `backend` alone is the default variant; others are chosen by name."""

    op: str
    backend: str                          # "cpu", "cuda", or "cudasim": the same CUDA kernels on the emulator
    variant: str = ""                     # "" is the backend's best; "1_naive" and so on are teaching rungs
    dtypes: tuple = ("float32", "float64")


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def embedding_sample(rng, dtype, d):
    return {"tokens": rng.integers(0, d.V, (d.B, d.T)), "wte": normal(rng, dtype, d.V, d.C),
            "wpe": normal(rng, dtype, d.T + 3, d.C), "start": 2}


def linear_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B, d.T, d.C), "weight": normal(rng, dtype, d.C, 4 * d.C),
            "bias": normal(rng, dtype, 4 * d.C)}


def lora_linear_sample(rng, dtype, d):
    return linear_sample(rng, dtype, d) | {"a": normal(rng, dtype, d.C, 3), "b": normal(rng, dtype, 3, 4 * d.C),
                                           "scale": 0.7, "p": 0.25, "key": (3, 1, 4)}


def layernorm_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B, d.T, d.C), "weight": normal(rng, dtype, d.C), "bias": normal(rng, dtype, d.C),
            "eps": 1e-5}


def gelu_sample(rng, dtype, d):
    return {"x": 2 * normal(rng, dtype, d.B, d.T, 4 * d.C)}


def attention_sample(rng, dtype, d):
    return {"qkv": normal(rng, dtype, d.B, d.T, 3 * d.C), "n_head": d.NH}


def attention_decode_sample(rng, dtype, d):
    new, kept = (d.B, d.NH, 1, d.C // d.NH), (d.B, d.NH, d.T, d.C // d.NH)
    return {"q": normal(rng, dtype, *new), "k": normal(rng, dtype, *kept), "v": normal(rng, dtype, *kept)}


def head_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B, d.T, d.C), "wte": normal(rng, dtype, d.V, d.C)}


def mlp_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B, d.T, d.C), "fc_weight": normal(rng, dtype, d.C, 4 * d.C),
            "fc_bias": normal(rng, dtype, 4 * d.C), "proj_weight": normal(rng, dtype, 4 * d.C, d.C),
            "proj_bias": normal(rng, dtype, d.C)}


def residual_layernorm_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B, d.T, d.C), "y": normal(rng, dtype, d.B, d.T, d.C),
            "weight": normal(rng, dtype, d.C), "bias": normal(rng, dtype, d.C), "eps": 1e-5}


def dropout_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B, d.T, d.C), "p": 0.25, "key": (3, 2 ** 40 + 1, 7)}


def targets_sample(rng, d):
    targets = rng.integers(0, d.V, d.B * d.T)
    targets[rng.random(d.B * d.T) < 0.2] = -1
    return targets


def cross_entropy_sample(rng, dtype, d):
    return {"logits": 3 * normal(rng, dtype, d.B * d.T, d.V), "targets": targets_sample(rng, d), "ignore_index": -1}


def linear_cross_entropy_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, d.B * d.T, d.C), "wte": normal(rng, dtype, d.V, d.C),
            "targets": targets_sample(rng, d), "ignore_index": -1}


def adamw_sample(rng, dtype, d):
    size = 12 * d.C * d.C
    return {"w": normal(rng, dtype, size), "grad": normal(rng, dtype, size), "m": normal(rng, dtype, size),
            "v": normal(rng, dtype, size) ** 2, "step": 3, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8,
            "weight_decay": 0.1, "n_decayed": size // 2, "scale": 0.5}


def sum_squares_sample(rng, dtype, d):
    return {"x": normal(rng, dtype, 12 * d.C * d.C)}


def distillation_loss_sample(rng, dtype, d):
    return {"logits": 3 * normal(rng, dtype, d.B * d.T, d.V), "teacher": 3 * normal(rng, dtype, d.B * d.T, d.V),
            "targets": targets_sample(rng, d), "temperature": 2.0, "weight": 0.7, "ignore_index": -1}


def dpo_loss_sample(rng, dtype, d):
    return {name: normal(rng, dtype, d.B * d.T) for name in ("chosen", "rejected", "ref_chosen", "ref_rejected")} | {
        "beta": 0.3, "label_smoothing": 0.1}


def grpo_loss_sample(rng, dtype, d):
    """Ratios between 0.6 and 1.7, so that about half are clipped, none within the width of a finite difference."""
    old = normal(rng, dtype, d.B * d.T)
    steps = rng.choice([-0.5, -0.3, -0.1, 0.1, 0.3, 0.5], d.B * d.T).astype(dtype)
    return {"logp": old + steps, "old_logp": old, "ref_logp": old + normal(rng, dtype, d.B * d.T) / 4,
            "advantages": normal(rng, dtype, d.B * d.T), "clip": 0.2, "beta": 0.04}


def narrower(a):
    """One column short."""
    return np.ascontiguousarray(a[..., :-1])


def flatter(a):
    """One axis fewer."""
    return a.reshape(-1)


def shorter(a):
    """One row short."""
    return a[:-1].copy()


def too_long(a):
    """More tokens than the context holds."""
    return np.tile(a, 9)


def integers(a):
    return a.astype("int64")


def other_dtype(a):
    return a.astype("float64" if a.dtype == "float32" else "float32")


def with_value(value):
    """The same array with `value` in its last place."""
    def change(a):
        a = a.copy()
        a.flat[-1] = value
        return a
    return change


def wrong(argument, *changes):
    """Rows of an op's `bad` table; the error must name the argument."""
    return tuple((f"{argument} {change.__name__}", argument, change, argument) for change in changes)


def too_big(a):
    return with_value(10 ** 6)(a)


def negative(a):
    return with_value(-2)(a)


def floats(a):
    return a.astype("float32")


def constant(value):
    def change(_):
        return value
    change.__name__ = f"= {value}"
    return change


OPS = {spec.name: spec for spec in (
    OpSpec("embedding", embedding_sample, ("wte", "wpe"),
           wrong("tokens", flatter, too_big, negative, floats, too_long)
           + wrong("wpe", narrower, other_dtype, flatter) + wrong("wte", flatter)
           + (("start too far", "start", constant(10 ** 6), "block_size"),
              ("start negative", "start", constant(-1), "block_size")),
           lambda d: (d.B * d.T * d.C, 2 * d.B * d.T * d.C), looked_up=("wte",)),
    OpSpec("linear", linear_sample, ("x", "weight", "bias"),
           wrong("weight", flatter, other_dtype, shorter) + wrong("bias", narrower, other_dtype)
           + (("x narrower", "x", narrower, "weight"),),
           lambda d: (8 * d.B * d.T * d.C ** 2, 16 * d.B * d.T * d.C ** 2)),
    OpSpec("lora_linear", lora_linear_sample, ("x", "a", "b"),
           wrong("weight", flatter, other_dtype) + wrong("bias", narrower) + wrong("a", shorter, other_dtype)
           + wrong("b", narrower, other_dtype) + wrong("p", constant(1.0)) + (("x narrower", "x", narrower, "weight"),),
           lambda d: (8 * d.B * d.T * d.C ** 2, 8 * d.B * d.T * d.C ** 2)),      # and r / C of it for the small one
    OpSpec("layernorm", layernorm_sample, ("x", "weight", "bias"),
           wrong("weight", narrower, other_dtype) + wrong("bias", narrower, other_dtype)
           + (("x narrower", "x", narrower, "weight"),),
           lambda d: (8 * d.B * d.T * d.C, 12 * d.B * d.T * d.C)),
    OpSpec("gelu", gelu_sample, ("x",), wrong("x", integers),
           lambda d: (4 * 10 * d.B * d.T * d.C, 4 * 20 * d.B * d.T * d.C)),
    OpSpec("attention", attention_sample, ("qkv",),
           wrong("qkv", narrower, flatter) + wrong("n_head", constant(3), constant(0)),
           lambda d: (2 * d.B * d.T ** 2 * d.C, 5 * d.B * d.T ** 2 * d.C)),      # causal: half of the square
    OpSpec("attention_decode", attention_decode_sample, (),
           wrong("k", narrower, other_dtype) + wrong("v", narrower, other_dtype),
           lambda d: (4 * d.B * d.T * d.C, 0), kind="decode"),
    OpSpec("head", head_sample, (), wrong("wte", narrower, other_dtype, flatter),
           lambda d: (2 * d.B * d.T * d.C * d.V, 0), kind="decode"),
    OpSpec("mlp", mlp_sample, ("x", "fc_weight", "fc_bias", "proj_weight", "proj_bias"),
           wrong("fc_weight", flatter, shorter, other_dtype) + wrong("fc_bias", narrower, other_dtype)
           + wrong("proj_weight", flatter, shorter, other_dtype) + wrong("proj_bias", narrower, other_dtype)
           + (("x narrower", "x", narrower, "fc_weight"),),
           lambda d: (16 * d.B * d.T * d.C ** 2, 32 * d.B * d.T * d.C ** 2), composite=True),
    OpSpec("residual_layernorm", residual_layernorm_sample, ("x", "y", "weight", "bias"),
           wrong("y", narrower, other_dtype) + wrong("weight", narrower, other_dtype)
           + wrong("bias", narrower, other_dtype),
           lambda d: (9 * d.B * d.T * d.C, 13 * d.B * d.T * d.C), alike=("y",)),
    OpSpec("dropout", dropout_sample, ("x",), wrong("p", constant(1.0), constant(-0.1)),
           lambda d: (d.B * d.T * d.C, d.B * d.T * d.C)),
    OpSpec("cross_entropy", cross_entropy_sample, ("logits",),
           wrong("logits", flatter) + wrong("targets", too_big, negative, floats, narrower),
           lambda d: (4 * d.B * d.T * d.V, 3 * d.B * d.T * d.V)),
    OpSpec("linear_cross_entropy", linear_cross_entropy_sample, ("x", "wte"),
           wrong("wte", narrower, other_dtype) + wrong("targets", too_big, negative, floats, narrower)
           + wrong("x", flatter),
           lambda d: (2 * d.B * d.T * d.C * d.V, 6 * d.B * d.T * d.C * d.V), composite=True),
    OpSpec("distillation_loss", distillation_loss_sample, ("logits",),
           wrong("logits", flatter) + wrong("teacher", narrower, shorter, other_dtype)
           + wrong("targets", too_big, negative, floats, narrower) + wrong("temperature", constant(0.0), constant(-1.0))
           + wrong("weight", constant(-0.1), constant(1.1)),
           lambda d: (15 * d.B * d.T * d.V, 8 * d.B * d.T * d.V)),
    OpSpec("dpo_loss", dpo_loss_sample, ("chosen", "rejected"),
           wrong("chosen", integers) + wrong("rejected", narrower, other_dtype) + wrong("ref_chosen", narrower)
           + wrong("ref_rejected", other_dtype) + wrong("beta", constant(0.0))
           + wrong("label_smoothing", constant(0.5), constant(-0.1)),
           lambda d: (12 * d.B * d.T, 8 * d.B * d.T)),
    OpSpec("grpo_loss", grpo_loss_sample, ("logp",),
           wrong("logp", integers) + wrong("old_logp", narrower, other_dtype) + wrong("ref_logp", narrower)
           + wrong("advantages", other_dtype) + wrong("clip", constant(0.0), constant(1.0))
           + wrong("beta", constant(-0.1)),
           lambda d: (12 * d.B * d.T, 5 * d.B * d.T)),
    OpSpec("adamw", adamw_sample, (),
           wrong("grad", narrower, other_dtype) + wrong("m", narrower) + wrong("v", other_dtype)
           + wrong("step", constant(0)) + wrong("n_decayed", constant(10 ** 9)) + wrong("beta1", constant(1.0))
           + wrong("beta2", constant(-0.1)),
           lambda d: (12 * 12 * d.C ** 2, 0), kind="update"),
    OpSpec("sum_squares", sum_squares_sample, (), wrong("x", integers),
           lambda d: (2 * 12 * d.C ** 2, 0), kind="reduce"),
)}

KERNELS = (
    Kernel("attention", "cpu"),
    Kernel("attention", "cpu", "1_naive"),
    Kernel("attention", "cpu", "2_blocked"),
    Kernel("attention", "cpu", "3_simd"),
    Kernel("attention", "cpu", "bf16", ("float32",)),                # float32 arrays, what it keeps is bfloat16
    *(Kernel("attention", backend, variant) for backend in ("cuda", "cudasim") for variant in ("1_naive", "2_flash")),
    # float32 arrays, products in bfloat16, as "bf16" below
    *(Kernel("attention", backend, variant, ("float32", "float16", "bfloat16"))
      for backend in ("cuda", "cudasim") for variant in ("3_mma", "4_wgmma")),
    *(Kernel("attention", backend, "", ("float32", "float64", "float16", "bfloat16"))
      for backend in ("cuda", "cudasim")),
    Kernel("attention_decode", "cpu"),
    Kernel("embedding", "cpu"),
    Kernel("gelu", "cpu"),
    Kernel("dropout", "cpu"),
    Kernel("cross_entropy", "cpu"),
    Kernel("distillation_loss", "cpu"),
    Kernel("head", "cpu"),
    Kernel("linear", "cpu"),
    Kernel("linear", "cpu", "1_naive"),
    Kernel("linear", "cpu", "2_blocked"),
    Kernel("linear", "cpu", "3_simd"),
    Kernel("linear", "cpu", "4_amx", ("float32",)),                  # as "bf16"; emulated where the CPU has no AMX
    Kernel("linear", "cpu", "bf16", ("float32",)),                   # float32 arrays, products in bfloat16
    Kernel("mlp", "cpu"),
    Kernel("mlp", "cpu", "bf16", ("float32",)),
    Kernel("linear_cross_entropy", "cpu"),
    Kernel("linear_cross_entropy", "cpu", "bf16", ("float32",)),
    Kernel("layernorm", "cpu"),
    Kernel("residual_layernorm", "cpu"),
    Kernel("adamw", "cpu"),
    Kernel("sum_squares", "cpu"),
)

SUFFIXES = {"pair": ("_forward", "_backward"), "decode": ("",), "reduce": ("",), "update": ("_update",)}


def functions(spec):
    """Names of an op's functions: layernorm_forward and layernorm_backward; adamw_update; attention_decode."""
    return [spec.name + suffix for suffix in SUFFIXES[spec.kind]]
