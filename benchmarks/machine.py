"""The machine's description, and its roofline measured now: peak arithmetic and memory bandwidth.

Two numbers bound any kernel (Williams et al. 2009): FLOP/s of the cores, and bytes a second from memory; the arithmetic
intensity of the kernel says which of them. Both are measured by the best that is at hand, a large GEMM by the BLAS and
plain passes over arrays that no cache holds, and the report says which. A kernel whose data stays in the cache can
pass 100% of the memory bandwidth.
"""
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

from minillm.kernels import select as registry

FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
GEMM = 2048                 # n of the n x n x n GEMM
STREAM = 128 * 2 ** 20      # bytes of each array in the memory passes
SECONDS, ATTEMPTS = 0.3, 3  # the best of this long, of this many calls at least: a limit is what is possible, not usual


def describe(threads):
    """CPU, memory and versions as a dict for JSON; no names of hosts, users or paths."""
    cpu = cpuinfo()
    flags = set(cpu.get("flags", "").split())
    return {"cpu": cpu.get("model name", platform.processor() or platform.machine()),
            "family": "/".join(cpu.get(key, "?") for key in ("cpu family", "model", "stepping")),
            "flags": [flag for flag in FLAGS if flag in flags], "cores": os.cpu_count(), "threads": threads,
            "memory_gib": round(meminfo().get("MemTotal", 0) / 2 ** 30, 1), "system": platform.system(),
            "libc": " ".join(platform.libc_ver()), "python": platform.python_version(),
            "compiler": platform.python_compiler(), "load": round(load(), 2), **versions()}


def usage():
    """(seconds that cores were busy, seconds that this process and its ended children used, seconds on the clock)."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    except OSError:
        return None
    busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return busy, sum(os.times()[:4]), time.monotonic()


def others(before):
    """Cores that were busy with something else since `before`, on average; None where the system does not say."""
    after = usage()
    if not before or not after:
        return None
    busy, ours, seconds = (b - a for a, b in zip(before, after))
    return round(max(0.0, busy - ours) / max(seconds, 1e-3), 2)


def load():
    """Processes that wanted a core during the last minute, before we started; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def versions():
    """Libraries that do the arithmetic, and the instruction set that minillm's kernels use here."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {"numpy": np.__version__, "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
            "torch": torch_version(), "minillm_kernels": kernels()}


def torch_version():
    if not find_spec("torch"):
        return None
    import torch
    return torch.__version__


def kernels():
    return getattr(registry._cpp, "__name__", "").rpartition(".")[2] or None       # None: not built, NumPy only


def cpuinfo():
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    return colon_lines("/proc/cpuinfo", stop="")


def meminfo():
    """/proc/meminfo in bytes; empty where there is none."""
    return {key: int(value.split()[0]) * 1024 for key, value in colon_lines("/proc/meminfo").items()}


def colon_lines(path, stop=None):
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    if stop in lines:
        lines = lines[:lines.index(stop)]
    return {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


def peaks(threads, dtypes=("float32",), stream=STREAM):
    """{"memory": {"gbs", "by"}, dtype: {"gflops", "by"}}: the best of what was tried, and all that was tried.

    dtypes: names; bfloat16 needs torch and is left out without it.
    """
    compute = {dtype: best(gemm_candidates(dtype), 2 * GEMM ** 3, "gflops") for dtype in dtypes}
    memory = best(memory_candidates(threads, stream), 1, "gbs")
    return {"memory": memory} | {dtype: peak for dtype, peak in compute.items() if peak}


def best(candidates, work, unit):
    """Run each {name: (call, amount)}; the fastest rate in 1e9 a second, and everybody's."""
    rates = {name: work * amount / quickest(call) / 1e9 for name, (call, amount) in candidates.items()}
    if not rates:
        return None
    by = max(rates, key=rates.get)
    return {unit: round(rates[by], 1), "by": by, "tried": {name: round(rate, 1) for name, rate in rates.items()}}


def quickest(call):
    """Seconds of the fastest call."""
    call()
    seconds = []
    while len(seconds) < ATTEMPTS or sum(seconds) < SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def gemm_candidates(dtype):
    """{name: (call, 1)} for a square GEMM in this dtype."""
    a, b = np.random.default_rng(0).standard_normal((2, GEMM, GEMM), dtype="float32")
    found = {}
    if dtype != "bfloat16":
        a, b = a.astype(dtype), b.astype(dtype)
        out = np.empty_like(a)
        found["numpy"] = (lambda: np.matmul(a, b, out=out)), 1
        if "cpu" in registry.choices("linear"):           # ours too: some libraries leave AVX-512 unused on some CPUs
            ours, bias = registry.select("cpu").linear_forward, np.zeros(GEMM, dtype)
            found["minillm"] = (lambda: ours(a, b, bias)), 1
    if find_spec("torch"):
        import torch
        x, y = (torch.from_numpy(array).to(getattr(torch, dtype)) for array in (a, b))
        result = torch.empty_like(x)
        found["torch"] = (lambda: torch.mm(x, y, out=result)), 1
    return found


def memory_candidates(threads, size):
    """{name: (call, bytes moved)} for one pass over arrays of `size` bytes, shared among threads."""
    source = np.random.default_rng(0).random(size // 4, dtype="float32")
    target = source.copy()
    edges = np.linspace(0, len(source), threads + 1).astype(int)
    pieces = [(source[a:b], target[a:b]) for a, b in pairwise(edges)]
    pool = ThreadPoolExecutor(threads)

    def all_of(work):
        return lambda: list(pool.map(lambda piece: work(*piece), pieces))

    return {"read": (all_of(lambda a, b: a.max()), size),
            "copy": (all_of(lambda a, b: np.copyto(b, a)), 2 * size),
            "scale in place": (all_of(lambda a, b: np.multiply(b, 1.0000001, out=b)), 2 * size)}
