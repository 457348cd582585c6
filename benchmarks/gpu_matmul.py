"""TFLOP/s of matmuls: `linear` in each of its CUDA variants, cuBLASLt and PyTorch, arrays on the device.

Compared before they are timed: some rows of the result with float64 by NumPy.
"""
import numpy as np

from minillm.kernels.select import select
from minillm.ops.table import OPS
from minillm.workbench.precision import in_bfloat16

from . import gpu_arrays, gpu_cublas, gpu_time

GPT2 = [[8192, 768, 2304], [8192, 768, 3072], [8192, 3072, 768], [8192, 768, 50257]]        # qkv, MLP twice, the head
SQUARE = [[4096] * 3, [8192] * 3]
ROWS = 5                                    # rows of a result that are compared
LIMITS = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-2}         # error of a row beside the norm of a usual one
PEER_DTYPES = ("tf32", "bfloat16")          # float32 without tensor cores is nobody's yardstick


def sizes(emulate):
    """[N, C, OC]."""
    return [[33, 24, 40]] if emulate else [*SQUARE, *GPT2]


def case(module, driver, who, N, C, OC):
    """{"rows": [{direction, dtype, ms, tflops}], "wrong": {...}}."""
    x, w, dout = (pooled((rows, columns), seed) for seed, (rows, columns) in enumerate(((N, C), (C, OC), (N, OC))))
    make = {"cublaslt": by_cublaslt, "torch": by_torch}.get(who, by_linear)
    rows, wrong = [], {}
    for dtype, runs in make(module, driver, who, x, w, dout):
        for direction, (call, result) in runs.items():
            want = reference(direction, x, w, dout)
            error = max(gpu_time.worst(got, exact) for got, exact in zip(result(), want))
            if not error < LIMITS[dtype]:
                wrong[f"{direction} {dtype}"] = error
                continue
            found = gpu_time.milliseconds(driver, call)
            flops = 2 * N * C * OC * (2 if direction == "backward" else 1)
            rows.append({"name": who, "N": N, "C": C, "OC": OC, "direction": direction, "dtype": dtype, **found,
                         "tflops": round(flops / found["ms"] / 1e9, 1)})
    return {"rows": rows, "wrong": wrong}


def pooled(shape, seed):
    """Normal numbers that bfloat16 holds exactly, and that repeat after a million."""
    numbers = np.random.default_rng(seed).standard_normal(gpu_time.POOL, dtype="float32")
    return np.resize((numbers.view("uint32") & 0xffff0000).view("float32"), shape)


def some(n):
    return sorted({0, n // 3, n // 2, max(0, n - 2), n - 1})[:ROWS]


def reference(direction, x, w, dout):
    """Rows of out, or of dx and dw, in float64."""
    if direction == "forward":
        return [x[some(len(x))].astype("float64") @ w]
    columns = some(x.shape[1])
    return [dout[some(len(x))].astype("float64") @ w.T, x[:, columns].T.astype("float64") @ dout]


def sampled(direction, *arrays):
    """Those rows of what was computed."""
    return [array[some(len(array))].astype("float64") for array in arrays]


# ---- who? ----

def by_linear(module, driver, choice, x, w, dout):
    """(dtype, {direction: (call, () -> rows)}) of one variant of ours."""
    ops = select({"linear": choice})
    forward, backward = ops.linear_forward, ops.linear_backward
    a, b, bias, d = gpu_arrays.to_device(module, (x, w, np.zeros(w.shape[1], "float32"), dout))
    out, cache = forward(a, b, bias)
    dtype = "bfloat16" if in_bfloat16(choice) or "wgmma" in choice else "float32"
    assert choice in OPS["linear"].kernels

    def gradients():
        return sampled("backward", *gpu_arrays.to_host(tuple(backward(d, cache)[:2])))
    yield dtype, {"forward": (lambda: forward(a, b, bias), lambda: sampled("forward", gpu_arrays.to_host(out))),
                  "backward": (lambda: backward(d, cache), gradients)}


def by_cublaslt(_, driver, who, x, w, dout):
    """Its forward, a bare GEMM."""
    (N, C), OC = x.shape, w.shape[1]
    for dtype in PEER_DTYPES:
        half = dtype == "bfloat16"
        a, b = (driver.from_host(gpu_time.to_bits(array) if half else array) for array in (x, w))
        out = driver.allocate(N * OC * (2 if half else 4))
        multiply = gpu_cublas.Matmul(driver, N, C, OC, dtype)

        def rows(multiply=multiply, a=a, b=b, out=out, half=half):
            multiply(a, b, out)
            got = driver.to_host(out, (N, OC), "uint16" if half else "float32")[some(N)]
            return [gpu_time.from_bits(got) if half else got.astype("float64")]
        yield dtype, {"forward": (lambda multiply=multiply, a=a, b=b, out=out: multiply(a, b, out), rows)}


def by_torch(_, driver, who, x, w, dout):
    """Forward and both gradients as three GEMMs of PyTorch."""
    import torch
    torch.cuda.set_stream(torch.cuda.ExternalStream(driver.stream))
    for dtype in PEER_DTYPES:
        torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
        a, b, d = (torch.from_numpy(array).cuda().to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
                   for array in (x, w, dout))

        def host(direction, *tensors):
            return sampled(direction, *(tensor.float().cpu().numpy() for tensor in tensors))

        def backward(a=a, b=b, d=d):
            return d @ b.T, a.T @ d
        yield dtype, {"forward": (lambda a=a, b=b: a @ b, lambda a=a, b=b: host("forward", a @ b)),
                      "backward": (backward, lambda backward=backward: host("backward", *backward()))}
