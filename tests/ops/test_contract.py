"""Tests generated from the op table: every op, in every built backend and dtype, keeps the contract of the op pair.

A new op or kernel is tested because it has a SPEC; nothing here names one, but for two kinds: "decode" ops have a
forward only, and "update" ops (adamw) write in place and have their own file. Gradients and errors are next door.
"""
import numpy as np
import pytest
from cases import arrays, cases, each, float_names, freeze, named_grads, named_outs, outputs, pair, sample, unchanged
from tolerances import assert_same_bits

from minillm.ops.table import OPS, Dims

every_pair = pytest.mark.parametrize("op, backend, dtype", cases())
every_output = pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "decode")))


@every_output
def test_dtype_and_shape_are_kept(op, backend, dtype):
    args = sample(op, dtype)
    for name, array in outputs(op, backend, args).items():
        assert array.dtype == dtype, f"{name}: {array.dtype}"
        if not name.startswith("out"):
            assert array.shape == args[name[1:]].shape, name
    if OPS[op].kind == "pair":
        _, cache = pair(op, backend)[0](**args)
        assert {a.dtype for a in arrays(cache) if a.dtype.kind == "f"} <= {np.dtype(dtype)}


@every_output
def test_inputs_and_cache_are_untouched(op, backend, dtype):
    """Every array is read-only during the calls and compared bit by bit after them."""
    args = sample(op, dtype)
    before = freeze(args)
    forward, *backward = pair(op, backend)
    result = forward(**args)
    assert unchanged(args, before)
    if backward:
        out, cache = result
        dout = each(np.ones_like, out)
        held = (args, cache, dout)
        before = freeze(held)
        backward[0](dout, cache)
        assert unchanged(held, before)


@every_output
def test_results_are_fresh(op, backend, dtype):
    """No result shares memory with an input; no gradient with dout, the cache or another gradient, unless it is that
    very array twice: residual_layernorm's two inputs have one and the same gradient."""
    args = sample(op, dtype)
    forward, *backward = pair(op, backend)
    result = forward(**args)
    out, cache = result if backward else (result, ())
    assert not any(np.shares_memory(o, array) for o in named_outs(out).values() for array in arrays(args))
    if backward:
        dout = each(np.ones_like, out)
        grads = named_grads(op, backward[0](dout, cache))
        for name, grad in grads.items():
            others = [g for other, g in grads.items() if other != name and g is not grad]
            assert not any(np.shares_memory(grad, array) for array in arrays((args, cache, dout, others))), name


@every_output
def test_repeats_bit_by_bit(op, backend, dtype):
    """Also the backward alone, twice on one cache."""
    args = sample(op, dtype, Dims(3, 17, 21, 3, 33))
    first, second = outputs(op, backend, args), outputs(op, backend, args)
    assert_same_bits(first, second)
    if OPS[op].kind == "pair":
        forward, backward = pair(op, backend)
        out, cache = forward(**args)
        one, two = (arrays(backward(out, cache)) or [backward(out, cache)] for _ in range(2))
        assert_same_bits(one, two)


@every_output
def test_nan_in_nan_out(op, backend, dtype):
    """A broken number must reach the loss, where training stops: no kernel may swallow it or crash on it."""
    args = sample(op, dtype)
    for name in float_names(args):
        broken = {**args, name: np.full_like(args[name], np.nan)}
        with np.errstate(all="ignore"):
            got = outputs(op, backend, broken)
            assert np.isnan(got["out1" if "out1" in got else "out"]).any(), name


@every_pair
def test_nan_dout_reaches_every_gradient(op, backend, dtype):
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    with np.errstate(all="ignore"):
        for name, grad in named_grads(op, backward(each(lambda a: np.full_like(a, np.nan), out), cache)).items():
            assert np.isnan(grad).any(), name
