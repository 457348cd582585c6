"""The losses on a GPU, tested on the emulator: rows that are ignored, wide, empty, or hold what cannot be."""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import ops as reference
from minillm.kernels.select import cuda

sim = cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)
both = pytest.mark.parametrize("step", ["", "_1_naive"], ids=["best", "naive"])


@pytest.fixture(autouse=True)
def in_order():
    yield
    sim.set_schedule(0)


def logits(N, V, dtype="float32", seed=0):
    return (3 * np.random.default_rng(seed).standard_normal((N, V))).astype(dtype)


def results(backend, z, targets, ignore_index=-1, step=""):
    forward, backward = (getattr(backend, f"cross_entropy_{way}{step}") for way in ("forward", "backward"))
    losses, cache = forward(z, targets, ignore_index)
    return {"losses": losses, "dlogits": backward(np.linspace(1, 2, len(z)).astype(z.dtype), cache)}


def check(z, targets, ignore_index=-1, step=""):
    want = results(reference, z.astype("float64"), targets, ignore_index)
    for name, got in results(sim, z, targets, ignore_index, step).items():
        assert_close(name, got, want[name], f"odd sizes {z.dtype}")


@both
@pytest.mark.parametrize("ignore_index", [-1, -100, 3])
def test_ignored_rows(ignore_index, step):
    """Their losses and gradients are exactly 0, whatever their logits are."""
    z, targets = logits(5, 33), np.array([0, ignore_index, 32, ignore_index, 5])
    check(z, targets, ignore_index, step)
    z[1] = np.nan
    got = results(sim, z, targets, ignore_index, step)
    assert got["losses"][1] == 0 and not got["dlogits"][[1, 3]].any()


@both
def test_all_rows_are_ignored_or_there_are_none(step):
    got = results(sim, logits(3, 9), np.full(3, -1), step=step)
    assert not got["losses"].any() and not got["dlogits"].any()
    none = results(sim, logits(0, 9), np.zeros(0, int), step=step)
    assert none["losses"].shape == (0,) and none["dlogits"].shape == (0, 9)


@pytest.mark.parametrize("V", [1, 2, 31, 64, 65, 509, 510, 511, 1025, 70_001])
def test_any_vocabulary(V):
    """Fewer logits than a warp has lanes, borders of the blocks that rows of V get, and more than 2^16."""
    check(logits(2, V), np.array([V - 1, 0]))


def test_a_row_has_the_same_bits_wherever_it_lies():
    """Rows of an odd length begin at any address; the order of a sum does not depend on that."""
    z, targets = logits(5, 1001), np.arange(5)
    whole = results(sim, z, targets)
    for row in range(5):
        alone = sim.cross_entropy_forward(z[row:row + 1].copy(), targets[row:row + 1])[0]
        assert_same_bits(alone, whole["losses"][row:row + 1])


@both
def test_logits_that_cannot_be(step):
    """-inf is a token of probability 0; large ones do not overflow."""
    z, targets = logits(4, 70), np.array([69, 0, 1, 2])
    z[0, :40] = -np.inf
    z[1, 32:] = -np.inf
    z[2] *= 1e4
    z[3, 0] = -np.inf
    check(z, targets, step=step)


@pytest.mark.parametrize("schedule", [8, 9, 42])
def test_any_schedule(schedule):
    z, targets = logits(2, 600), np.array([5, -1])
    want, teacher = results(sim, z, targets), logits(2, 600, seed=1)
    distilled = sim.distillation_loss_forward(z, teacher, targets)[0]
    sim.set_schedule(schedule)
    assert_same_bits(results(sim, z, targets), want)
    assert_same_bits(sim.distillation_loss_forward(z, teacher, targets)[0], distilled)


def distilled(backend, z, u, targets, **settings):
    losses, cache = backend.distillation_loss_forward(z, u, targets, **settings)
    return {"losses": losses, "dlogits": backend.distillation_loss_backward(np.ones_like(losses), cache)}


@pytest.mark.parametrize("settings", [{}, {"temperature": 4.0, "weight": 0.3}, {"weight": 0.0}, {"weight": 1.0}],
                         ids=str)
@pytest.mark.parametrize("V", [3, 700])
def test_distillation(V, settings):
    z, u, targets = logits(3, V), logits(3, V, seed=1), np.array([2, -1, 0])
    u[0, 1] = -np.inf
    want = distilled(reference, z.astype("float64"), u.astype("float64"), targets, **settings)
    for name, got in distilled(sim, z, u, targets, **settings).items():
        assert_close(name, got, want[name], "odd sizes float32")


def test_arrays_of_the_device():
    z, u, targets = logits(3, 40), logits(3, 40, seed=1), np.array([2, -1, 39])
    dz, du, dt = (sim.from_numpy(a) for a in (z, u, targets))
    losses, cache = sim.cross_entropy_forward(dz, dt)
    dout = np.linspace(1, 2, 3).astype("float32")
    want = results(sim, z, targets)
    assert_same_bits(losses.numpy(), want["losses"])
    assert_same_bits(sim.cross_entropy_backward(sim.from_numpy(dout), cache).numpy(), want["dlogits"])
    losses, cache = sim.distillation_loss_forward(dz, du, dt)
    got = sim.distillation_loss_backward(sim.from_numpy(np.ones(3, "float32")), cache).numpy()
    assert_same_bits({"losses": losses.numpy(), "dlogits": got}, distilled(sim, z, u, targets))
    for wrong in (40, -2):
        with pytest.raises(ValueError, match=rf"targets must be in \[0, 40\): got {wrong} at flat index 1"):
            sim.cross_entropy_forward(dz, sim.from_numpy(np.array([0, wrong, 0])))
    with pytest.raises(ValueError, match="targets must be on the device"):
        sim.cross_entropy_forward(dz, targets)
