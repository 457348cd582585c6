"""Tests generated from the op table: every op, in every built backend and dtype, keeps the contract of the op pair.

A new op or kernel is tested because its file has a SPEC; nothing here names one, but for two kinds: "decode" ops have a
forward only, and "update" ops (adamw) write in place and have their own file.
"""
import numpy as np
import pytest
from cases import (
    USUAL,
    arrays,
    cases,
    each,
    float_names,
    freeze,
    named_grads,
    named_outs,
    normal_like,
    one_changed,
    outputs,
    pair,
    precision,
    sample,
    strided,
    supported,
    unchanged,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCES, assert_close, assert_same_bits

from minillm.gradcheck import gradcheck
from minillm.ops.table import OPS, Dims

SMALL = settings(derandomize=True, deadline=None, max_examples=12, database=None)
DIMS = st.builds(lambda B, T, NH, HS, V: Dims(B, T, NH * HS, NH, V), st.integers(1, 3), st.integers(1, 17),
                 st.integers(1, 3), st.integers(1, 9), st.integers(2, 33))
SIZES = {"unusual": Dims(3, 17, 21, 3, 33), "one token": Dims(2, 1, 8, 2, 11), "one sequence": Dims(1, 5, 8, 2, 11)}
every_pair = pytest.mark.parametrize("op, backend, dtype", cases())
every_output = pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "decode")))
bad_rows = [pytest.param(*case.values, row, id=f"{case.id}-{row[0]}")
            for case in cases(kinds=("pair", "decode", "update")) for row in OPS[case.values[0]].bad]


def check_gradient(op, backend, method, dims=USUAL, samples=None, seed=0):
    forward, backward = pair(op, backend)
    inputs = sample(op, "float64", dims, seed)
    rows = gradcheck(forward, backward, inputs, method=method, samples=samples, wrt=OPS[op].differentiable,
                     **TOLERANCES[method].both)
    assert [row.name for row in rows] == list(OPS[op].differentiable)


def check_agreement(op, backend, dtype, dims, tolerance):
    args = sample(op, dtype, dims)
    want = outputs(op, "numpy", args)
    for name, got in outputs(op, backend, args).items():
        assert_close(f"{op} {backend} {name}", got, want[name], f"{tolerance} {precision(backend, dtype)}")


@pytest.mark.parametrize("op, backend, dtype", cases(dtypes=["float64"]))
def test_gradient_by_central_differences(op, backend, dtype):
    check_gradient(op, backend, "central")


@pytest.mark.parametrize("op", [op for op, spec in OPS.items() if spec.kind == "pair"])
def test_gradient_by_complex_step(op):
    """Reference only: it accepts complex128, compiled kernels do not."""
    check_gradient(op, "numpy", "complex")


@pytest.mark.parametrize("dims", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "decode"), compiled_only=True))
def test_kernel_agrees_with_reference(op, backend, dtype, dims):
    check_agreement(op, backend, dtype, dims, "reference")


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


@pytest.mark.parametrize("op, backend, dtype, row", bad_rows)
def test_bad_input_is_named(op, backend, dtype, row):
    _, argument, change, words = row
    args = sample(op, dtype)
    args[argument] = change(args[argument])
    with pytest.raises(ValueError, match=words):
        pair(op, backend)[0](**args)


@every_pair
def test_bad_dout_is_named(op, backend, dtype):
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    for change in (lambda a: a[:-1].copy(), lambda a: a[..., None].copy(), lambda a: a.reshape(-1)[:-1].copy()):
        for dout in one_changed(out, change):
            with pytest.raises(ValueError, match="d(out|sum) must have shape"):
                backward(dout, cache)


@every_pair
def test_dout_of_another_dtype_is_refused(op, backend, dtype):
    """Mixed dtypes raise: a float64 dout would silently promote a float32 backward."""
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    other = "float64" if dtype == "float32" else "float32"
    for dout in one_changed(out, lambda a: a.astype(other)):
        with pytest.raises(ValueError, match="dout|dsum"):
            backward(dout, cache)


@pytest.mark.parametrize("op, backend, dtype", cases(kinds=("pair", "update"), compiled_only=True))
def test_kernel_refuses_gaps(op, backend, dtype):
    """Compiled kernels take contiguous arrays only; decode ops are exempt, since they read views of the cache."""
    args = sample(op, dtype)
    functions = pair(op, backend)
    for name in float_names(args):
        with pytest.raises(ValueError, match=name):
            functions[0](**{**args, name: strided(args[name])})
    if OPS[op].kind == "pair":
        out, cache = functions[0](**args)
        for dout in one_changed(out, strided):
            with pytest.raises(ValueError, match="dout|dsum"):
                functions[1](dout, cache)


@pytest.mark.parametrize("op, backend, dtype", [c for c in cases(kinds=("pair", "decode")) if c.values[1] == "numpy"])
def test_reference_accepts_gaps(op, backend, dtype):
    args = sample(op, dtype)
    loose = {name: strided(value) if name in float_names(args) else value for name, value in args.items()}
    want = outputs(op, backend, args)
    for name, got in outputs(op, backend, loose).items():
        assert_close(name, got, want[name], f"regrouped {dtype}")


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


@every_pair
def test_backward_is_linear_in_dout(op, backend, dtype):
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    rng = np.random.default_rng(1)
    d1, d2 = (each(lambda part: normal_like(part, rng), out) for _ in range(2))
    a, b = 3.0, -0.5
    together = named_grads(op, backward(each(lambda x, y: a * x + b * y, d1, d2), cache))
    first, second = (named_grads(op, backward(d, cache)) for d in (d1, d2))
    for name, got in together.items():
        assert_close(name, got, a * first[name] + b * second[name], f"regrouped {precision(backend, dtype)}")


@every_pair
def test_backward_of_zero_is_zero(op, backend, dtype):
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    for name, grad in named_grads(op, backward(each(np.zeros_like, out), cache)).items():
        assert np.array_equal(grad, np.zeros_like(grad)), name


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


@pytest.mark.parametrize("op, backend", sorted({c.values[:2] for c in cases()}))
@SMALL
@given(dims=DIMS, seed=st.integers(0, 99))
@example(dims=Dims(1, 1, 1, 1, 2), seed=0)
@example(dims=Dims(3, 17, 27, 3, 33), seed=0)
def test_any_size(op, backend, dims, seed):
    """Gradients at odd sizes; kernels also against the reference, in the dtypes they take."""
    if "float64" in supported(op, backend):
        check_gradient(op, backend, "complex" if backend == "numpy" else "central", dims, samples=4, seed=seed)
    if backend != "numpy":
        for dtype in {"float32", "float64"} & set(supported(op, backend)):
            check_agreement(op, backend, dtype, dims, "odd sizes")
