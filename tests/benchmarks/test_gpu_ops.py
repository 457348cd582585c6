"""`python -m benchmarks.gpu` on ops and matmuls: nothing wrong passes, and cuBLASLt is called as it wants to be."""
import ctypes

import numpy as np
import pytest

from benchmarks import gpu_cublas, gpu_driver, gpu_matmul, gpu_ops, gpu_time
from minillm.kernels import select as registry
from minillm.ops.table import OPS

sim = registry.cuda("cudasim")


def test_samples_suit_every_op():
    """An op that gets CUDA kernels one day is checked at these sizes."""
    for spec in OPS.values():
        for dims in gpu_ops.SMALL:
            args = spec.sample(np.random.default_rng(0), "float32", dims)
            out = gpu_ops.output(spec, args)
            assert spec.kind == "update" or np.isfinite(out[0] if isinstance(out, tuple) else out).all()


@pytest.mark.skipif("cpu" not in registry.choices("layernorm"), reason="the kernels are not built")
def test_an_op_that_is_wrong_is_told(monkeypatch):
    """With the CPU's kernels in the GPU's place."""
    assert gpu_ops.check("layernorm", "cpu", "float32", gpu_ops.SMALL[2])["wrong"] == []
    right, calls = gpu_ops.ours, []

    def ours(spec, choice, args, dout):
        candidate = right(spec, choice, args, dout)

        def results():
            found = candidate.results()
            if choice == "cpu":
                found["dbias"][1] = 7 + len(calls)
                calls.append(choice)
            return found
        return type("Broken", (), {"results": staticmethod(results)})
    monkeypatch.setattr(gpu_ops, "ours", ours)
    wrong = gpu_ops.check("layernorm", "cpu", "float32", gpu_ops.SMALL[2])["wrong"]
    assert len(wrong) == 2 and wrong[0].startswith("dbias[1] is 7") and "other bits the second time" in wrong[1]


@pytest.mark.skipif("cudasim" not in OPS["layernorm"].kernels or sim is None, reason="the emulator is not built")
@pytest.mark.parametrize("fault", [False, True])
def test_an_op_is_timed_on_arrays_of_the_device_if_it_is_right(fault, monkeypatch):
    monkeypatch.setattr(gpu_time, "ROUNDS", 2)
    to_host = gpu_ops.gpu_arrays.to_host

    def spoiled(results):
        found = to_host(results)
        found["dx"][0] += fault
        return found
    monkeypatch.setattr(gpu_ops.gpu_arrays, "to_host", spoiled)
    found = gpu_ops.speed(sim, gpu_driver.Emulated(), "layernorm", "cudasim", emulate=True)
    assert [row["direction"] for row in found["rows"]] == ([] if fault else ["forward", "backward"])
    assert bool(found["wrong"]) == fault


class Library:
    """cuBLASLt, as far as it is told what to multiply: it does so by NumPy, on the host."""

    def __init__(self):
        self.layouts, self.descriptor = [], None

    def cublasLtMatrixLayoutCreate(self, made, kind, rows, columns, leading):
        self.layouts.append((kind, rows.value, columns.value, leading.value))
        made._obj.value = len(self.layouts)
        return 0

    def cublasLtMatmulAlgoGetHeuristic(self, *arguments):
        arguments[-1]._obj.value = 1
        return 0

    def cublasLtMatmul(self, handle, what, one, a, a_layout, b, b_layout, zero, c, c_layout, d, d_layout, *rest):
        def matrix(pointer, layout):
            kind, rows, columns, leading = self.layouts[layout.value - 1]
            assert kind == 0 and leading == rows
            numbers = (ctypes.c_float * (rows * columns)).from_address(pointer.value)
            return np.frombuffer(numbers, "float32").reshape(columns, rows).T           # column-major
        matrix(d, d_layout)[:] = matrix(a, a_layout) @ matrix(b, b_layout)
        return 0

    def __getattr__(self, name):
        return lambda *arguments: 0


class Host(gpu_driver.Emulated):
    def allocate(self, count):
        return 0


def test_cublaslt_multiplies_row_major_arrays():
    rng = np.random.default_rng(0)
    x, w, out = (rng.standard_normal(shape).astype("float32") for shape in ((3, 5), (5, 7), (3, 7)))
    multiply = gpu_cublas.Matmul(Host(), 3, 5, 7, "tf32", Library())
    multiply(*(array.ctypes.data for array in (x, w, out)))
    assert np.allclose(out, x @ w, atol=1e-6)


def test_cublaslts_error_is_told():
    class Failing(Library):
        def cublasLtCreate(self, *arguments):
            return 1
    with pytest.raises(RuntimeError, match="cublasLtCreate failed with cuBLAS status 1"):
        gpu_cublas.Matmul(Host(), 3, 5, 7, "tf32", Failing())


@pytest.mark.parametrize("fault", [None, "forward", "backward"])
def test_a_wrong_matmul_is_not_timed(fault, monkeypatch):
    monkeypatch.setattr(gpu_time, "ROUNDS", 2)

    def by_numpy(module, driver, who, x, w, dout):
        out, dx, dw = x @ w, dout @ w.T, x.T @ dout
        (out if fault == "forward" else dw)[-1, -1] += 1 if fault else 0
        yield "float32", {"forward": (lambda: x @ w, lambda: gpu_matmul.sampled("forward", out)),
                          "backward": (lambda: dout @ w.T, lambda: gpu_matmul.sampled("backward", dx, dw))}
    monkeypatch.setattr(gpu_matmul, "by_linear", by_numpy)
    found = gpu_matmul.case(None, gpu_driver.Emulated(), "cuda", *gpu_matmul.sizes(True)[0])
    assert [row["direction"] for row in found["rows"]] == [way for way in ("forward", "backward") if way != fault]
    assert set(found["wrong"]) == ({f"{fault} float32"} if fault else set())
