"""The gradient buffer and the arena (csrc/memory.h, arrays.py): nothing is lost, faulted in anew or kept twice."""
import resource
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from minillm.kernels import arrays as memory
from minillm.kernels import select as registry

KERNELS = registry._cpp
compiled = pytest.mark.skipif(KERNELS is None, reason="the kernels are not built")
MB = 1 << 20
COUNT = 32 * MB                                            # float32: 128 MB, 64 huge pages


@cache
def inputs(count):
    return np.zeros((1, count), "float32"), np.zeros((1, count), "float32"), np.ones(count, "float32")


def activation(value, count):
    """An array that a kernel returns, all `value`: its memory comes from the arena."""
    x, y, ones = (array[..., :count] for array in inputs(3 * MB))
    x[:] = value
    return KERNELS.residual_layernorm_forward(x, y, ones, ones, 1e-5)[0][0]


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    """Bytes of this process's memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def step(buffer, value, layers=12):
    """A training step in small: activations come, and go one by one while the buffer fills."""
    buffer.clear()
    kept = [activation(value + i, 2 * MB) for i in range(layers)]              # 8 MB each
    piece = len(buffer.flat) // layers
    for i in reversed(range(layers)):
        assert kept[i][0, 0] == kept[i][0, -1] == value + i
        del kept[i]
        buffer.expect(i * piece, (i + 1) * piece)
        assert not buffer.flat[i * piece:(i + 1) * piece:997].any()
        buffer.flat[i * piece:(i + 1) * piece] += value


@compiled
def test_pages_move_between_the_buffer_and_the_activations():
    """After two steps the system is not asked for pages any more, and there is room for one of the two, not both."""
    buffer, before = memory.Zeros(COUNT, "float32"), resident()
    for value in range(2):
        step(buffer, value)
    seen = faults()
    step(buffer, 2)
    assert faults() - seen < 32, "of the 64 huge pages, or 32,768 small ones, that the buffer has"
    assert resident() - before < 1.3 * buffer.flat.nbytes
    assert (buffer.flat[:COUNT // 12 * 12] == 2).all()


@compiled
def test_a_buffer_that_does_not_lend_is_told_apart(monkeypatch):
    """Planted: pages that go back to the system. The count of faults in the test above sees it."""
    monkeypatch.setattr(memory.Zeros, "expect", lambda *args: None)
    buffer = memory.Zeros(COUNT, "float32")
    monkeypatch.setattr(registry, "_cpp", None)
    for value in range(2):
        step(buffer, value)
    seen = faults()
    step(buffer, 2)
    assert faults() - seen > 32


@compiled
def test_nothing_is_lost_or_shared():
    """Arrays and two buffers in random order, each with contents of its own, looked at again and again."""
    random = np.random.default_rng(0)
    buffers = [memory.Zeros(count, "float32") for count in (17 * MB + 3, 20 * MB)]
    wanted, arrays = [np.zeros(len(b.flat), "float32") for b in buffers], []
    for number in range(1, 120):
        which, action = random.integers(2), random.integers(6)
        buffer, right = buffers[which], wanted[which]
        begin, end = sorted(random.integers(0, len(right) + 1, 2))
        if action == 0:
            buffer.clear()
            right[:] = 0
        elif action in (1, 2):
            if action == 1:                                # or without a word
                buffer.expect(begin, end)
            buffer.flat[begin:end] += number
            right[begin:end] += number
        elif action == 3 and arrays:
            arrays.pop(random.integers(len(arrays)))
        else:
            arrays.append((number, activation(number, int(random.integers(20_000, 3 * MB)))))
        assert all((array == value).all() for value, array in arrays[-4:])
        assert np.array_equal(buffer.flat[::1009], right[::1009])
    assert all((array == value).all() for value, array in arrays)
    assert all(np.array_equal(b.flat, right) for b, right in zip(buffers, wanted, strict=True))


@compiled
def test_idle_memory_goes_back():
    """Without a buffer that lends, what arrays leave is kept up to 32 MB; the same when it is gone."""
    script = ("from tests.kernels.test_arrays import *; activation(1, 3 * MB); before = resident(); "
              "many = [activation(1, 2 * MB) for _ in range(20)]; assert resident() - before > 120 * MB; "
              "del many; assert resident() - before < 40 * MB; buffer = memory.Zeros(COUNT, 'float32'); "
              "[step(buffer, value) for value in range(2)]; assert resident() - before > 80 * MB; buffer.clear(); "
              "del buffer; assert resident() - before < 40 * MB")
    subprocess.run([sys.executable, "-c", script], check=True)


@compiled
def test_limited_addresses():
    """Where no long range of addresses is to be had, arrays come from malloc."""
    script = ("import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); "
              "from tests.kernels.test_arrays import *; a = activation(3, MB); b = activation(4, MB); del a; "
              "assert (b == 4).all() and (activation(5, MB) == 5).all(); buffer = memory.Zeros(COUNT, 'float32'); "
              "buffer.clear(); buffer.flat[:] = 1; buffer.clear(); buffer.expect(0, COUNT); "
              "assert not buffer.flat.any()")
    threads = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script], check=True, env=threads)


def test_without_kernels(monkeypatch):
    monkeypatch.setattr(registry, "_cpp", None)
    buffer = memory.Zeros(COUNT, "float32")
    buffer.flat[:] = 1
    buffer.clear()
    buffer.expect(0, COUNT)
    assert not buffer.flat.any()


@compiled
@pytest.mark.parametrize("begin, end", [(-1, 4), (5, 4), (0, COUNT + 1)])
def test_expecting_what_is_not_there(begin, end):
    buffer = memory.Zeros(COUNT, "float32")
    buffer.clear()
    with pytest.raises(ValueError, match="expect"):
        buffer.expect(begin, end)
