"""Errors of low precision: every kernel is within its bound, bounds are right and near, a planted loss is beyond."""
import json

import numpy as np
import pytest
from cases import as_tuple, sample

from minillm.__main__ import main
from minillm.kernels.select import choices
from minillm.ops.table import OPS, REFERENCE, Dims, functions
from minillm.workbench import precision
from minillm.workbench.precision import MEASURED, Rounded, gamma, joined, precision_table

PAIRS = [op for op, spec in OPS.items() if spec.kind == "pair"]
FAR = {("lora_mlp", "fc_a"), ("lora_mlp", "proj_b")}        # sums over rows of sums over columns: bounds are wider
SIZES = [Dims(), Dims(1, 1, 1, 1, 2), Dims(3, 17, 27, 3, 33), MEASURED]


def bounded(*numbers):
    return joined(np.array(numbers), 0.0)


@pytest.mark.parametrize("dims", SIZES, ids=str)
def test_every_kernel_is_within_its_bound(dims):
    """Of the worst case, and of the likely one, too."""
    rows = precision_table(dims=dims, seed=1)
    assert {(row["op"], row["backend"]) for row in rows} == {
        (op, choice) for op in PAIRS for choice in choices(op, "float32") if not choice.startswith("cuda")}
    for row in rows:
        assert row["passed"] and row["ratio"] <= 1 and row["likely_ratio"] <= 1, row


def test_bounds_are_near():
    """A bound that is far from the errors would let a loss of precision pass: none is above 1e-3 of the gradient."""
    for row in precision_table():
        wider = 4 if (row["op"], row["gradient"]) in FAR else 1
        assert row["bound"] < wider * (1e-3 if row["type"] == "float32" else 1), row


def round_to_bfloat16(grad):
    return (grad.view("uint32") + 0x8000 & 0xFFFF0000).astype("uint32").view("float32")


def in_half_sums(grad):
    """An error of 2^-11, float16's and TF32's."""
    return (grad.astype("float16") if np.abs(grad).max() < 6e4 else grad * np.float32(1 + 2 ** -11)).astype("float32")


@pytest.mark.parametrize("loss", [round_to_bfloat16, in_half_sums])
@pytest.mark.parametrize("op", PAIRS)
def test_a_gradient_that_is_rounded_too_far_is_beyond_its_bound(op, loss, monkeypatch):
    """Gradient by gradient."""
    right = precision.select

    def planted(wanted, which):
        ops = right(wanted)
        _, backward = functions(OPS[op])

        def wrong(dout, cache):
            grads = as_tuple(getattr(ops, backward)(dout, cache))
            return *grads[:which], loss(grads[which]), *grads[which + 1:]
        return ops._replace(**{backward: wrong})

    for which, name in enumerate(OPS[op].differentiable):
        if loss is in_half_sums and (op, name) in FAR:
            continue
        monkeypatch.setattr(precision, "select", lambda wanted, which=which: planted(wanted, which))
        rows = precision_table([op], "numpy")
        assert [row["gradient"] for row in rows if not row["passed"]] == [name]


def test_a_product_in_bfloat16_is_beyond_the_bound_of_float32(monkeypatch):
    if "cpu/bf16" not in choices("linear"):
        pytest.skip("kernels are not built")
    monkeypatch.setattr(precision, "in_bfloat16", lambda choice: False)
    for op in ("linear", "mlp", "attention", "linear_cross_entropy"):
        assert not precision_table([op], "cpu/bf16")[0]["passed"]


@pytest.mark.parametrize("op", PAIRS)
def test_the_numbers_are_the_references_in_float64(op):
    inputs = sample(op, "float32", MEASURED)
    forward, backward = (REFERENCE[name] for name in functions(OPS[op]))
    wide = {name: x.astype("float64") if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
            for name, x in inputs.items()}
    out, cache = forward(*wide.values())
    dout = precision.each(np.ones_like, out)
    found = precision.exact_with_bounds(op, inputs, dout)
    for (name, (value, bound)), want in zip(found.items(), as_tuple(backward(dout, cache)), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-12, atol=1e-13 * np.abs(want).max(), err_msg=name)
        assert (bound >= 0).all() and np.isfinite(bound).all()


def test_bounds_worked_out_by_hand():
    u = 2.0 ** -24
    x, y = bounded(3.0, -4.0), bounded(0.5, 0.25)
    assert (x + y).imag == pytest.approx([3.5 * u, 3.75 * u])
    assert (x * y).imag == pytest.approx([1.5 * u, u])
    assert (x @ y).imag == pytest.approx(gamma(2) * 2.5)
    assert x.sum().imag == pytest.approx(gamma(1) * 7)
    assert np.exp(x + y).imag == pytest.approx(np.exp([3.5, -3.75]) * (4 + np.array([3.5, 3.75])) * u)
    assert bounded(1e8, 1.0).sum().imag == pytest.approx(1e8 * u, rel=1e-6)
    assert ((x + 1e8) - 1e8).imag == pytest.approx([1e8 * u] * 2, rel=1e-6)        # cancellation keeps the error
    assert (x * 0.1).imag == pytest.approx(np.abs([3, -4]) * (abs(0.1 - float(np.float32(0.1))) + 0.1 * u))
    assert gamma(1000) == pytest.approx(1000 * u, rel=1e-3)


def test_a_likely_bound_has_the_root_of_n(monkeypatch):
    monkeypatch.setattr(Rounded, "likely", True)
    assert gamma(100) == 10 * 2.0 ** -24


def test_the_command(capsys):
    assert main(["gradcheck", "--precision", "--op", "layernorm", "--json"]) == 0
    assert {row["gradient"] for row in json.loads(capsys.readouterr().out)} == {"x", "weight", "bias"}
    assert main(["gradcheck", "--precision", "--op", "linear"]) == 0
    assert "gradients within their bounds" in capsys.readouterr().out


def test_a_gradient_beyond_its_bound_is_named_and_the_exit_code_says_so(capsys, monkeypatch):
    monkeypatch.setitem(precision.UNIT, "float32", 1e-12)
    assert main(["gradcheck", "--precision", "--op", "gelu"]) == 1
    assert "BEYOND ITS BOUND: gelu on numpy: gradient of x at (" in capsys.readouterr().out
