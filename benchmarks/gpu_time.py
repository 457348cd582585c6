"""Speed of the CUDA attention on this GPU: ours against PyTorch's four backends, arrays on the device, bfloat16.

The convention of the FlashAttention papers: B * T = 16,384 tokens, NH * HS = 2,048; forward 4 * B * NH * T * T * HS
floating-point operations, half of it where causal, backward 2.5 times that. Every candidate's result is compared before
it is timed, at some rows, with float64 by NumPy; each runs in a process of its own. Many calls lie between two events
of the GPU, enqueued while it is busy with something else, so that no time of the CPU is in them; figures are medians.
"""
import itertools
import statistics
import time

import numpy as np

from . import gpu_driver

LENGTHS, HEAD_SIZES = (512, 1024, 2048, 4096, 8192, 16384), (64, 128)
TOKENS, WIDTH = 16384, 2048
OURS = {"minillm 3_mma": 3, "minillm 4_wgmma": 4}
TORCH_BACKENDS = {"torch MATH": "MATH", "torch EFFICIENT": "EFFICIENT_ATTENTION", "torch FLASH": "FLASH_ATTENTION",
                  "torch CUDNN": "CUDNN_ATTENTION"}
LIMITS = {"out": 2e-2, "dq": 2e-2, "dk": 2e-2, "dv": 2e-2, "lse": 1e-4}     # bfloat16's, of a row's usual norm
ROUNDS, BURST_S, MOST_CALLS = 7, 0.02, 50
POOL = 2 ** 20 + 7                      # random numbers made once and repeated: no two heads alike, and soon there
ROWS = 12                               # queries of a head that are compared


def flops(B, NH, T, HS, causal, backward):
    return 4 * B * NH * T * T * HS * (0.5 if causal else 1) * (2.5 if backward else 1)


def sizes(emulate):
    """(T, HS, causal), causal first."""
    if emulate:
        return [[48, 64, True], [40, 64, False]]
    return [[T, HS, causal] for causal, HS, T in itertools.product((True, False), HEAD_SIZES, LENGTHS)]


# ---- right? ----

def to_bits(x):
    """float32 -> bfloat16's bits, rounded to even."""
    bits = x.astype("float32").view("uint32")
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("uint16")


def from_bits(bits):
    return (bits.astype("uint32") << 16).view("float32").astype("float64")


def rows_of(T):
    """Queries to compare: the first, the last, and those about the edges of tiles."""
    return sorted({row for row in (0, 1, T // 3, T // 2, 63, 64, 127, 128, 2 * T // 3, T - 65, T - 2, T - 1)
                   if 0 <= row < T})[:ROWS]


def reference(q, k, v, dout, rows, causal):
    """One head (T, HS) in float64 at those queries: out, lse, dq there; dk, dv where dout is zero but there."""
    T, HS = q.shape
    S = q[rows] @ k.T / np.sqrt(HS)                                     # (rows, T)
    if causal:
        S = np.where(np.arange(T) <= np.array(rows)[:, None], S, -np.inf)
    top = S.max(axis=1, keepdims=True)
    P = np.exp(S - top)
    total = P.sum(axis=1, keepdims=True)
    P /= total
    dP = dout[rows] @ v.T
    dS = P * (dP - (dP * P).sum(axis=1, keepdims=True)) / np.sqrt(HS)
    return {"out": P @ v, "lse": (top + np.log(total))[:, 0], "dq": dS @ k, "dk": dS.T @ q[rows],
            "dv": P.T @ dout[rows]}


def worst(got, want):
    """The largest error of a row beside the usual norm of a row; infinite for NaN."""
    if want.ndim == 1:
        error = np.abs(got - want).max()
    else:
        usual = np.sqrt((want ** 2).sum(axis=1).max())
        error = np.sqrt(((got - want) ** 2).sum(axis=1).max()) / max(usual, 1e-30)
    return float(error) if np.isfinite(error) else float("inf")


class Inputs:
    """Random q, k, v, dout (B, NH, T, HS) on the device, and a dout that is zero but for some queries of two heads."""

    def __init__(self, driver, T, HS, emulate):
        self.driver = driver
        self.shape = (1, 2, T, HS) if emulate else (TOKENS // T, WIDTH // HS, T, HS)
        rng = np.random.default_rng(T + HS)
        self.bits = [np.resize(to_bits(rng.standard_normal(POOL, dtype="float32")), self.shape) for _ in range(4)]
        self.heads = [(0, 0), (self.shape[0] - 1, self.shape[1] - 1)]
        self.rows = rows_of(T)
        sparse = np.zeros_like(self.bits[3])
        for b, h in self.heads:
            sparse[b, h, self.rows] = self.bits[3][b, h, self.rows]
        self.arrays = [gpu_driver.Bfloat16Array(driver, bits) for bits in (*self.bits, sparse)]

    def head(self, array, b, h):
        """One head of an array of the device, float64."""
        address, shape, width = gpu_driver.address_of(array)
        count = int(np.prod(shape[2:]))
        start = address + (b * shape[1] + h) * count * width // 8
        host = self.driver.to_host(start, shape[2:], "uint16" if width == 16 else "float32")
        return from_bits(host) if width == 16 else host.astype("float64")


def errors(inputs, results, causal):
    """{name: worst error} of {name: array on the device} at the sampled rows and heads."""
    found = dict.fromkeys(results, 0.0)
    for b, h in inputs.heads:
        q, k, v, dout = (from_bits(bits[b, h]) for bits in inputs.bits)
        want = reference(q, k, v, dout, inputs.rows, causal)
        for name, array in results.items():
            got = inputs.head(array, b, h)
            if name == "dq":                                            # no gradient comes out of nothing
                want[name], some = np.zeros_like(got), want[name]
                want[name][inputs.rows] = some
            elif name in ("out", "lse"):
                got = got[inputs.rows]
            found[name] = max(found[name], worst(got, want[name]))
    return found


# ---- how fast? ----

def burst(driver, call, calls, delay):
    """(milliseconds of one of `calls` calls, whether all were enqueued before the first began)."""
    begin, end = driver.event(), driver.event()
    driver.delay(delay)
    driver.record(begin)
    for _ in range(calls):
        call()
    driver.record(end)
    queued = not driver.happened(begin)
    return driver.milliseconds(begin, end) / calls, queued


def milliseconds(driver, call, rounds=ROUNDS):
    """Median and range of a call's time on the GPU; `queued` says that no time of the CPU is in it."""
    for _ in range(2):
        call()
    driver.synchronize()
    start = time.perf_counter()
    call()
    delay = time.perf_counter() - start                                 # the CPU's part
    driver.synchronize()
    calls = max(2, min(MOST_CALLS, int(BURST_S / (time.perf_counter() - start))))
    delay, times = 2 * delay * calls, []
    for _ in range(rounds):
        ms, queued = burst(driver, call, calls, delay)
        for _ in range(3):
            if queued:
                break
            delay *= 2
            ms, queued = burst(driver, call, calls, delay)
        times.append((ms, queued))
    values = [ms for ms, _ in times]
    return {"ms": round(statistics.median(values), 4), "range_ms": [round(min(values), 4), round(max(values), 4)],
            "calls": calls, "queued": all(queued for _, queued in times)}


# ---- who? ----

def ours(module, driver, causal, variant):
    """(forward, backward) on arrays of the device; the cache ends with lse."""
    def forward(q, k, v):
        return module.arrays_forward(q, k, v, causal, variant, driver.stream)

    def backward(dout, cache):
        return module.arrays_backward(dout, cache, driver.stream)
    return forward, backward


def torch_pair(attend):
    """The same of a function of PyTorch's tensors, its backward by autograd."""
    import torch

    def forward(q, k, v):
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        out = attend(*leaves)
        return out, (out, leaves)

    def backward(dout, cache):
        out, leaves = cache
        return torch.autograd.grad(out, leaves, dout, retain_graph=True)
    return forward, backward


def sdpa(name, causal):
    """scaled_dot_product_attention pinned to one backend."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(q, k, v):
        with sdpa_kernel(getattr(SDPBackend, TORCH_BACKENDS[name])):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return torch_pair(attend)


def flash_attn(causal):
    """The flash-attn package's; it takes (B, T, NH, HS)."""
    from flash_attn import flash_attn_func
    return torch_pair(lambda *qkv: flash_attn_func(*(x.transpose(1, 2) for x in qkv), causal=causal).transpose(1, 2))


def case(module, driver, name, T, HS, causal, emulate=False):
    """One size of one candidate: {"errors", "wrong", "rows"}; no rows where something is wrong."""
    inputs = Inputs(driver, T, HS, emulate)
    arrays = inputs.arrays
    if name in OURS:
        forward, backward = ours(module, driver, causal, OURS[name])
    else:
        import torch
        torch.cuda.set_stream(torch.cuda.ExternalStream(driver.stream))
        arrays = [torch.from_dlpack(array) for array in arrays]
        forward, backward = flash_attn(causal) if name == "flash-attn" else sdpa(name, causal)
    q, k, v, dout, sparse = arrays
    module.peak_bytes()
    out, cache = forward(q, k, v)
    results = {"out": out, **dict(zip(("dq", "dk", "dv"), backward(sparse, cache)))}
    peak = module.peak_bytes()
    if name in OURS:
        results["lse"] = cache[-1]
    else:
        results = {key: array.detach().contiguous() for key, array in results.items()}
    found = errors(inputs, results, causal)
    wrong = {key: error for key, error in found.items() if not error < LIMITS[key]}
    rows = [] if wrong else timed(driver, inputs.shape, causal, {
        "forward": lambda: forward(q, k, v), "backward": lambda: backward(dout, cache)})
    more = {"peak_mib": round(peak / 2 ** 20)} if name in OURS else {}
    return {"errors": found, "wrong": wrong, "rows": [row | {"name": name} | more for row in rows]}


def timed(driver, shape, causal, calls):
    B, NH, T, HS = shape
    rows = []
    for direction, call in calls.items():
        found = milliseconds(driver, call)
        work = flops(B, NH, T, HS, causal, direction == "backward")
        rows.append({"T": T, "HS": HS, "causal": causal, "direction": direction, **found,
                     "tflops": round(work / found["ms"] / 1e9, 1)})
    return rows
