"""Weights that are not plain arrays: a namespace of ops that reads every weight by its type.

    np.ndarray    as it is
    Quantized     int8 or int4 with scales: in integer arithmetic (integer.py); WeightOnly ones, and bfloat16:
                  dequantized, unless the op multiplies in that type (quantized.py)
    Adapted       frozen, plus a trainable low-rank update (adapted.py): lora_linear in place of linear, lora_mlp of
                  mlp, lora_projection of projection
    Panels        float32 or bfloat16 as decoding reads it fastest (panels.py); prompts multiply by it as it lies

The models' code is the same for all of them. The compiled decoding step reads Quantized weights and
Panels by itself.
"""
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..kernels.select import STEPS, Ops
from ..ops.losses.linear_cross_entropy import chunks
from .adapted import Adapted
from .integer import integer_linear
from .panels import Panels
from .quantized import Quantized, dequantized, gathered, multiplies_integers, outputs_of

Array = np.ndarray
STORED = (Quantized, Panels)
LOGIT_ROWS = 256            # tokens whose logits are in memory at a time, where a quantized head is evaluated


def ops_for(params: Mapping, ops: Ops, activation: str = "gelu_new") -> Ops:
    """`ops` itself where all parameters are plain arrays, else the same namespace for the types among them; with an MLP
    of this activation."""
    types = set(map(type, params.values()))
    ops = with_activation(ops, ACTIVATIONS[activation]) if activation != "gelu_new" else ops
    ops = for_quantized(ops, ACTIVATIONS[activation]) if any(issubclass(t, STORED) for t in types) else ops
    return for_adapted(ops, ACTIVATIONS[activation]) if Adapted in types else ops


def derived_again(params: Mapping, ops: Ops, activation: str = "gelu_new") -> Ops:
    """`ops_for` of a model that was pickled, and so has the ops that were selected; of one that was copied, its own."""
    if any(getattr(function, "__module__", "") == __name__ for function in ops[:-1]):
        return ops
    return ops_for(params, ops, activation)


# ---- another activation than that of op mlp ----

ACTIVATIONS = {"gelu_new": "gelu", "gelu": "gelu_exact", "relu": "relu"}        # names of config.json: ops


def with_activation(ops: Ops, activation: str) -> Ops:
    """The namespace `ops`, whose MLP is made of `linear` and the activation of this name."""
    forward, backward = mlp_of(ops, activation)
    ops = ops._replace(mlp_forward=forward, mlp_backward=backward, **steps_of(ops))
    compiled = activation == "gelu_exact" and ops.backends[activation] == "cpu"
    return ops if compiled else ops._replace()                                  # without the compiled step


def steps_of(ops: Ops) -> dict[str, Any]:
    """The compiled steps, which `_replace` forgets, where they read the weights' types by themselves."""
    return {step: getattr(ops, step) for step in STEPS}


def mlp_of(ops: Ops, activation: str) -> tuple[Callable, Callable]:
    """The pair of op mlp, its steps one by one, with the activation of this name in the middle."""
    act_forward, act_backward = getattr(ops, f"{activation}_forward"), getattr(ops, f"{activation}_backward")

    def forward(x: Array, fc_weight: Any, fc_bias: Array, proj_weight: Any, proj_bias: Array) -> tuple:
        h, fc = ops.linear_forward(x, fc_weight, fc_bias)
        a, act = act_forward(h)
        out, proj = ops.linear_forward(a, proj_weight, proj_bias)
        return out, (fc, act, proj)

    def backward(dout: Array, cache: tuple, into: tuple) -> tuple:
        fc, act, proj = cache
        da, *dproj = ops.linear_backward(dout, proj, into=into[2:])
        dx, *dfc = ops.linear_backward(act_backward(da, act), fc, into=into[:2])
        return dx, *dfc, *dproj

    return forward, backward


# ---- Quantized and Panels: what reads prompts, evaluates, and defines what the compiled step must give ----

def for_quantized(ops: Ops, activation: str = "gelu") -> Ops:
    """The namespace `ops`, whose GEMMs round activations for a Quantized matrix, or dequantize it first, and take
    Panels as they lie."""
    def as_stored(op: str, weight: Any) -> bool:
        return multiplies_integers(weight) or in_its_arithmetic(ops, op, weight)

    def by_stored(x: Array, weight: Any, bias: Array | None = None, activation: str = "") -> Array:
        kernel = ops.panel_linear if isinstance(weight, Panels) else ops.integer_linear
        if kernel and activation != "relu":                                               # which it has no epilogue of
            return kernel(x, weight, bias, activation)
        out = (kernel or integer_linear)(x, weight, bias)
        return getattr(ops, f"{activation}_forward")(out)[0] if activation else out

    def embedding_forward(tokens: Array, wte: Any, wpe: Array, start: int = 0) -> tuple:
        if isinstance(wte, STORED):
            wte, tokens = gathered(wte, tokens)
        return ops.embedding_forward(tokens, wte, wpe, start)

    def token_embedding_forward(tokens: Array, wte: Any) -> tuple:
        return ops.token_embedding_forward(*(gathered(wte, tokens)[::-1] if isinstance(wte, STORED) else
                                             (tokens, wte)))

    def linear_forward(x: Array, weight: Any, bias: Array) -> tuple:
        if as_stored("linear", weight):
            return by_stored(x, weight, bias), None
        return ops.linear_forward(x, operand(ops, "linear", weight), bias)

    def projection_forward(x: Array, weight: Any, bias: Array | None = None) -> tuple:
        if not isinstance(weight, STORED):
            return ops.projection_forward(x, weight, bias)
        zeros = np.zeros(outputs_of(weight), np.float32)                                  # (I, J), as it is stored
        return linear_forward(x, weight, zeros if bias is None else bias)

    def mlp_forward(x: Array, fc_weight: Any, fc_bias: Array, proj_weight: Any, proj_bias: Array) -> tuple:
        if as_stored("mlp", fc_weight):
            return by_stored(by_stored(x, fc_weight, fc_bias, activation), proj_weight, proj_bias), None
        return ops.mlp_forward(x, operand(ops, "mlp", fc_weight), fc_bias, operand(ops, "mlp", proj_weight), proj_bias)

    def linear_cross_entropy_forward(x: Array, wte: Any, targets: Array, ignore_index: int = -1) -> tuple:
        if multiplies_integers(wte):
            losses = [ops.cross_entropy_forward(by_stored(x[part], wte), targets[part], ignore_index)[0]
                      for part in chunks(len(x), LOGIT_ROWS)]
            return np.concatenate(losses or [np.zeros(0, x.dtype)]), None
        wte = np.ascontiguousarray(dequantized(wte).T) if isinstance(wte, STORED) else wte               # (V, C)
        return ops.linear_cross_entropy_forward(x, wte, targets, ignore_index)

    def head(x: Array, wte: Any) -> Array:
        if not isinstance(wte, STORED):
            return ops.head(x, wte)
        return linear_forward(x, wte, np.zeros(outputs_of(wte), np.float32))[0]           # (K, V): as it is stored

    return ops._replace(embedding_forward=embedding_forward, linear_forward=linear_forward, mlp_forward=mlp_forward,
                        token_embedding_forward=token_embedding_forward, projection_forward=projection_forward,
                        linear_cross_entropy_forward=linear_cross_entropy_forward, head=head, **steps_of(ops))


def operand(ops: Ops, op: str, weight: Any) -> np.ndarray:
    """A weight as an op of this namespace takes it: by its bits where that multiplies in bfloat16, else float32."""
    return weight.values if read_as_bits(ops, op, weight) else dequantized(weight)


def read_as_bits(ops: Ops, op: str, weight: Any) -> bool:
    return isinstance(weight, Quantized) and weight.scales is None and ops.backends[op] == "cpu/bf16"


def in_its_arithmetic(ops: Ops, op: str, weight: Any) -> bool:
    """Is this weight in panels of the numbers that the op multiplies?"""
    return isinstance(weight, Panels) and ops.backends[op] == {"float32": "cpu", "bfloat16": "cpu/bf16"}[weight.form]


def read_dequantized(ops: Ops, weight: Any) -> bool:
    """Would a GEMM dequantize this weight? That costs more than most prompts: a chunked prefill is cheaper."""
    return isinstance(weight, STORED) and not (multiplies_integers(weight) or read_as_bits(ops, "linear", weight)
                                               or in_its_arithmetic(ops, "linear", weight))


# ---- Adapted ----

AdaptedCache = namedtuple("AdaptedCache", "cache")           # of an op that ran on an Adapted weight: its type tells


def for_adapted(ops: Ops, activation: str = "gelu") -> Ops:
    """The namespace `ops`, in which an op takes the low-rank update, too, where the weight has one."""
    def linear_forward(x: Array, weight: Any, bias: Array) -> tuple:
        if not isinstance(weight, Adapted):
            return ops.linear_forward(x, weight, bias)
        frozen, *update = weight
        out, cache = ops.lora_linear_forward(x, frozen, bias, *update)
        return out, AdaptedCache(cache)

    def linear_backward(dout: Array, cache: tuple, into: tuple) -> tuple:
        if isinstance(cache, AdaptedCache):
            return ops.lora_linear_backward(dout, cache.cache, into[0])
        return ops.linear_backward(dout, cache, into)

    def mlp_forward(x: Array, fc_weight: Any, fc_bias: Array, proj_weight: Any, proj_bias: Array) -> tuple:
        if not isinstance(fc_weight, Adapted) and not isinstance(proj_weight, Adapted):
            return ops.mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias)
        fc, proj = (with_update(weight, fc_bias.dtype) for weight in (fc_weight, proj_weight))
        out, cache = ops.lora_mlp_forward(x, fc.frozen, fc_bias, fc.a, fc.b, proj.frozen, proj_bias, proj.a, proj.b,
                                          fc.scale, proj.scale, max(fc.dropout, proj.dropout), fc.key, proj.key)
        return out, AdaptedCache(cache)

    def mlp_backward(dout: Array, cache: tuple, into: tuple) -> tuple:
        if not isinstance(cache, AdaptedCache):
            return ops.mlp_backward(dout, cache, into=into)
        fc, proj = (place if isinstance(place, tuple) else (None, None) for place in into[::2])   # of rank 0: nothing
        return ops.lora_mlp_backward(dout, cache.cache, (*fc, *proj))

    def projection_forward(x: Array, weight: Any, bias: Array | None = None) -> tuple:
        if not isinstance(weight, Adapted):
            return ops.projection_forward(x, weight, bias)
        frozen, *update = weight
        out, cache = ops.lora_projection_forward(x, frozen, bias, *update)
        return out, AdaptedCache(cache)

    def projection_backward(dout: Array, cache: tuple, into: tuple) -> tuple:
        if isinstance(cache, AdaptedCache):
            return ops.lora_projection_backward(dout, cache.cache, into[0])
        return ops.projection_backward(dout, cache, into)

    adapted = ops._replace(linear_forward=linear_forward, linear_backward=linear_backward,
                           projection_forward=projection_forward, projection_backward=projection_backward)
    mlp = (mlp_forward, mlp_backward) if activation == "gelu" else mlp_of(adapted, activation)     # lora_mlp has GELU's
    return adapted._replace(mlp_forward=mlp[0], mlp_backward=mlp[1])


def with_update(weight: Any, dtype: np.dtype) -> Adapted:
    """A weight (I, J) as it is, or with an update of rank 0."""
    if isinstance(weight, Adapted):
        return weight
    I, J = weight.shape
    return Adapted(weight, np.zeros((I, 0), dtype), np.zeros((0, J), dtype), 0.0, 0.0, (0, 0, 0))
