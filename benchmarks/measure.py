"""Timing that can be believed: first is it right, then how fast, with the candidates taking turns.

A round lets every candidate run once, in an order that rotates and turns round, so that nobody always runs first or
always behind the same neighbour. A run is a burst of calls, one for a slow candidate and many for a quick one; every
call is timed on its own. The median ignores the odd interrupted call; the quartiles show how much to believe it.
"""
import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

MIN_ROUNDS, MAX_ROUNDS = 5, 7
BUDGET = 0.3            # seconds of timed calls per candidate, at least
PAUSE = 0.12            # seconds between candidates: OpenBLAS's threads spin for 2^28 cycles after their work, 100 ms
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 5e-2}     # bfloat16: GEMM operands; accumulation is float32


@dataclass(frozen=True)
class Timing:
    """Seconds per call."""

    median: float
    low: float              # first quartile
    high: float             # third quartile
    samples: int            # calls timed


@dataclass(frozen=True)
class Candidate:
    """Something to time. `runs`: {direction: () -> arrays}; `results`: () -> {tensor name: array} of all directions."""

    name: str
    runs: dict
    results: object
    compared: bool = True   # False where results cannot agree, such as masks from another random generator
    tolerance: float | None = None      # its own, if not that of the dtype of its arrays


def interleave(candidates, repeat=None, budget=BUDGET, clock=time.perf_counter, sleep=time.sleep, fresh=None):
    """Time callables in turns: {name: callable} -> {name: Timing}.

    fresh: with `before(name)` and `after(name, result)`, called outside the clock at every call (see fresh.py). repeat:
    rounds (default: 5 for slow candidates to 7 for quick ones). Raises ValueError if repeat is below 5, and
    FloatingPointError for a result that is not finite.
    """
    if repeat is not None and repeat < MIN_ROUNDS:
        raise ValueError(f"repeat must be at least {MIN_ROUNDS}: got {repeat}")
    def call(name):
        if fresh:
            fresh.before(name)
        seconds, result = timed(candidates[name], clock)
        if fresh:
            fresh.after(name, result)
        return seconds

    once = {}
    for name in candidates:
        sleep(PAUSE)
        once[name] = warm_up(name, call)
    rounds = repeat or min(MAX_ROUNDS, max(MIN_ROUNDS, math.ceil(budget / max(once.values(), default=1))))
    burst = {name: max(1, math.ceil(budget / (rounds * seconds))) for name, seconds in once.items()}
    samples = {name: [] for name in candidates}
    for turn in range(rounds):
        for name in order(list(candidates), turn):
            sleep(PAUSE)
            samples[name] += [call(name) for _ in range(burst[name])]
    return {name: summary(seconds) for name, seconds in samples.items()}


def order(names, turn):
    """Who runs when in this round: every second round backwards, and each pair of rounds starts one further on."""
    start = turn // 2 % len(names)
    names = names[start:] + names[:start]
    return names[::-1] if turn % 2 else names


def warm_up(name, call):
    """Two calls to fill caches and start threads; the second's seconds."""
    call(name)
    return max(call(name), 1e-7)


def timed(run, clock):
    """(seconds of one call, what it returned), which is looked at outside the clock."""
    start = clock()
    result = run()
    seconds = clock() - start
    consume(result)
    return seconds, result


def consume(result):
    """Look at a few numbers of each array; NumPy's or PyTorch's. An op's cache is a tuple, and is skipped."""
    for array in result if isinstance(result, (tuple, list)) else [result]:
        if hasattr(array, "reshape"):
            flat = (array.detach() if hasattr(array, "detach") else array).reshape(-1)
            if not all(math.isfinite(flat[i]) for i in {0, len(flat) // 2, len(flat) - 1}):
                raise FloatingPointError("a timed call returned NaN or infinity")


def summary(seconds):
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return Timing(float(median), float(low), float(high), len(seconds))


def report_row(op, dims, direction, candidate, dtype, seconds, **figures):
    """One line of the report on what has no roofline: the median of `seconds`, the smallest and the largest."""
    return {"op": op, "dims": dims, "direction": direction, "candidate": candidate, "dtype": dtype,
            "median_ms": 1e3 * statistics.median(seconds), "low_ms": 1e3 * min(seconds), "high_ms": 1e3 * max(seconds),
            "samples": len(seconds), "gflops": None, "gbs": None, "peak_percent": None, "bound": None} | figures


def named_outs(out):
    """{"out": array}, or {"out0": ..., "out1": ...} for a tuple of them."""
    return {f"out{i}": part for i, part in enumerate(out)} if isinstance(out, tuple) else {"out": out}


def disagreements(got, expected, tolerance):
    """What is wrong with {tensor: array} `got`, one line a tensor with its worst element; an empty list if nothing.

    expected: the reference in float64. An element is wrong when its error exceeds tolerance * (|expected| + rms), with
    rms that of its tensor: sums that cancel are judged by the size of their terms.
    """
    return [line for name in expected for line in disagreement(name, got.get(name), expected[name], tolerance)]


def disagreement(name, got, expected, tolerance):
    if got is None or got.shape != expected.shape:
        return [f"{name} has shape {getattr(got, 'shape', None)}, expected {expected.shape}"]
    rms = math.sqrt(np.mean(np.square(expected))) or 1.0
    error = np.abs(got - expected) / (np.abs(expected) + rms)
    error[np.isnan(error)] = math.inf
    index = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
    if error[index] <= tolerance:
        return []
    return [f"{name}{list(index)} is {got[index]:.9g}, expected {expected[index]:.9g}: "
            f"error {error[index]:.1e}, allowed {tolerance:.0e}"]


def gate(candidates, expected, tolerance):
    """Split candidates into those that are right and {name: [what is wrong]}. A candidate that raises is wrong, too."""
    right, wrong = [], {}
    for candidate in candidates:
        try:
            allowed = candidate.tolerance or tolerance
            lines = disagreements(candidate.results(), expected, allowed) if candidate.compared else []
        except Exception as error:          # any failure of a candidate is a finding about it, and the others go on
            lines = [f"{type(error).__name__}: {error}"]
        if lines:
            wrong[candidate.name] = lines
        else:
            right.append(candidate)
    return right, wrong
