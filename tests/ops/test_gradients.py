"""Every op's backward, in every built backend: right by numeric derivatives, linear, the reference's at any size."""
import numpy as np
import pytest
from cases import USUAL, cases, each, named_grads, normal_like, outputs, pair, precision, sample, supported
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from minillm.gradcheck import gradcheck
from minillm.ops.table import OPS, Dims

SMALL = settings(derandomize=True, deadline=None, max_examples=12, database=None)
DIMS = st.builds(lambda B, T, NH, HS, V: Dims(B, T, NH * HS, NH, V), st.integers(1, 3), st.integers(1, 17),
                 st.integers(1, 3), st.integers(1, 9), st.integers(2, 33))
SIZES = {"unusual": Dims(3, 17, 21, 3, 33), "one token": Dims(2, 1, 8, 2, 11), "one sequence": Dims(1, 5, 8, 2, 11)}
every_pair = pytest.mark.parametrize("op, backend, dtype", cases())


def check_gradient(op, backend, method, dims=USUAL, samples=None, seed=0):
    forward, backward = pair(op, backend)
    inputs = sample(op, "float64", dims, seed)
    rows = gradcheck(forward, backward, inputs, method=method, samples=samples, wrt=OPS[op].differentiable)
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


ONCE = {c.values[:2] for c in cases() if "cudasim/" not in c.values[1]} - {("grouped_attention", "cudasim")}


@pytest.mark.parametrize("op, backend", sorted(ONCE))
@SMALL
@given(dims=DIMS, seed=st.integers(0, 99))
@example(dims=Dims(1, 1, 1, 1, 2), seed=0)
@example(dims=Dims(3, 17, 27, 3, 33), seed=0)
def test_any_size(op, backend, dims, seed):
    """Gradients at odd sizes; kernels also against the reference, in the dtypes they take. (On the emulator, which is
    slow, the best step of a ladder; the tests around this one have all, cuda/test_shared_keys.py grouped attention.)"""
    if "float64" in supported(op, backend):
        check_gradient(op, backend, "complex" if backend == "numpy" else "central", dims, samples=4, seed=seed)
    if backend != "numpy":
        for dtype in {"float32", "float64"} & set(supported(op, backend)):
            check_agreement(op, backend, dtype, dims, "odd sizes")


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
