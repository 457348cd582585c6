"""Token ids on a GPU, tested on the emulator: the scatter-add of an embedding's backward, and ids that do not exist."""
import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm.kernels.select import choices, cuda, select

sim = cuda("cudasim")
if sim is None or "cpu" not in choices("embedding"):
    pytest.skip("minillm._cpp.cudasim is not built, or nothing for this CPU", allow_module_level=True)
cpu = select("cpu")
SCHEDULES = (0, 8, 9, 42)
both = pytest.mark.parametrize("step", ["", "_1_naive"], ids=["best", "naive"])


@pytest.fixture(autouse=True)
def in_order():
    yield
    sim.set_schedule(0)


def problem(B, T, V, C, dtype="float32", few=None):
    """tokens, wte, wpe, dout; of few different tokens, if that is said."""
    rng = np.random.default_rng(B * T * C)
    tokens = rng.integers(0, few or V, (B, T)) * (V // few if few else 1)
    return (tokens, *(rng.standard_normal(s).astype(dtype) for s in ((V, C), (T + 3, C), (B, T, C))))


def gradients(backend, tokens, wte, wpe, dout, step="", into=None):
    forward, backward = (getattr(backend, f"embedding_{way}{step}") for way in ("forward", "backward"))
    return backward(dout, forward(tokens, wte, wpe, 2)[1], into)


@both
@pytest.mark.parametrize("sizes", [(1, 1, 2, 1), (2, 5, 3, 4), (3, 7, 50, 131), (1, 127, 9, 3), (1, 128, 9, 3),
                                   (5, 26, 11, 6), (3, 130, 1000, 5)], ids=str)
def test_bits_are_those_of_a_loop_over_the_tokens(sizes, step):
    """Each row's sum has the order of the tokens, as on the CPU: also beyond a run that one block sorts (128 keys), in
    merges of unequal runs, and in rows that four numbers at a time do not fit."""
    args = problem(*sizes)
    assert_same_bits(gradients(sim, *args, step), gradients(cpu, *args))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_schedule(schedule):
    args = problem(3, 100, 40, 5)
    sim.set_schedule(schedule)
    assert_same_bits(gradients(sim, *args), gradients(cpu, *args))


@pytest.mark.parametrize("few", [1, 2])
def test_every_token_is_the_same_or_one_of_two(few):
    """One warp adds up all rows; the last of V rows is the last in memory."""
    args = problem(2, 90, 100, 4, few=few)
    assert_same_bits(gradients(sim, *args), gradients(cpu, *args))


@both
def test_adds_to_what_is_there_or_to_one_of_both(step):
    tokens, wte, wpe, dout = problem(2, 9, 7, 5)
    into = np.ones_like(wte), np.ones_like(wpe)
    want = gradients(cpu, tokens, wte, wpe, dout, into=tuple(a.copy() for a in into))
    assert_same_bits(gradients(sim, tokens, wte, wpe, dout, step, tuple(a.copy() for a in into)), want)
    for i in (0, 1):
        one = tuple(a.copy() if i == j else None for j, a in enumerate(into))
        got = gradients(sim, tokens, wte, wpe, dout, step, one)
        assert got[1 - i] is None
        assert_same_bits(got[i], want[i])


def test_no_tokens():
    tokens, wte, wpe, dout = problem(2, 0, 7, 5)
    assert sim.embedding_forward(tokens, wte, wpe, 2)[0].shape == (2, 0, 5)
    assert not any(d.any() for d in gradients(sim, tokens, wte, wpe, dout))
    assert not sim.token_embedding_backward(dout, sim.token_embedding_forward(tokens, wte)[1]).any()


@pytest.mark.parametrize("ids", ["int64", "int32"])
def test_arrays_of_the_device(ids):
    tokens, wte, wpe, dout = problem(2, 70, 7, 12)
    there = [sim.from_numpy(a) for a in (tokens.astype(ids), wte, wpe, dout)]
    for got, want in zip(gradients(sim, *there), gradients(cpu, tokens, wte, wpe, dout), strict=True):
        assert_same_bits(got.numpy(), want)
    out, cache = sim.token_embedding_forward(*there[:2])
    assert_same_bits(out.numpy(), wte[tokens])
    into = sim.zeros(wte.shape, "float32")
    assert sim.token_embedding_backward(there[3], cache, (into,)) is into
    assert_same_bits(into.numpy(), gradients(cpu, tokens, wte, wpe, dout)[0])


def wrong_ids(a):
    for wrong in (-1, 7, 2 ** 31 - 1):
        changed = a.copy()
        changed[-1, -1] = wrong
        yield wrong, changed


@pytest.mark.parametrize("ids", ["int64", "int32"])
def test_ids_that_do_not_exist_are_refused(ids):
    """Those that came from NumPy are looked at on the host, where they were; the device waits for nothing."""
    tokens, wte, wpe, _ = problem(2, 5, 7, 4)
    w, p = sim.from_numpy(wte), sim.from_numpy(wpe)
    for wrong, changed in wrong_ids(tokens.astype(ids)):
        with pytest.raises(ValueError, match=rf"tokens must be in \[0, 7\): got {wrong} at flat index 9"):
            sim.embedding_forward(sim.from_numpy(changed), w, p)
        with pytest.raises(ValueError, match=rf"tokens must be in \[0, 7\): got {wrong} at flat index 9"):
            sim.token_embedding_forward(sim.from_numpy(changed), w)
    with pytest.raises(ValueError, match="tokens must have dtype int64: got float32"):
        sim.embedding_forward(sim.from_numpy(tokens.astype("float32")), w, p)


def test_ids_that_another_library_made_are_read_back_and_refused():
    """No copy on the host is known: the call waits for the device."""
    tokens, wte, wpe, _ = problem(2, 5, 7, 4)
    w, p = sim.from_numpy(wte), sim.from_numpy(wpe)
    assert_same_bits(sim.embedding_forward(sim.from_dlpack(sim.from_numpy(tokens)), w, p)[0].numpy(),
                     cpu.embedding_forward(tokens, wte, wpe)[0])
    for wrong, changed in wrong_ids(tokens):
        with pytest.raises(ValueError, match=rf"tokens must be in .*got {wrong} at"):
            sim.embedding_forward(sim.from_dlpack(sim.from_numpy(changed)), w, p)
