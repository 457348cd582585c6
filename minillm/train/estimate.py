"""What a run will take, told before it begins: memory, time on this machine, tokens for each parameter."""
import time
from collections import Counter

import numpy as np

from ..config import GPTConfig, TrainConfig
from ..kernels.select import OPS, Dims, select
from ..progress import clock
from .memory import check_memory, count_parameters, dry_run

CHINCHILLA = 20             # tokens for each parameter where compute is spent best: Hoffmann et al. 2022 (arXiv
                            # 2203.15556), table 3; a model that is to be small when it serves is trained on more
TIMED_ROWS, TIMED_SECONDS = 1024, 0.2


def describe_run(c: GPTConfig, t: TrainConfig) -> str:
    """Two lines for `minillm train`. Raises ValueError where it cannot fit into memory, with a remedy."""
    memory = check_memory(c, t)
    tokens, parameters = t.steps * step_tokens(c, t), count_parameters(c)
    seconds = t.steps * step_flops(c, t).total() / flops_per_second(c, t)
    return (f"model       {memory}\n"
            f"plan        {t.steps:,} steps of {step_tokens(c, t):,} tokens, "
            f"{tokens / parameters:.1f} for each parameter (compute-optimal: {CHINCHILLA}), "
            f"about {clock(seconds)} here")


def step_tokens(c: GPTConfig, t: TrainConfig) -> int:
    """Tokens of one step of the optimizer."""
    return t.batch_size * t.accumulate * c.block_size


def step_flops(c: GPTConfig, t: TrainConfig) -> Counter:
    """FLOPs of one step by (op, phase), exact by the op table."""
    few, flops = dry_run(c, t).flops, Counter()
    for (op, phase), count in few.items():
        flops[op, phase] = count if phase == "update" else count * t.accumulate // min(2, t.accumulate)
    return flops


def flops_per_second(c: GPTConfig, t: TrainConfig) -> float:
    """This machine's speed now: the MLP of a block, forward and backward, which is half of a step's FLOPs."""
    ops, rows, C = select(t.backend), min(TIMED_ROWS, t.batch_size * c.block_size), c.n_embd
    args = OPS["mlp"].sample(np.random.default_rng(0), "float32", Dims(B=1, T=rows, C=C))
    work, times = sum(OPS["mlp"].flops(Dims(B=1, T=rows, C=C))), []
    into = tuple(np.zeros_like(array) for name, array in args.items() if name != "x")
    while sum(times) < TIMED_SECONDS or len(times) < 3:                     # the first of which warms up
        started = time.perf_counter()
        out, cache = ops.mlp_forward(*args.values())
        ops.mlp_backward(out, cache, into=into)
        times.append(time.perf_counter() - started)
    return work / float(np.median(times[1:]))
