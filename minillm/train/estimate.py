"""What a run will take, told before it begins: memory, time on this machine, tokens for each parameter."""
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ..config import GPTConfig, ModelConfig, TrainConfig, of_depth
from ..kernels.select import OPS, Dims, functions, select
from ..models.load import model_class
from ..models.packing import Batch
from ..progress import clock
from .device import placed, to_device
from .memory import check_memory, count_parameters, dry_run, dry_step_of

CHINCHILLA = 20             # tokens for each parameter where compute is spent best: Hoffmann et al. 2022 (arXiv
                            # 2203.15556), table 3; a model that is to be small when it serves is trained on more
TIMED_ROWS, TIMED_SECONDS, TIMED_FLOPS = 1024, 0.2, 2e10


def describe_run(c: ModelConfig, t: TrainConfig, limit: float = math.inf, ranks: int = 1) -> str:
    """Two lines for `minillm train` on so many ranks, which may be given a limit in seconds. Raises ValueError where it
    cannot fit into memory, with a remedy."""
    memory = check_memory(c, t)
    seconds = t.steps * step_flops(c, t, ranks).total() / flops_per_second(c, t)
    steps = t.steps if seconds <= limit else int(t.steps * limit / seconds)
    tokens, parameters, seconds = steps * step_tokens(c, t), count_parameters(c), min(seconds, limit)
    return (f"model       {memory}\n"
            f"plan        {'about ' * (steps < t.steps)}{steps:,} steps of {step_tokens(c, t):,} tokens, "
            f"{tokens / parameters:.1f} for each parameter (compute-optimal: {CHINCHILLA}), "
            f"about {clock(seconds)} here")


def step_tokens(c: ModelConfig, t: TrainConfig) -> int:
    """Tokens of one step of the optimizer."""
    return t.batch_size * t.accumulate * c.block_size


def step_flops(c: ModelConfig, t: TrainConfig, ranks: int = 1) -> Counter:
    """FLOPs of one step by (op, phase), exact by the op table; on ranks, those of the one with most micro-batches."""
    few, flops = dry_run(c, t).flops, Counter()
    for (op, phase), count in few.items():
        flops[op, phase] = -(-count // ranks) if phase == "update" else count * -(-t.accumulate // ranks)
    return flops


def flops_per_second(c: ModelConfig, t: TrainConfig) -> float:
    """This machine's speed now, on forward and backward of such a model with one block; or, where that takes long, of
    the MLP alone, which is half of a large model's FLOPs."""
    batch = max(1, min(t.batch_size, TIMED_ROWS // c.block_size))
    small = of_depth(c, 1)
    work = dry_step_of(small, batch, False, t.backend, t.optimizer).flops
    if work.total() > TIMED_FLOPS:
        return mlp_per_second(c, t)
    model, tokens = model_class(c)(small, ops=select(t.backend)), np.zeros((batch, c.block_size), np.int64)
    model = to_device(model, t.backend)
    tokens, grads = placed(model, Batch(tokens, tokens)).tokens, model.params.zeros_like()
    return (work.total() - sum(count for (_, phase), count in work.items() if phase == "update")) / typical_time(
        lambda: model.loss_and_grads(tokens, tokens, key=(0, 0, 0), grads=grads))


def mlp_per_second(c: ModelConfig, t: TrainConfig) -> float:
    """FLOPs a second of the MLP, forward and backward; of a Llama's, of one of its projections."""
    ops, dims = select(t.backend), Dims(B=1, T=min(TIMED_ROWS, t.batch_size * c.block_size), C=c.n_embd)
    op = "mlp" if isinstance(c, GPTConfig) else "projection"
    args = OPS[op].sample(np.random.default_rng(0), "float32", dims)
    into = tuple(np.zeros_like(array) for name, array in args.items() if name != "x")
    forward, backward = (getattr(ops, name) for name in functions(OPS[op]))

    def both() -> None:
        out, cache = forward(*args.values())
        backward(out, cache, into=into)
    return sum(OPS[op].flops(dims)) / typical_time(both)


def typical_time(run: Callable[[], Any]) -> float:
    """Median seconds of a few runs, the first of which warms up."""
    times: list[float] = []
    while sum(times) < TIMED_SECONDS or len(times) < 3:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
