"""Muon on a GPU, tested on the emulator: wide, tall and many matrices, whose rows may be apart."""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import ops as reference
from minillm.kernels.select import cuda
from minillm.ops.bfloat16 import bfloat16_bits

sim = cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)
SHAPES = [(6, 6), (5, 36), (36, 5), (1, 9), (9, 1), (33, 40)]
SETTINGS = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "scale": 0.5}


def state(shape, dtype="float64"):
    return [a.astype(dtype) for a in np.random.default_rng(shape).standard_normal((3, *shape))]      # w, grad, m


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_step_of_the_reference(shape, dtype):
    """A tall matrix is not transposed here, so that its sums have another order."""
    w, grad, m = state(shape, dtype)
    want = [a.astype("float64") for a in (w, grad, m)]
    reference.muon_update(*want, **SETTINGS)
    sim.muon_update(w, grad, m, **SETTINGS)
    assert_close("w", w, want[0], f"odd sizes {dtype}")
    assert_close("m", m, want[2], f"odd sizes {dtype}")


def test_many_matrices_as_each_alone():
    """The largest is not the first: what one leaves in the room that they share reaches no other."""
    alone = [state(shape, "float32") for shape in SHAPES]
    w, grad, m = ([a[i].copy() for a in alone] for i in range(3))
    bits = [np.zeros(shape, "uint16") for shape in SHAPES]
    sim.muon_update(w, grad, m, **SETTINGS, bits=bits)
    for one in alone:
        sim.muon_update(*one, **SETTINGS)
    assert_same_bits(w + m, [a[0] for a in alone] + [a[2] for a in alone])
    assert_same_bits(bits, [bfloat16_bits(a) for a in w])


def test_rows_that_are_apart():
    """The middle third of a wider matrix: what stands beside it stays, on either side; grad is only read."""
    wide = state((7, 15), "float32")
    wide[1].flags.writeable = False
    there = [sim.from_numpy(a) for a in wide]
    want = [a[:, 5:10].copy() for a in wide]
    sim.muon_update(*want, **SETTINGS)
    sim.muon_update(*(a[:, 5:10] for a in there), **SETTINGS)
    before = [a.copy() for a in wide]
    sim.muon_update(*(a[:, 5:10] for a in wide), **SETTINGS)
    for a, old in zip(wide, before, strict=True):
        assert_same_bits(np.delete(a, slice(5, 10), 1), np.delete(old, slice(5, 10), 1))
    assert_same_bits([a[:, 5:10].copy() for a in wide], want)
    assert_same_bits([a.numpy() for a in there], wide)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_a_matrix_without_numbers(shape):
    sim.muon_update(*(np.zeros(shape, "float32") for _ in range(3)), 0.02)


def test_no_gradient_is_decay_alone():
    w, zeros = np.full((6, 9), 2, "float32"), np.zeros((6, 9), "float32")
    sim.muon_update(w, zeros, zeros.copy(), 0.5, 0.95, 0.1)
    assert_same_bits(w, np.full((6, 9), 2, "float32") * (1 - 0.5 * 0.1))


def test_arguments_that_do_not_fit():
    w, grad, m = state((4, 6), "float32")
    for wrong, message in (((w, grad[:3], m), "grad must have shape"),
                           ((w, grad, m.astype("float64")), "m must have dtype"),
                           ((w[:, ::2], grad[:, ::2], m[:, ::2]), "w must have rows whose numbers lie side by side"),
                           (([w, w], [grad], [m, m]), "grad must be as many arrays as w: 2, got 1"),
                           ((sim.from_numpy(w), grad, m), "grad must be on the device")):
        with pytest.raises(ValueError, match=message):
            sim.muon_update(*wrong, 0.02)
