"""Timing of the CUDA attention: nothing wrong is timed, and no time of the CPU is in it."""
import ctypes

import numpy as np
import pytest

from benchmarks import gpu_check, gpu_driver, gpu_time
from minillm.kernels import select as registry

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)
NAME = "minillm 3_mma"


class Broken:
    """The emulator with one fault."""

    def __init__(self, fault):
        self.fault, self.peak_bytes = fault, sim.peak_bytes

    def arrays_forward(self, q, k, v, causal, *rest):
        out, cache = sim.arrays_forward(q, k, v, causal != (self.fault == "mask"), *rest)
        if self.fault in ("out", "lse"):
            spoil_last_number(out if self.fault == "out" else cache[-1])
        return out, cache

    def arrays_backward(self, dout, cache, stream):
        dq, dk, dv = sim.arrays_backward(dout, cache, stream)
        if self.fault == "swapped":
            return dq, dv, dk
        if self.fault in ("dq", "dk", "dv"):
            spoil_last_number({"dq": dq, "dk": dk, "dv": dv}[self.fault])
        return dq, dk, dv


def spoil_last_number(array):
    """It becomes NaN."""
    address, shape, bits = gpu_driver.address_of(array)
    ctypes.memset(address + (int(np.prod(shape)) - 1) * bits // 8, 0xff, bits // 8)


@pytest.mark.parametrize("fault", ["mask", "swapped", "out", "lse", "dq", "dk", "dv"])
def test_what_is_wrong_is_not_timed(fault):
    found = gpu_time.case(Broken(fault), gpu_driver.Emulated(), NAME, 40, 64, True, emulate=True)
    assert found["rows"] == [] and (fault in found["wrong"] or fault in ("mask", "swapped"))
    assert found["wrong"]


def test_what_is_right_is_timed(monkeypatch):
    monkeypatch.setattr(gpu_time, "ROUNDS", 2)
    found = gpu_time.case(sim, gpu_driver.Emulated(), NAME, 40, 64, True, emulate=True)
    assert found["wrong"] == {} and [row["direction"] for row in found["rows"]] == ["forward", "backward"]


def test_sampled_reference_is_the_whole_one():
    """Beside gpu_check's of all rows, with the same sparse dout."""
    rng = np.random.default_rng(0)
    q, k, v, dout = rng.standard_normal((4, 50, 8))
    rows = gpu_time.rows_of(50)
    sparse = np.zeros_like(dout)
    sparse[rows] = dout[rows]
    for causal in (True, False):
        got = gpu_time.reference(q, k, v, dout, rows, causal)
        out, grads = gpu_check.reference(np.concatenate([q, k, v], axis=1)[None], sparse[None], 1, causal)
        dq, dk, dv = np.split(grads[0], 3, axis=1)
        for name, want in {"out": out[0][rows], "dq": dq[rows], "dk": dk, "dv": dv}.items():
            assert np.allclose(got[name], want), name


class Clockwork(gpu_driver.Emulated):
    """A GPU that has begun before all is enqueued, unless it was delayed for `enough` seconds."""

    def __init__(self, enough):
        self.enough, self.delays = enough, []

    def delay(self, seconds):
        self.delays.append(seconds)

    def happened(self, event):
        return self.delays[-1] < self.enough


def test_the_delay_grows_until_everything_is_queued():
    driver, calls = Clockwork(0.0), []
    found = gpu_time.milliseconds(driver, lambda: calls.append(1), rounds=2)
    assert found["queued"] and found["calls"] == gpu_time.MOST_CALLS and len(driver.delays) == 2
    assert len(calls) == 3 + 2 * gpu_time.MOST_CALLS
    driver = Clockwork(1e9)
    assert not gpu_time.milliseconds(driver, lambda: None, rounds=1)["queued"]
    first, *more = driver.delays
    assert more == [2 * first, 4 * first, 8 * first]


class Library:
    """libcuda for those who only want to see it called; `failing` answers an error."""

    def __init__(self, failing=None):
        self.failing, self.called = failing, []

    def __getattr__(self, name):
        def function(*arguments):
            self.called.append(name)
            return 719 if name == self.failing else 0
        return function


def test_the_driver_without_pytorch():
    library = Library()
    driver = gpu_driver.Driver(library)
    array = gpu_driver.Bfloat16Array(driver, np.zeros((1, 2, 3, 4), "uint16"))
    assert array.__dlpack_device__() == (2, 0) and driver.happened(driver.event()) and driver.about()["driver"] == 0
    assert {"cuMemcpyHtoD_v2", "cuCtxSynchronize", "cuEventElapsedTime"} <= set(library.called)
    with pytest.raises(RuntimeError, match="cuStreamSynchronize failed with CUDA error 719"):
        gpu_driver.Driver(Library("cuStreamSynchronize")).synchronize()
    with pytest.raises(RuntimeError, match="a kernel failed with CUDA error 719"):
        gpu_driver.Driver(Library("cuEventQuery")).happened(None)


def test_bfloat16_goes_through_dlpack():
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype("float32")
    bits = gpu_time.to_bits(x)
    assert np.abs(gpu_time.from_bits(bits) / x - 1).max() <= 2 ** -8
    driver = gpu_driver.Emulated()
    address, shape, width = gpu_driver.address_of(gpu_driver.Bfloat16Array(driver, bits))
    assert (shape, width) == (bits.shape, 16)


def test_flops_of_the_table():
    """4 * B * NH * T^2 * HS, halved where causal, 2.5 times that backward."""
    assert gpu_time.flops(1, 2, 10, 8, False, False) == 4 * 2 * 100 * 8
    assert gpu_time.flops(1, 2, 10, 8, True, True) == 2 * 2 * 100 * 8 * 2.5
