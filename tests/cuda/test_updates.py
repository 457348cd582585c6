"""Dropout, AdamW and the gradient's norm on a GPU, tested on the emulator: what a step does beside the model."""
import math

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import ops as reference
from minillm.kernels.select import choices, cuda, select
from minillm.ops.bfloat16 import bfloat16_bits

sim = cuda("cudasim")
if sim is None or "cpu" not in choices("dropout"):
    pytest.skip("minillm._cpp.cudasim is not built, or nothing for this CPU", allow_module_level=True)
cpu = select("cpu")
both = pytest.mark.parametrize("step", ["", "_1_naive"], ids=["best", "naive"])


def of(name, step):
    return getattr(sim, name + step)


@both
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1 - 2 ** -33])
@pytest.mark.parametrize("key", [(0, 0, 0), (2 ** 64 - 1, 2 ** 40, 7)], ids=str)
def test_dropout_draws_the_masks_of_the_cpu(key, p, step):
    """Every bit of them: a training run goes on on another machine. Also where a block has but four of its eight."""
    for n in (1, 7, 8, 9, 12, 1031):
        x = np.ones(n, "float32")
        got, cache = of("dropout_forward", step)(x, p, key)
        want, cache_of_cpu = cpu.dropout_forward(x, p, key)
        assert_same_bits(got, want)
        assert_same_bits(np.unpackbits(cache[0], bitorder="little")[:n],
                         np.unpackbits(cache_of_cpu[0], bitorder="little")[:n])
        assert_same_bits(of("dropout_backward", step)(x, cache), want)


def test_dropout_where_four_numbers_do_not_fit():
    """An array of the device that begins between two fours."""
    x = np.arange(1, 42, dtype="float32")
    got, cache = sim.dropout_forward(sim.from_numpy(x)[1:], 0.5, (1, 2, 3))
    want = cpu.dropout_forward(x[1:].copy(), 0.5, (1, 2, 3))[0]
    assert_same_bits(got.numpy(), want)
    assert_same_bits(sim.dropout_backward(sim.from_numpy(x)[1:], cache).numpy(), want)


def state(n, dtype="float32"):
    rng = np.random.default_rng(n)
    w, grad, m = (rng.standard_normal(n).astype(dtype) for _ in range(3))
    return {"w": w, "grad": grad, "m": m, "v": (rng.standard_normal(n) ** 2).astype(dtype)}


SETTINGS = {"step": 3, "lr": 0.01, "beta2": 0.95, "weight_decay": 0.1, "scale": 0.5}


@both
@pytest.mark.parametrize("n_decayed", [0, 6, 21])
@pytest.mark.parametrize("n", [21, 1030])
def test_adamw_and_the_bfloat16_copy_of_the_weights(n, n_decayed, step):
    """Decay ends inside of a four; the copy is the new w rounded, also where it is not a number."""
    mine, theirs = state(n), state(n)
    mine["w"][5] = theirs["w"][5] = np.nan
    bits = np.zeros(n, "uint16")
    of("adamw_update", step)(**mine, **SETTINGS, n_decayed=n_decayed, bits=bits)
    reference.adamw_update(**theirs, **SETTINGS, n_decayed=n_decayed)
    for name in ("w", "m", "v"):
        assert_close(name, np.delete(mine[name], 5), np.delete(theirs[name], 5), "regrouped float32")
    assert_same_bits(np.delete(bits, 5), np.delete(bfloat16_bits(mine["w"]), 5))
    assert np.isnan((bits[5:6].astype("uint32") << 16).view("float32"))


def test_adamw_of_arrays_of_the_device():
    """In place; `bits` are the device's, too."""
    here, there = state(50), {name: sim.from_numpy(a) for name, a in state(50).items()}
    bits, bits_there = np.zeros(50, "uint16"), sim.zeros(50, "uint16")
    sim.adamw_update(**here, **SETTINGS, n_decayed=10, bits=bits)
    sim.adamw_update(**there, **SETTINGS, n_decayed=10, bits=bits_there)
    assert_same_bits({name: a.numpy() for name, a in there.items()}, here)
    assert_same_bits(bits_there.numpy(), bits)
    with pytest.raises(ValueError, match="grad must be on the device"):
        sim.adamw_update(**{**there, "grad": here["grad"]}, **SETTINGS)


@both
@pytest.mark.parametrize("n", [0, 1, 511, 8191, 8192, 8193, 40_001])
def test_sum_squares(n, step):
    """Borders of a piece (8,192 numbers), and squares beyond float32."""
    x = np.random.default_rng(n).standard_normal(n).astype("float32")
    got = of("sum_squares", step)(x)
    assert isinstance(got, float) and math.isclose(got, float((x.astype("float64") ** 2).sum()), rel_tol=1e-14)
    assert of("sum_squares", step)(x) == got
    assert math.isclose(of("sum_squares", step)(np.full(n, 1e30, "float32")), n * float(np.float32(1e30)) ** 2,
                        rel_tol=1e-12)


def test_sum_squares_of_an_array_of_the_device_that_begins_anywhere():
    x = np.random.default_rng(0).standard_normal(20_000).astype("float32")
    for start in (0, 1, 3):
        assert sim.sum_squares(sim.from_numpy(x)[start:]) == sim.sum_squares(x[start:].copy())
