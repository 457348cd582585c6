"""Training steps of small models beside other work: who loses how much when the cores are not ours alone.

Two steps, one of 4 layers 256 wide (B=8, T=128) and nanoGPT's CPU demo (4 layers 128 wide, B=12, T=64), by minillm and
by PyTorch, each with one thread and with all. Beside them run 0, 0.3, 1 and 2 busy processes (0.3: 30% of the time).

What can be expected of t threads on c cores beside n busy ones? Either one thread goes on alone, or the scheduler gives
every runnable thread its fair share, and the step takes max(1, (t + n) / c) times as long as alone. `x_fair` is the
time over the smaller of the two: minillm's with one thread beside the same processes, the fair share of its quiet time.
"""
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np

from minillm.config import GPTConfig

from .measure import order, summary
from .step import entrant, job_for, same_loss
from .workers import start

SHAPES = {"quickstart": ({"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 128, "vocab_size": 4096}, 8, 128),
          "demo": ({"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, "vocab_size": 96}, 12, 64),
          "tiny": ({"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 97}, 2, 16)}
LOADS = (0, 0.3, 1, 2)
ROUNDS, SECONDS = 5, 1.0        # a candidate's turn lasts about so long: steps that follow each other, as in training
BUSY = """
import sys, time
share = float(sys.argv[1])
while True:
    end = time.perf_counter() + 0.02 * share
    while time.perf_counter() < end: pass
    if share < 1: time.sleep(0.02 * (1 - share))
"""


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    found, wrong, skipped = [], {}, {}
    for name in ["tiny"] if options.size == "tiny" else ["quickstart", "demo"]:
        found += rows_of(name, options, progress, wrong, skipped)
    return found, wrong, skipped


def rows_of(name, options, progress, wrong, skipped):
    """The rows of one shape."""
    shape, B, T = SHAPES[name]
    tokens = np.random.default_rng(0).integers(0, shape["vocab_size"], (B, T + 1))
    batch = {"batch": [tokens[:, :-1].tolist(), tokens[:, 1:].tolist()], "lr": 1e-4, "clip": 1.0, "weight_decay": 0.1}
    with job_for(GPTConfig(**shape), options.threads, **batch) as job:
        workers = start(candidates(options.threads), "step", job, same_loss, wrong, skipped)
        try:
            timings = {}
            for load in LOADS:
                with busy_processes(load):
                    timings[load] = take_turns(workers, options.repeat or ROUNDS)
                if progress:
                    progress(LOADS.index(load) + 1, len(LOADS), f"{name}, {load:g} busy")
        finally:
            for worker in workers.values():
                worker.stop()
    return report_rows(f"{name} B={B} T={T}", timings, options.threads)


def candidates(threads):
    """minillm and, where it is installed, PyTorch, with all threads and with one."""
    found = []
    for name, module, options in (("minillm", "gpt_minillm", {"backend": "auto"}),
                                  ("torch eager", "gpt_torch", {"compile": False})):
        if module == "gpt_minillm" or find_spec("torch"):
            one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            found += [entrant(name, module, **options), entrant(f"{name}, 1 thread", module, one, threads=1, **options)]
    return found if threads > 1 else found[::2]


@contextmanager
def busy_processes(load):
    """Processes that do nothing but use cores: as many as `load` says, the last one for a part of the time."""
    shares = [1.0] * int(load) + [load % 1] * (load % 1 > 0)
    processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY, str(share)]) for share in shares]
    try:
        time.sleep(0.2)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def take_turns(workers, rounds):
    """{candidate: Timing} of single steps; in its turn a candidate takes one after the other."""
    seconds = {name: [] for name in workers}
    for turn in range(rounds):
        for name in order(list(workers), turn) if workers else ():
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end or not seconds[name]:
                seconds[name].append(workers[name].run()["seconds"])
    return {name: summary(values) for name, values in seconds.items()}


def report_rows(dims, timings, threads, cores=None):
    """A line for each load and candidate. timings: {load: {candidate: Timing}}."""
    return [row(f"{dims}, {load:g} busy", name, timing, timings[0], found, fair_share(threads, load, cores))
            for load, found in timings.items() for name, timing in found.items()]


def fair_share(threads, load, cores=None):
    """How many times as long as alone `threads` take where every runnable thread gets as much of the cores."""
    return max(1.0, (threads + load) / (cores or usable_cores()))


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row(dims, name, timing, quiet, found, share):
    """One line of the report."""
    ours = found.get("minillm", timing)
    expected = min(found.get("minillm, 1 thread", ours).median, share * quiet.get("minillm", timing).median)
    return {"op": "load", "dims": dims, "direction": "step", "candidate": name, "dtype": "float32",
            "median_ms": 1e3 * timing.median, "low_ms": 1e3 * timing.low, "high_ms": 1e3 * timing.high,
            "samples": timing.samples, "gflops": None, "gbs": None, "peak_percent": None, "bound": None,
            "x_fair": timing.median / expected, "x_minillm": ours.median / timing.median}
