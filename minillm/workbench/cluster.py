"""How fast a model would train on 1 to 64 machines: data-parallel steps (train/parallel.py), by latency and bandwidth.

A step has M micro-batches of m seconds each, dealt over N ranks in r rounds, and an update of u seconds, which the
ranks share (of Muon: its matrices). A message of b bytes takes L + b / W, with the latency L in seconds and the
bandwidth W in bytes a second, both directions at once; P is the number of parameters.

    s = (N - 1) * L + 4 * P / W * (N - 1) / N           seconds of a reduce-scatter of gradients, and of an all-gather
    h = min(s, 2 * m / 3)                               hidden behind the backward, two thirds of a micro-batch
    t = r * (m + s - h) + u / N + s                     seconds of a step
    e = (M * m + u) / (N * t)                           efficiency: the speedup for each rank

Nothing is lost to stragglers: a real step waits for the slowest rank. Source of the time of a message: Hockney 1994,
"The communication challenge for MPP".
"""
import re
import time
from typing import Any, NamedTuple

import numpy as np

from ..config import ModelConfig, TrainConfig
from ..kernels.select import select
from ..train.estimate import step_flops
from ..train.memory import count_parameters

RANKS = (1, 2, 4, 8, 16, 32, 64)
BACKWARD = 2 / 3                # of a micro-batch's time
UPDATED = 1 << 22               # numbers that the update's speed is measured on


class Network(NamedTuple):
    """Between two machines."""

    latency: float              # seconds
    bandwidth: float            # bytes a second, each way


def network(text: str) -> Network:
    """'10Gbit,50us' -> Network: bandwidth and latency. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GM])bit(?:\s*,\s*(\d+(?:\.\d+)?)\s*us)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise ValueError(f"--network must be a bandwidth and a latency such as 10Gbit,50us: got {text!r}")
    unit = {"G": 1e9, "M": 1e6}[found[2].upper()]
    return Network(float(found[3] or 50) / 1e6, float(found[1]) * unit / 8)


def planned_scaling(c: ModelConfig, t: TrainConfig, speed: float, net: Network) -> list[dict[str, Any]]:
    """`scaling` of a model, with at least as many micro-batches as the largest number of ranks. speed: FLOPs a second
    of one machine."""
    flops = sum(count for (_, phase), count in step_flops(c, t).items() if phase != "update")
    muon = sum(count for (op, _), count in step_flops(c, t).items() if op == "muon")
    return scaling(max(t.accumulate, RANKS[-1]), flops / t.accumulate / speed, update_seconds(c, t) + muon / speed,
                   count_parameters(c), net)


def update_seconds(c: ModelConfig, t: TrainConfig) -> float:
    """Of AdamW on all parameters here, measured on a part of them."""
    parameters, update = count_parameters(c), select(t.backend).adamw_update
    arrays = [np.full(min(UPDATED, parameters), 0.1, np.float32) for _ in range(4)]
    times = []
    for step in (1, 2, 3):
        started = time.perf_counter()
        update(*arrays, step, 1e-4, 0.9, 0.95, 1e-8, 0.1, 0, 1.0, None)
        times.append(time.perf_counter() - started)
    return sorted(times)[1] * parameters / arrays[0].size


def step_seconds(ranks: int, micros: int, micro: float, update: float, parameters: int, net: Network) -> float:
    """Of one step, by the formula above."""
    share = 0.0 if ranks == 1 else (ranks - 1) * net.latency + 4 * parameters / net.bandwidth * (ranks - 1) / ranks
    hidden = min(share, micro * BACKWARD)
    return -(-micros // ranks) * (micro + share - hidden) + update / ranks + share


def scaling(micros: int, micro: float, update: float, parameters: int, net: Network) -> list[dict[str, Any]]:
    """A row for each number of ranks that have work: seconds a step, speedup, efficiency."""
    alone = step_seconds(1, micros, micro, update, parameters, net)
    rows = []
    for ranks in (n for n in RANKS if n <= micros):
        seconds = step_seconds(ranks, micros, micro, update, parameters, net)
        rows.append({"ranks": ranks, "micro_batches": micros, "seconds": seconds, "speedup": alone / seconds,
                     "efficiency": alone / seconds / ranks})
    return rows
