"""Arrays of the device, on the emulator: views, copies that are asked for, memory used again, other libraries."""
import gc

import numpy as np
import pytest

from minillm.kernels import select as registry

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)


def numbers(*shape, dtype="float32"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint16", "uint8"])
def test_from_numpy_and_back(dtype):
    x = (8 * numbers(3, 4)).astype(dtype)
    there = sim.from_numpy(x)
    assert (there.shape, there.strides, there.dtype, there.ndim, there.size, there.nbytes, len(there)) == (
        x.shape, x.strides, x.dtype, 2, 12, x.nbytes, 3)
    back = there.numpy()
    back[0] = 0
    assert np.array_equal(there.numpy(), x) and repr(there) == f"DeviceArray(shape=(3, 4), dtype={dtype})"


@pytest.mark.parametrize("index", [0, -1, (1, 2), np.s_[1:], np.s_[:, 1], np.s_[..., 2], np.s_[::-1, 1:4:2], np.s_[3:1],
                                   np.s_[:, None, -1:], (), np.s_[1, ..., ::-2], np.int64(1)], ids=str)
def test_views_are_numpys(index):
    """The same numbers, the same strides, at the same place."""
    x = numbers(3, 4, 5)
    seen, wanted = sim.from_numpy(x)[index], x[index]
    assert np.array_equal(seen.numpy(), wanted) and seen.shape == wanted.shape
    if wanted.size > 1:
        assert seen.strides == wanted.strides
        assert seen.offset == wanted.__array_interface__["data"][0] - x.__array_interface__["data"][0]


def test_views_share_memory():
    whole = sim.zeros((2, 6))
    row = whole[1].reshape(2, -1)
    row.copy_from(np.ones((2, 3), np.float32))
    del row
    assert np.array_equal(whole.numpy(), [[0] * 6, [1] * 6])
    assert np.array_equal(whole.T.copy().numpy(), whole.numpy().T) and whole.copy().numpy()[1].all()
    whole.clear()
    assert not whole.numpy().any()


def test_arithmetic_between_ops():
    x, columns = numbers(5, 7), numbers(7)
    a, c = sim.from_numpy(x), sim.from_numpy(columns)
    total = a + a
    total += a
    assert np.array_equal(total.numpy(), x + x + x) and np.array_equal((a * c).numpy(), x * columns)
    assert a.sum() == pytest.approx(x.sum(dtype=float), rel=1e-12)
    large = numbers(40_001)
    assert sim.from_numpy(large).sum() == pytest.approx(large.sum(dtype=float), rel=1e-12)
    a.average(total, 0.5)
    assert np.allclose(a.numpy(), 2 * x)
    a.fill(3)
    assert np.array_equal(a.numpy(), np.full_like(x, 3))


@pytest.mark.parametrize("wrong, error, words", [
    (lambda a: a[4], IndexError, "index 4 is out of bounds"),
    (lambda a: a[0, 0, 0], IndexError, "too many indices"),
    (lambda a: a["x"], TypeError, "an index must be"),
    (lambda a: a.reshape(5), ValueError, r"shape must be one for 12 numbers: got \(5,\)"),
    (lambda a: a[True], TypeError, "an index must be"),
    (lambda a: a[2 ** 70], IndexError, "index-sized integer"),
    (lambda a: a.reshape(-1, -1), ValueError, "-1 at most once"),
    (lambda a: a.reshape("x"), TypeError, "shape must be an integer or a tuple of integers: got 'x'"),
    (lambda a: a[:0].reshape(2 ** 32, 2 ** 32), ValueError, r"fewer than 2\^59 numbers"),
    (lambda a: sim.zeros((2 ** 62, 4)), ValueError, r"fewer than 2\^59 numbers"),
    (lambda a: sim.zeros(2.5), TypeError, "shape must be an integer or a tuple of integers: got 2.5"),
    (lambda a: a.sum(0), TypeError, "incompatible"),
    (lambda a: a.__dlpack__(dl_device=(2, 0)), BufferError, r"dl_device must be where the array is: got \(2, 0\)"),
    (lambda a: a.T.reshape(12), ValueError, "take its copy"),
    (lambda a: a + a.reshape(12), ValueError, r"both arrays must have shape \(3, 4\)"),
    (lambda a: a + np.ones((3, 4), np.float32), TypeError, "operand"),
    (lambda a: a.copy_from(np.ones((3, 4))), ValueError, "source must have dtype float32"),
    (lambda a: np.asarray(a), TypeError, "never copied in silence"),
    (lambda a: np.add(a, 1), TypeError, "operand"),
    (lambda a: sim.from_numpy([1.0]), TypeError, "x must be an array of NumPy: got list"),
    (lambda a: sim.from_numpy(np.ones(2, complex)), ValueError, "dtype must be one that kernels know"),
    (lambda a: sim.zeros((-1,)), ValueError, "no negative size"),
    (lambda a: sim.layernorm_forward(a, np.ones(4, np.float32), np.ones(4, np.float32)), ValueError,
     "weight must be on the device, as x is"),
    (lambda a: sim.layernorm_forward(a.numpy(), a[0], a[1]), ValueError, "weight must be an array of NumPy, as x is"),
    (lambda a: sim.layernorm_forward(a[:, ::2], a[0, :2], a[1, :2]), ValueError, r"C-contiguous: pass x.copy\(\)"),
])
def test_what_is_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(sim.from_numpy(numbers(3, 4)))


def test_other_kernels_refuse_arrays_of_the_device():
    """Never read as if their memory were the host's."""
    a = sim.zeros((2, 4))
    for refuses in (lambda: sim.instruction("mma_bf16", sim.zeros((32, 10), "uint32")),
                    lambda: registry.reference.layernorm_forward(a, a[0], a[1]),
                    lambda: registry._cpp and registry._cpp.layernorm_forward(a, a[0], a[1])):
        if refuses is not None:
            with pytest.raises((ValueError, TypeError)):
                if refuses() is None:
                    raise TypeError                                 # no compiled kernels here


def test_numpys_ops_say_where_the_array_is():
    with pytest.raises(ValueError, match="x must be an array of NumPy: got one on the device"):
        registry.reference.layernorm_forward(sim.zeros((2, 4)), sim.zeros(4), sim.zeros(4))


def written_by_a_view(ids):
    ids.reshape(3).copy_from(np.array([1, 99, 2]))


def written_by_a_slice(ids):
    ids[0, 1:2].copy_from(np.array([99]))


def written_by_another_library(ids):
    written_by_a_view(sim.from_dlpack(ids))


@pytest.mark.parametrize("write", [written_by_a_view, written_by_a_slice, written_by_another_library])
def test_ids_are_checked_as_they_are_now(write):
    """Whoever wrote them: the copy on the host that saves a wait is never an old one."""
    ids = sim.from_numpy(np.array([[1, 0, 2]]))
    views = ids, ids[:], ids.reshape(1, 3)
    write(ids)
    for view in views:
        with pytest.raises(ValueError, match=r"in \[0, 7\): got 99 at flat index 1"):
            sim.token_embedding_forward(view, sim.zeros((7, 4)))


def test_dlpack_gives_a_copy_where_one_is_asked_for():
    ours = sim.zeros(3)
    copy = np.from_dlpack(ours, copy=True)
    ours.fill(1)
    assert not copy.any() and np.from_dlpack(ours).all()


def test_dlpack_both_ways_without_a_copy():
    x = numbers(3, 4)
    ours = sim.from_dlpack(x)                                       # the emulator's device is the CPU
    x[0, 0] = 7
    assert ours.numpy()[0, 0] == 7 and ours.shape == (3, 4) and ours.__dlpack_device__() == (1, 0)
    theirs = np.from_dlpack(ours[1:, ::2])
    assert theirs.base is not None and np.shares_memory(theirs, x) and np.array_equal(theirs, x[1:, ::2])
    made = sim.zeros(5)
    taken = np.from_dlpack(made)
    del made
    sim.zeros(5).fill(3)                                            # does not get memory that is still in use
    assert not taken.any()
    assert not hasattr(ours, "__cuda_array_interface__")            # there is no GPU


def test_dlpack_with_torch():
    torch = pytest.importorskip("torch")
    x = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    assert torch.equal(torch.from_dlpack(sim.from_dlpack(x).T), x.T)
    half = sim.from_dlpack(x.to(torch.bfloat16))
    assert str(half.dtype) == "bfloat16" and torch.equal(torch.from_dlpack(half[1]).double(), x[1])


def test_memory_is_given_back_and_used_again():
    gc.collect()
    sim.empty_arena()
    before = sim.memory_counts()
    a = sim.zeros((100,))
    view = a[50:]
    del a
    assert sim.memory_counts()["in_use"] == before["in_use"] + 400          # the view still needs it
    del view
    assert sim.memory_counts() == {"allocations": before["allocations"] + 1, "in_use": before["in_use"], "kept": 400}
    b = sim.zeros((10, 10))
    assert sim.memory_counts()["allocations"] == before["allocations"] + 1
    del b
    sim.empty_arena()
    assert sim.memory_counts()["kept"] == 0


def test_a_recording_is_replayed_and_refuses_what_cannot_be():
    total, step = sim.zeros(4), sim.from_numpy(numbers(4))
    sim.begin_recording()
    total += step
    recording = sim.end_recording()
    assert not total.numpy().any()
    for _ in range(3):
        recording.replay()
    assert np.allclose(total.numpy(), 3 * step.numpy())
    for refused, words in ((total.numpy, "a copy to the host"), (lambda: step.copy_from(numbers(4)), "a copy from"),
                           (sim.begin_recording, "another recording")):
        sim.begin_recording()
        with pytest.raises(RuntimeError, match=words):
            refused()
        sim.give_up_recording()
    assert total.numpy().any()


@pytest.mark.parametrize("ended", (True, False))
def test_a_recording_may_be_let_go_while_another_is_made(ended):
    """As Python's collector of cycles does at any moment: its memory waits for the other's end."""
    total = sim.zeros(4)

    def recorded():
        sim.begin_recording()
        made = total + total
        return made, sim.end_recording()
    sim.empty_arena()
    first = recorded()
    kept = sim.memory_counts()["kept"]
    sim.begin_recording()
    del first                                           # waiting here would end the process
    assert sim.memory_counts()["kept"] > kept
    made = total + total
    if not ended:
        sim.give_up_recording()
        return
    second = sim.end_recording()
    total.fill(1)
    second.replay()
    assert np.array_equal(made.numpy(), np.full(4, 2, np.float32))
