"""The plan of a model: its parameters, FLOPs by op and phase, memory by category, tokens, hours and money.

All of it is arithmetic on a dry run of the model's own code (models/dry_run.py), so a plan takes seconds, needs no
memory to speak of, and `minillm plan --verify` can hold a real step against it.
"""
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from ..config import LlamaConfig, ModelConfig, TrainConfig, of_depth
from ..kernels.select import choices, select
from ..models.dry_run import DryCache, Meter, dry_model
from ..models.load import model_class
from ..models.quantized import GROUPS4, OUT_FIRST, WEIGHTS, Quantized
from ..train.estimate import CHINCHILLA, flops_per_second, step_flops, step_tokens
from ..train.memory import LARGEST, count_parameters, dry_run, largest, largest_batch, step_memory
from .cluster import Network, planned_scaling
from .devices import DEVICES, MFU, Device

# GPT-2's shapes (Radford et al. 2019, table 2; the largest as released), and that of a 7B model
PRESETS: dict[str, dict[str, Any]] = {
    "124M": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "1.5B": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
    "7B": {"n_layer": 32, "n_head": 32, "n_embd": 4096, "block_size": 2048},
}
TOKENS_PER_PARAMETER = {        # rules for how much to train on
    "compute-optimal": (CHINCHILLA, "Hoffmann et al. 2022, table 3 (Chinchilla)"),
    "small and served much": (200, "Sardana et al. 2024 (arXiv 2401.00448): cheaper in all where it answers much"),
}
PROCESSES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Question:
    """What is to be planned."""

    model: ModelConfig
    train: TrainConfig
    tokens: int = 0             # to train on; 0: as many as are compute-optimal
    processes: int = 1
    memory: int = 0             # bytes that it is to fit into; 0: none given
    price: float | None = None  # dollars an hour, of each device
    here: float | None = None   # FLOPs a second that this machine was measured to reach
    network: Network | None = None      # between machines like this one, which `here` tells the speed of


def plan(q: Question) -> dict[str, Any]:
    """The plan as a dict that JSON can hold."""
    parameters, flops, tokens = count_parameters(q.model), step_flops(q.model, q.train), step_tokens(q.model, q.train)
    total = q.tokens or CHINCHILLA * parameters
    tokens *= q.processes
    steps = -(-total // tokens)
    found = {
        "model": vars(q.model), "train": q.train.as_dict(), "processes": q.processes, "parameters": parameters,
        "flops": {"training": by_op(flops), "training_step": flops.total(), "tokens_per_step": tokens,
                  "six_n_p": 6 * parameters * (tokens // q.processes), "prefill": by_op(serving_flops(q.model, False)),
                  "decode": by_op(serving_flops(q.model, True))},
        "memory": {"training": training_memory(q), "choices": list(memory_choices(q)),
                   "serving": {weights: serving_memory(q.model, 1, weights) for weights in WEIGHTS},
                   "int8_kv_cache": cache_bytes(q.model, 1, "int8")},
        "tokens": {"planned": total, "per_parameter": total / parameters, "steps": steps,
                   "rules": {name: {"per_parameter": n, "tokens": n * parameters, "source": source}
                             for name, (n, source) in TOKENS_PER_PARAMETER.items()}},
        "devices": [on_device(device, q, flops.total() * steps) for device in devices(q)],
    }
    if q.network and q.here:
        found["scaling"] = planned_scaling(q.model, q.train, q.here, q.network)
    return found | ({"fits": fitting(q)} if q.memory else {})


# ---- FLOPs ----

def by_op(flops: Counter) -> dict[str, dict[str, int]]:
    """{phase: {op: FLOPs}}, in the order in which they were met."""
    found: dict[str, dict[str, int]] = {}
    for (op, phase), count in flops.items():
        found.setdefault(phase, {})[op] = int(count)
    return found


def serving_flops(c: ModelConfig, decode: bool) -> Counter:
    """FLOPs of a prefill of the whole context of one sequence, or of decoding the last token of one."""
    meter = Meter()
    tokens = np.zeros((1, 1 if decode else c.block_size), np.int64)
    dry_model(c, select("auto"), meter).decode(tokens, DryCache(c, 1, c.block_size - 1 if decode else 0), last=True)
    return Counter({(op, "decode" if decode else "prefill"): count for (op, _), count in meter.flops.items()})


# ---- memory ----

def training_memory(q: Question) -> dict[str, Any]:
    """Bytes by category, of each its own most, and at the moment when their sum is most; activations by name."""
    at_peak, most = step_memory(q.model, q.train, q.processes), dry_run(q.model, q.train).most
    sizes = {name: max(size, most.get(name, 0)) for name, size in at_peak.items()}
    return {"sizes": sizes, "at_peak": at_peak, "peak": sum(at_peak.values()),
            "block": block_activations(q.model, q.train)}


def block_activations(c: ModelConfig, t: TrainConfig) -> dict[str, int]:
    """Bytes that a block's forward keeps for its backward, by the model's own names; one block, kept whole."""
    meter = Meter()
    model = dry_model(of_depth(c, 1), select(t.backend), meter)
    tokens = np.zeros((t.batch_size, c.block_size), np.int64)
    _, activations = model.hidden(tokens, key=(0, 0, 0))
    seen: set[int] = set()
    return {name: sum(unseen(cache, seen)) for name, cache in activations.blocks[0]._asdict().items()}


def unseen(cache: Any, seen: set[int]) -> Iterable[int]:
    """Bytes of the arrays in a cache that no earlier one had."""
    if isinstance(cache, (tuple, list, dict)):
        for part in cache.values() if isinstance(cache, dict) else cache:
            yield from unseen(part, seen)
    elif (memory := getattr(cache, "memory", None)) is not None and id(memory) not in seen:
        seen.add(id(memory))
        yield memory.size


def memory_choices(q: Question) -> Iterable[dict[str, Any]]:
    """The peak for each precision, with and without recomputation and accumulation, and some numbers of processes."""
    backends: list[str] = [b for b in ("cpu", "cpu/bf16") if b in choices("linear")] or ["numpy"]
    for backend, recompute, accumulate in product(backends, (False, True), (1, max(2, q.train.accumulate))):
        t = replace(q.train, backend=backend, recompute=recompute, accumulate=accumulate)
        peaks = {str(n): sum(step_memory(q.model, t, n).values()) for n in sorted({*PROCESSES, q.processes})}
        yield {"precision": "bf16" if backend == "cpu/bf16" else "float32", "recompute": recompute,
               "accumulate": accumulate, "peak": peaks}


def serving_memory(c: ModelConfig, sequences: int, weights: str = "float32") -> dict[str, int]:
    """Bytes by category to serve so many sequences of block_size tokens at once; weights: as models/quantized.py."""
    shapes = model_class(c).shapes(c)
    matrices = [shape for name, shape in shapes.items() if len(shape) == 2 and name != "wpe.weight"]
    numbers, columns = sum(rows * cols for rows, cols in matrices), sum(cols for _, cols in matrices)
    columns += c.vocab_size - c.n_embd                                      # wte is transposed: a scale for each token
    if isinstance(c, LlamaConfig):
        columns = sum(rows for rows, _ in matrices)                         # every weight is
    rest = 4 * (count_parameters(c) - numbers)
    stored = {"float32": 4 * numbers, "bfloat16": 2 * numbers, "int8": numbers + 4 * columns,
              "int4": numbers // 2 + 4 * numbers // GROUPS4[0]}[weights]
    stored += sum(panel_bytes(shape[::-1] if name.startswith(OUT_FIRST) else shape, weights)
                  for name, shape in shapes.items() if len(shape) == 2 and name != "wpe.weight")
    meter = Meter()
    tokens = np.zeros((1, c.block_size), np.int64)                          # prompts are read one after the other
    dry_model(c, select("auto"), meter).decode(tokens, DryCache(c, 1), last=True)
    return {"weights": stored + rest, "kv_cache": cache_bytes(c, sequences), "activations": meter.at_peak.total(),
            "logits": 4 * sequences * c.vocab_size}


def cache_bytes(c: ModelConfig, sequences: int, form: str = "float") -> int:
    """Of keys and values of so many whole contexts: float32, or int8 with a float32 scale for each token of a head."""
    return 2 * c.n_layer * sequences * c.block_size * c.n_kv_head * (c.head_dim + 4 if form == "int8" else
                                                                     4 * c.head_dim)


def panel_bytes(shape: tuple[int, int], weights: str) -> int:
    """Of the second copy of a matrix (K, N) that integer kernels read, where it is (csrc/cpu/gemm/integer_panels.h)."""
    if weights not in ("int8", "int4") or not (width := panel_width()):
        return 0
    K, N = shape
    groups = K // GROUPS4[0] if weights == "int4" else 1
    return -(-N // width) * width * (-(-K // 8) * 8 // (2 if weights == "int4" else 1) + 4 * groups * (groups > 1))


@cache
def panel_width() -> int:
    """Columns of a panel; 0 where no kernel reads panels."""
    size = select("auto").integer_panel_bytes
    return size(Quantized(np.zeros((8, 1), np.int8), np.ones((1, 1), np.float32))) // 8 if size else 0


# ---- what fits ----

def fitting(q: Question) -> dict[str, Any]:
    """The largest micro-batch and context that fit into q.memory, for training and for serving."""
    again = replace(q.train, recompute=True)
    return {"memory": q.memory,
            "training": {"as planned": training_fits(q, q.train), "with recomputation": training_fits(q, again)},
            "serving": {weights: serving_fits(q, weights) for weights in WEIGHTS}}


def training_fits(q: Question, t: TrainConfig) -> dict[str, int]:
    def by_length(n: int) -> dict[str, int]:
        return step_memory(replace(q.model, block_size=n), replace(t, batch_size=1), q.processes)
    return {"micro_batch": largest_batch(q.model, t, q.memory, processes=q.processes),
            "block_size": largest(by_length, q.memory, LARGEST)}


def serving_fits(q: Question, weights: str) -> dict[str, int]:
    def by_length(n: int) -> dict[str, int]:
        return serving_memory(replace(q.model, block_size=n), 1, weights)
    one = serving_memory(q.model, 1, weights)

    def by_sequences(n: int) -> dict[str, int]:
        return one | {"kv_cache": cache_bytes(q.model, n), "logits": n * one["logits"]}
    return {"sequences": largest(by_sequences, q.memory, LARGEST),
            "block_size": largest(by_length, q.memory, LARGEST)}


# ---- hours and money ----

def devices(q: Question) -> list[Device]:
    """The table, with q.price in place of its prices, and this machine if it was measured."""
    known = [device if q.price is None else device._replace(price=q.price) for device in DEVICES]
    return known + ([Device("this machine", q.here, 0, q.price or 0.0)] if q.here else [])


def on_device(device: Device, q: Question, flops: float) -> dict[str, Any]:
    """Hours and dollars on q.processes devices of a kind. A measured speed counts whole, of a peak the share MFU."""
    speed = device.flops if device.name == "this machine" else MFU * device.flops
    hours = flops / speed / 3600                                            # of all processes, as each does its part
    return {"name": device.name, "flops_per_second": speed, "memory": device.memory, "price": device.price,
            "hours": hours, "dollars": hours * q.processes * device.price}


def measured_speed(c: ModelConfig, t: TrainConfig) -> float:
    """FLOPs a second that this machine reaches now."""
    return flops_per_second(c, t)
