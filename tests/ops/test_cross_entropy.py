"""Cross-entropy by hand, its ignored rows, huge logits; and the tied head with the loss as one op, chunk by chunk."""
import math
import tracemalloc

import numpy as np
import pytest
from cases import as_tuple, cases, every, pair, precision, sample
from tolerances import assert_close

from minillm import ops as reference
from minillm.kernels.select import choices
from minillm.ops.table import Dims


@every("cross_entropy")
def test_cross_entropy_by_hand(op, backend, dtype):
    """Logits log 1, log 2, log 5 are the probabilities 1/8, 2/8, 5/8."""
    forward, backward = pair(op, backend)
    logits = np.log(np.array([[1, 2, 5]] * 3)).astype(dtype)
    losses, cache = forward(logits, np.array([2, 0, -1]))
    assert_close("losses", losses, [math.log(8 / 5), math.log(8), 0], f"regrouped {dtype}")
    dlogits = backward(np.array([1, 2, 3], dtype), cache)
    want = np.array([[1, 2, -3], [-14, 4, 10], [0, 0, 0]]) / 8
    assert_close("dlogits", dlogits, want, f"regrouped {dtype}")


@pytest.mark.parametrize("ignore_index", [-1, -100, 2])
@every("cross_entropy")
def test_ignored_rows_are_exactly_zero(op, backend, dtype, ignore_index):
    forward, backward = pair(op, backend)
    logits = sample(op, dtype, Dims(B=3, T=5))["logits"]
    targets = np.arange(15) % 7
    targets[[0, 4, 14]] = ignore_index
    losses, cache = forward(logits, targets, ignore_index)
    dlogits = backward(np.ones(15, dtype), cache)
    ignored = targets == ignore_index
    assert np.all(losses[ignored] == 0) and np.all(losses[~ignored] > 0)
    assert np.all(dlogits[ignored] == 0) and np.all(np.abs(dlogits[~ignored]).sum(axis=1) > 0)


LOSSES = ("cross_entropy", "linear_cross_entropy", "distillation_loss")


def loss_of(backend, op, N, V, targets=None, ignore_index=-1):
    """A loss of N rows of zeros over V tokens."""
    forward, _ = pair(op, backend)
    z, targets = np.zeros((N, V), "float32"), np.zeros(N, int) if targets is None else targets
    if op == "linear_cross_entropy":
        return forward(np.zeros((N, 3), "float32"), np.zeros((V, 3), "float32"), targets, ignore_index)[0]
    return forward(z, targets, ignore_index)[0] if op == "cross_entropy" else forward(
        z, z, targets, 1.0, 0.9, ignore_index)[0]


@pytest.mark.parametrize("op, backend", [(op, backend) for op in LOSSES for backend in choices(op)])
def test_an_empty_batch_is_checked_as_any_other(op, backend):
    """Every implementation refuses the same, and takes each id of 64 bits as the one to ignore."""
    for N in (0, 2):
        for wrong in (1.5, "a", None, 2 ** 63, -2 ** 63 - 1, [1], np.float64(1)):
            with pytest.raises((ValueError, TypeError), match="ignore_index"):
                loss_of(backend, op, N, 5, ignore_index=wrong)
        for right in (-2 ** 63, 2 ** 63 - 1, True, np.int8(-7)):
            assert loss_of(backend, op, N, 5, ignore_index=right).shape == (N,)
        for wrong in (np.zeros(N), np.zeros(N, bool), np.zeros(N + 1, int)):
            with pytest.raises(ValueError, match="targets"):
                loss_of(backend, op, N, 5, wrong)
        with pytest.raises(ValueError, match="wte must have at least" if op[0] == "l" else "logits must have at least"):
            loss_of(backend, op, N, 0, np.full(N, -1))


@every("cross_entropy")
def test_huge_logits_stay_finite(op, backend, dtype):
    forward, backward = pair(op, backend)
    logits = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4], [-1e4, -1e4, -1e4]], dtype)
    losses, cache = forward(logits, np.array([0, 2, 1]))
    assert_close("losses", losses, [0, 2e4, math.log(3)], f"regrouped {dtype}")
    dlogits = backward(np.ones(3, dtype), cache)
    assert_close("dlogits", dlogits, [[0, 0, 0], [1, 0, -1], [1 / 3, -2 / 3, 1 / 3]], f"huge logits {dtype}")


@every("cross_entropy")
def test_dlogits_of_a_row_sum_to_zero(op, backend, dtype):
    forward, backward = pair(op, backend)
    losses, cache = forward(**sample(op, dtype, Dims(V=33)))
    sums = backward(np.ones_like(losses), cache).sum(axis=1)
    assert_close("sums", sums, np.zeros_like(sums), f"regrouped {dtype}")


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 600])
@every("linear_cross_entropy")
def test_chunks_change_nothing(op, backend, dtype, rows):
    """The fused op is linear (weight wte.T, no bias) followed by cross_entropy, on each side of a chunk's edge."""
    rng = np.random.default_rng(rows)
    x, wte = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, 6), (11, 6)))
    targets, dout = rng.integers(-1, 11, rows), rng.standard_normal(rows).astype(dtype)
    forward, backward = pair(op, backend)
    losses, cache = forward(x, wte, targets)
    dx, dwte = backward(dout, cache)
    logits, linear_cache = reference.linear_forward(x, wte.T.copy(), np.zeros(11, dtype))
    want, loss_cache = reference.cross_entropy_forward(logits, targets)
    want_dx, dweight, _ = reference.linear_backward(reference.cross_entropy_backward(dout, loss_cache), linear_cache)
    for name, got, right in (("losses", losses, want), ("dx", dx, want_dx), ("dwte", dwte, dweight.T)):
        assert_close(name, got, right, f"reference {precision(backend, dtype)}")


@pytest.mark.parametrize("backend", [name for name in choices("linear_cross_entropy") if not name.startswith("cuda")])
def test_all_logits_are_never_in_memory(backend):
    """4096 x 2000 float32 logits would be 33 MB; a chunk of 256 rows is 2 MB, and a handful of them are alive."""
    N, V, C = 4096, 2000, 8
    rng = np.random.default_rng(0)
    x, wte = (rng.standard_normal(shape).astype("float32") for shape in ((N, C), (V, C)))
    forward, backward = pair("linear_cross_entropy", backend)
    tracemalloc.start()
    losses, cache = forward(x, wte, rng.integers(0, V, N))
    backward(np.ones_like(losses), cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N * V * 4 / 3, f"peak {peak / 1e6:.1f} MB"


@pytest.mark.parametrize("op", ["cross_entropy", "linear_cross_entropy", "distillation_loss"])
def test_the_largest_logit_may_stand_in_any_column(op):
    """By 10,000 the largest: a maximum that passes over one lane of a vector makes an infinity of its exponential."""
    V, right = 100, np.arange(100)
    for _, backend, dtype in (case.values for case in cases() if case.values[0] == op):
        eye = 100 * np.eye(V, dtype=dtype)
        arrays = {"cross_entropy": (100 * eye,), "linear_cross_entropy": (eye, eye),
                  "distillation_loss": (100 * eye, np.zeros_like(eye))}[op]
        options = {"weight": 0.0} if op == "distillation_loss" else {}
        for targets, want in ((right, 0), (np.roll(right, 1), 10_000)):
            forward, backward = pair(op, backend)
            losses, cache = forward(*arrays, targets, **options)
            grads = backward(np.ones_like(losses), cache)
            assert (losses == want).all(), (backend, dtype)
            assert all(np.isfinite(grad).all() for grad in as_tuple(grads))
