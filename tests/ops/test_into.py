"""Gradients of parameters can be added to arrays of the caller, and left out where nobody wants them."""
from inspect import signature

import numpy as np
import pytest
from cases import cases, each, named_grads, normal_like, pair, precision, sample
from tolerances import assert_close, assert_same_bits

from minillm.ops.table import OPS, REFERENCE

DATA = ("x", "y", "qkv", "logits")                  # differentiable arguments that are not parameters
WITH_PARAMETERS = [op for op, spec in OPS.items() if spec.kind == "pair"
                   and "into" in signature(REFERENCE[f"{op}_backward"]).parameters]
with_parameters = pytest.mark.parametrize("op, backend, dtype", [c for c in cases() if c.values[0] in WITH_PARAMETERS])


def run(op, backend, dtype):
    """(backward, dout, cache, {gradient's name: array}) of a sample of the op."""
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    rng = np.random.default_rng(3)
    dout = each(lambda array: normal_like(array, rng), out)
    return backward, dout, cache, named_grads(op, backward(dout, cache))


@with_parameters
def test_backward_adds_into_arrays_it_is_given(op, backend, dtype):
    """Gradients of parameters can be added to the caller's buffer; the sum is the same, and the others are."""
    backward, dout, cache, fresh = run(op, backend, dtype)
    into = tuple(np.full_like(grad, 0.5) for name, grad in fresh.items() if name[1:] not in DATA)
    got = named_grads(op, backward(dout, cache, into=into))
    for name, grad in got.items():
        if name[1:] in DATA:
            assert_same_bits(grad, fresh[name], name)
        else:
            assert any(grad is array for array in into), name
            assert_close(name, grad, fresh[name] + 0.5, f"regrouped {precision(backend, dtype)}")
    with pytest.raises(ValueError, match="into"):
        backward(dout, cache, into=tuple(np.ascontiguousarray(array[:-1]) for array in into))
    with pytest.raises(ValueError, match="into"):
        backward(dout, cache, into=into[:-1])
    other = {"float32": "float64", "float64": "float32"}[into[0].dtype.name]
    with pytest.raises(ValueError, match="into"):
        backward(dout, cache, into=tuple(array.astype(other) for array in into))


@with_parameters
def test_what_nobody_wants_is_not_there_and_changes_nothing(op, backend, dtype):
    """None in place of one gradient, or of all: the others keep every bit."""
    backward, dout, cache, grads = run(op, backend, dtype)
    parameters = {name: grad for name, grad in grads.items() if name[1:] not in DATA}

    def into(unwanted):
        return tuple(None if name in unwanted else np.full_like(grad, 0.5) for name, grad in parameters.items())
    whole = named_grads(op, backward(dout, cache, into=into([])))
    for names in [*([name] for name in parameters), list(parameters)]:
        for name, grad in named_grads(op, backward(dout, cache, into=into(names))).items():
            assert (grad is None) == (name in names), name
            if grad is not None:
                assert_same_bits(grad, whole[name], name)
