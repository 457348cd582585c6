"""How fast a kernel is, beside NumPy, our kernels and PyTorch, so that nobody can cheat.

Every timed call is on inputs that nobody has seen before, made by this process and laid into memory that it owns while
the kernel's process is stopped, so that no thread can work ahead of the clock. Its results are looked at while that
process is stopped again, and compared with what the NumPy reference gave on the same inputs in its own process.
Candidates take turns. The clock is this process's; the way to a child and back, measured on calls of nothing, is taken
off. Half of the calls are cold (a stream through the last cache came before), half warm (the inputs have just been
written).

    floor = max(flops / peak, bytes / bandwidth)             the roofline (Williams et al. 2009), by measured peaks
    score = 1 / (1 + (t - floor) / (t_numpy - floor))        0.5 for NumPy, 1 on the roofline

What is faster than the roofline has not done the work.
"""
import json
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels.load import cpu_info
from ...ops.table import OPS, Dims, functions
from ...storage.atomic import write_jsonl
from .runner import Bench, Refused, own_memory
from .subject import PyKernel
from .template import moved
from .workload import Workload, canonical, gradients_of_outputs, workload, workload_at

DIMS = Dims(B=4, T=256, C=768, NH=12, V=8192)
ROUNDS = 12
BURST_SECONDS, MOST_SETS, MOST_BYTES = 2e-3, 24, 256 * 2 ** 20
TOO_FAST = 0.8          # of the floor; peaks are measured, and a little short of what the machine can do
LAST_CACHE = 96 * 2 ** 20


class Entrant:
    """A candidate in its own process, and its times."""

    def __init__(self, name: str, kernel: Any, threads: int, trusted: bool) -> None:
        self.name, self.bench, self.trusted = name, Bench(kernel, threads), trusted
        self.times: dict[str, list[float]] = {"cold": [], "warm": []}
        self.overhead = 0.0
        self.works: list[Workload] = []

    def meet(self, work: Workload) -> float:
        """A first call, not counted: its seconds; and how long the way to this process and back takes."""
        self.works = [work]
        self.lay_out(self.works)
        self.overhead = statistics.median(self.bench.child.nothing() for _ in range(50))
        self.bench.give()
        seconds = max(min(self.bench.run() for _ in range(2)) - self.overhead, 1e-7)
        self.bench.end()
        return seconds

    def lay_out(self, works: list[Workload]) -> None:
        self.bench.child.continued()
        owns = [own_memory(self.bench, work, True) for work in works]
        self.bench.prepare(works, True, owns, held=True)

    def run(self, cold: bool, evict: np.ndarray) -> list[dict[str, np.ndarray]]:
        """One burst: its time is noted, its results are given. It is stopped then, and stays so while others run."""
        self.bench.give()
        if cold:
            evict += 1
        seconds = self.bench.run()
        self.bench.child.stopped()
        found = [self.bench.found(work, call) for call, work in enumerate(self.works)]
        if self.bench.child.left_behind():
            raise Refused("leaves nothing behind", "it started a process while it was timed")
        if taken := self.bench.child.taken():
            raise Refused("leaves nothing behind", taken)
        self.times["cold" if cold else "warm"].append(max(seconds - self.overhead, 0.0) / len(self.works))
        return found


def bench_kernel(kernel: Any, against: Sequence[str] = ("numpy", "cpu"), dims: Dims = DIMS, threads: int = 2,
                 rounds: int = ROUNDS, seed: int | None = None) -> dict[str, Any]:
    """Time one function: a row of results. Raises Refused where a timed call is wrong, or faster than it can be."""
    rng = np.random.default_rng(seed)
    names = ["numpy", *[name for name in against if name != "numpy"]]
    entrants = [Entrant(kernel.name, kernel, threads, False)]
    try:
        entrants += [Entrant(name, reference(name, kernel), threads, True) for name in names]
        exact = workload(kernel.op, kernel.direction, dims, kernel.dtype, int(rng.integers(2 ** 31)), "normal",
                         kernel.added,
                         kernel.ignores)
        tolerance, errors = tolerances(exact), Errors()
        seconds = [entrant.meet(exact) for entrant in entrants]
        sets = how_many(seconds[0], sum(region.nbytes for region in entrants[0].bench.placed[0].regions))
        evict = np.zeros(LAST_CACHE // 4, np.float32)
        energy = joules()
        peaks = Peaks(kernel, dims, threads)
        for turn in range(rounds + 2):                  # the first two are not counted, and nobody can tell
            peaks.measure()
            one_round(entrants, kernel, dims, sets, turn, rng, evict, tolerance, errors)
        after = joules()
        energy = after - energy if energy is not None and after is not None else None
        for entrant in entrants:
            entrant.times = {state: times[1:] for state, times in entrant.times.items()}
        return row(kernel, entrants, dims, threads, sets, peaks, energy) | {"error": errors.relative,
                                                                            "absolute_error": errors.absolute}
    finally:
        for entrant in entrants:
            entrant.bench.close()


@dataclass
class Errors:
    """The largest differences from the reference in timed calls."""

    relative: float = 0.0               # to the largest number of the row
    absolute: float = 0.0


def one_round(entrants: list[Entrant], kernel: Any, dims: Dims, sets: int, turn: int, rng: Any, evict: np.ndarray,
              tolerance: dict[str, float], errors: Errors) -> None:
    """Fresh inputs, each candidate once, all results against the reference's."""
    works = [unseen(kernel, dims, rng) for _ in range(sets)]
    found = {}
    order = list(range(len(entrants)))[turn % len(entrants):] + list(range(turn % len(entrants)))
    for place in order[::-1] if turn % 2 else order:
        entrant = entrants[place]
        entrant.works = works
        entrant.lay_out(works)
        found[entrant.name, entrant.trusted] = entrant.run(turn % 2 == 0, evict)
        entrant.bench.end()
    right = found["numpy", True]
    for (_, trusted), results in found.items():
        if not trusted:
            for call, (got, want) in enumerate(zip(results, right)):
                agree(got, want, tolerance, f"timed call {turn * sets + call + 1}", kernel, errors)


def unseen(kernel: Any, dims: Dims, rng: Any) -> Workload:
    """A call with inputs that were never used before."""
    spec = OPS[kernel.op]
    args = canonical(spec.sample(rng, kernel.dtype, dims))
    if not kernel.ignores and "targets" in args:
        args["targets"] = rng.integers(0, dims.V, args["targets"].shape)
    douts: dict[str, Any] = {}
    if kernel.direction == "backward":
        sizes = workload_at(kernel.op, "forward", args, kernel.dtype, {}, ()).results
        douts = {name: rng.standard_normal(sizes[of].expected.shape).astype(kernel.dtype)
                 for name, of in gradients_of_outputs(kernel.op).items()}
    return workload_at(kernel.op, kernel.direction, args, kernel.dtype, douts, kernel.added)


def tolerances(exact: Workload) -> dict[str, float]:
    """{result: how far from the reference's float32 result an element may be, as a share of the row's size}: what
    rounding allows both."""
    found = {}
    for name, result in exact.results.items():
        size = np.abs(result.expected).max(axis=-1, keepdims=True) if result.expected.ndim > 1 else np.abs(
            result.expected).max()
        found[name] = 4 * float(np.max(result.allowed / np.maximum(size, np.finfo(np.float32).tiny)))
    return found


def agree(got: dict, want: dict, tolerance: dict[str, float], call: str, kernel: Any, errors: Errors) -> None:
    """Raise Refused where a result of a timed call is not the reference's."""
    for name in kernel.gives:
        name = kernel.reads(name)
        if name not in want:                            # mean, rstd and the like, which Python does not return
            continue
        a, b = (np.atleast_1d(np.asarray(array, np.float64)) for array in (got[name], want[name]))
        size = np.abs(b).max(axis=-1, keepdims=True)
        error = np.abs(a - b) / np.maximum(size, np.finfo(np.float32).tiny)
        error[np.isnan(error)] = np.inf
        if not error.max(initial=0) <= tolerance[name]:
            index = tuple(map(int, np.unravel_index(error.argmax(), error.shape)))
            raise Refused("timed results", f"{call}: {name}{list(index)} is {a[index]:.9g}, the reference has "
                                           f"{b[index]:.9g}")
        errors.relative = max(errors.relative, float(error.max(initial=0)))
        errors.absolute = max(errors.absolute, float(np.abs(a - b).max(initial=0)))


def how_many(seconds: float, size: int) -> int:
    """Calls in a burst: enough to be long beside the clock, few enough to fit."""
    return int(max(1, min(BURST_SECONDS / seconds, MOST_SETS, MOST_BYTES // max(1, size))))


def reference(name: str, kernel: Any) -> PyKernel:
    """One of ours, or PyTorch, as a candidate in a process of its own."""
    if name not in ("numpy", "cpu", "torch") and not name.startswith("cpu/"):
        raise ValueError(f"--against must be made of numpy, cpu, cpu/VARIANT and torch: got {name!r}")
    names = dict(zip(("forward", "backward"), functions(OPS[kernel.op])))
    return PyKernel(Path(name), kernel.op, kernel.direction, names, kernel.dtype, entrant=name)


class Peaks:
    """What this machine can do, measured in turns with the kernel, the best of all turns; and so the floor."""

    def __init__(self, kernel: Any, dims: Dims, threads: int) -> None:
        backward = kernel.direction == "backward"
        self.dtype, self.threads, self.flops, self.bandwidth = kernel.dtype, threads, 0.0, 0.0
        self.work = OPS[kernel.op].flops(dims)[backward]
        self.size = moved(kernel.op, OPS[kernel.op].signatures()[backward], dims) * (1 + (kernel.dtype == "float64"))

    def measure(self) -> None:
        self.flops = max(self.flops, peak_flops(self.dtype))
        self.bandwidth = max(self.bandwidth, peak_bandwidth(self.size, self.threads))

    def floor(self) -> tuple[float, str]:
        """(seconds, what bounds)."""
        limits = {"compute": self.work / self.flops, "memory": self.size / self.bandwidth}
        bound = max(limits, key=lambda name: limits[name])
        return limits[bound], bound


def row(kernel: Any, entrants: list[Entrant], dims: Dims, threads: int, sets: int, peaks: Peaks,
        energy: float | None) -> dict[str, Any]:
    """The result of one function."""
    (floor, bound), mine = peaks.floor(), entrants[0]
    flops, size = peaks.work, peaks.size
    times = {entrant.name if entrant.trusted else "yours":
             {state: 1e3 * statistics.median(values) for state, values in entrant.times.items()}
             for entrant in entrants}
    best = min(times["yours"].values()) / 1e3
    if sets * floor < mine.overhead:            # so short that the way there and back hides it: no verdict
        times["yours"] = {state: max(ms, 1e3 * floor) for state, ms in times["yours"].items()}
    elif best < TOO_FAST * floor:
        raise Refused("roofline", f"{1e3 * best:.4f} ms is faster than this machine can: {flops / 1e6:.1f} MFLOP and "
                                  f"{size / 1e6:.1f} MB take at least {1e3 * floor:.4f} ms ({bound})")
    t, numpy = times["yours"]["warm"] / 1e3, times["numpy"]["warm"] / 1e3
    return {"date": time.strftime("%Y-%m-%dT%H:%M:%S"), "function": kernel.name, "op": kernel.op,
            "direction": kernel.direction, "dims": dims.sampled(), "dtype": kernel.dtype, "threads": threads,
            "cpu": cpu_info("model name") or platform.processor(),
            "ms": times, "calls": sets * len(mine.times["warm"]), "gflops": flops / t / 1e9,
            "gbs": size / t / 1e9, "floor_ms": 1e3 * floor, "bound": bound, "roofline_percent": 100 * floor / t,
            "peak_gflops": peaks.flops / 1e9, "peak_gbs": peaks.bandwidth / 1e9,
            "ratio": {name: values["warm"] / times["yours"]["warm"] for name,
                      values in times.items() if name != "yours"},
            "score": score(t, numpy, floor), "overhead_us": 1e6 * mine.overhead, "joules": energy}


def score(t: float, numpy: float, floor: float) -> float:
    """0.5 as fast as NumPy, 1 on the roofline. Where NumPy is on the roofline itself, its share of the kernel's
    time."""
    return 1 / (1 + (t - floor) / (numpy - floor)) if numpy > 1.02 * floor else min(1.0, numpy / (2 * t))


def peak_flops(dtype: str, n: int = 512) -> float:
    """FLOP/s of the best of some matrix products."""
    a = np.random.default_rng(0).standard_normal((n, n)).astype(dtype)
    return 2 * n ** 3 / min(timed(lambda: a @ a) for _ in range(6))


def peak_bandwidth(size: int, threads: int) -> float:
    """Bytes/s of the best of reading, copying and adding arrays that are as large together as the kernel's; in the
    caches where they fit, which each thread has for itself."""
    count = max(4096, min(size, 192 * 2 ** 20) // 12 // threads)
    a, b, c = (np.ones(count, np.float32) for _ in range(3))
    repeat = max(2, min(50, 2 ** 20 // count))
    best = min(min(timed(lambda: np.add(a, b, out=c)) / 12, timed(lambda: np.copyto(c, a)) / 8,
                   timed(lambda: a.dot(b)) / 8)
               for _ in range(repeat))
    return threads * count / best


def timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def joules() -> float | None:
    """Energy of the processor so far, where the machine tells it."""
    try:
        return int(Path("/sys/class/powercap/intel-rapl:0/energy_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return None


def keep(rows: Sequence[dict], log: Path) -> None:
    """Add the rows to a file of JSON lines, which is replaced whole."""
    write_jsonl(log, [*(read_log(log) if log.exists() else ()), *rows])


def read_log(log: Path) -> Iterator[dict]:
    for line in log.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)


def table(rows: Sequence[dict]) -> str:
    """The standing table: one line a function, the newest of each name, op and sizes; the best score first."""
    newest = {(row["op"], row["direction"], row["function"], str(row["dims"]), row["dtype"]): row for row in rows}
    lines = [f"{'op':<22}{'function':<28}{'warm ms':>9}{'cold ms':>9}{'GB/s':>8}{'GFLOP/s':>9}{'% roof':>8}"
             f"{'x numpy':>9}"
             f"{'score':>7}"]
    for row in sorted(newest.values(), key=lambda row: (row["op"], row["direction"], -row["score"])):
        lines.append(f"{row['op'] + ' ' + row['direction'][:3]:<22}{row['function']:<28}"
                     f"{row['ms']['yours']['warm']:>9.3f}"
                     f"{row['ms']['yours']['cold']:>9.3f}{row['gbs']:>8.1f}{row['gflops']:>9.1f}"
                     f"{row['roofline_percent']:>8.0f}{row['ratio']['numpy']:>9.2f}{row['score']:>7.2f}")
    return "\n".join(lines)


def sentences(rows: Sequence[dict]) -> str:
    """What the table's figures rest on."""
    return "".join(
        f"\n{row['function']}: floor {row['floor_ms']:.3f} ms ({row['bound']}: {row['peak_gflops']:.0f} GFLOP/s, "
        f"{row['peak_gbs']:.0f} GB/s measured); "
        + ", ".join(f"{name} {times['warm']:.3f} ms warm, {times['cold']:.3f} cold"
                                                              for name, times in row["ms"].items() if name != "yours")
        + f"; {row['calls']} warm calls, the way there and back {row['overhead_us']:.0f} us taken off" for row in rows)


def roofline_picture(rows: Sequence[dict], path: Path) -> None:
    """FLOP/s against FLOPs a byte: the roof of this run, each candidate a point below it (needs the extra `plot`)."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        intensity = row["gflops"] / row["gbs"] if row["gbs"] else 0
        flops = row["gflops"] * row["ms"]["yours"]["warm"]                                    # in 1e6
        for name, times in row["ms"].items():
            axes.loglog([intensity], [flops / times["warm"]], "o",
                        label=f"{row['function'] if name == 'yours' else name}")
    x = np.geomspace(0.05, 500, 200)
    axes.loglog(x, np.minimum(rows[0]["peak_gflops"], x * rows[0]["peak_gbs"]), "k-", label="roofline")
    axes.set(xlabel="FLOPs a byte", ylabel="GFLOP/s", title=f"{rows[0]['op']}, {rows[0]['cpu']}")
    axes.legend(fontsize="small")
    figure.savefig(path)
