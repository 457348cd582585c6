"""Where a training step's time goes: each op beside its own roofline.

    python -m benchmarks.profile [--batch 4] [--tokens 256] [--backend cpu] [--steps 3]

FLOPs are the op table's (of the head's backward without the product that kept logits save), bytes those of the arrays
that a call is given and gives back, each once, those of an update twice; the roofline of a call is the longer of
FLOPs / peak and bytes / bandwidth, both measured in this run (machine.py). `lost` is what a step would gain if the op
ran at its roofline. What Python does between the calls is a row of its own.
"""
import argparse
import os
import time
from collections import Counter

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("batch", 4), ("tokens", 256), ("steps", 3), ("threads", os.cpu_count())):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--backend", default="cpu", choices=("cpu", "cpu/bf16"))
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads)))
    from .machine import peaks
    limits = peaks(options.threads, ("float32", "bfloat16"))
    print(table(*profile(options), limits, options.backend))


def profile(options):
    """Seconds of every step, [(op, phase, seconds, bytes)] of every call, FLOPs of a step by (op, phase)."""
    from minillm.config import GPTConfig, TrainConfig
    from minillm.kernels.select import select
    from minillm.models.dry_run import KEPT_LOGITS
    from minillm.models.gpt2 import GPT
    from minillm.train.estimate import step_flops
    from minillm.train.loop import one_step
    from minillm.train.optim import bf16_weight_copy, optimizer_for
    from minillm.workbench.plan_verify import RandomBatches

    c = GPTConfig(block_size=options.tokens)
    t = TrainConfig(steps=10 ** 6, batch_size=options.batch, backend=options.backend)
    weights, calls, seconds = GPT(c, ops=select(options.backend)), [], []
    data, optimizer = RandomBatches(c, t), optimizer_for(weights, t)
    with bf16_weight_copy(weights, optimizer):
        model = weights.on(clocked(weights.ops, calls))
        optimizer.use(model.ops)
        for step in range(options.steps + 1):
            start = time.perf_counter()
            one_step(model, optimizer, data, t, {"step": 0})
            seconds.append(time.perf_counter() - start)
            if step == 0:                                       # the first fills memory
                calls.clear(), seconds.clear()
    flops = step_flops(c, t)
    logits = c.vocab_size * t.batch_size * c.block_size
    flops["linear_cross_entropy", "backward"] -= 2 * min(logits, KEPT_LOGITS) * c.n_embd
    return seconds, calls, flops


def clocked(ops, calls):
    """`ops` whose functions note down how long they took and how many bytes they were given and gave back."""
    from minillm.kernels.select import OPS, functions

    def clock(function, op, phase):
        def call(*args, **more):
            start = time.perf_counter()
            result = function(*args, **more)
            took, out = time.perf_counter() - start, result[0] if phase == "forward" else result
            moved = (1 + (phase == "update")) * weight((args, more, out))
            if OPS[op].gathered:                                # of the table, the rows that are named
                moved = 2 * weight(args[0] if phase == "backward" else out)
            calls.append((op, phase, took, moved))
            return result
        return call

    phases = {"pair": ("forward", "backward"), "update": ("update",), "reduce": ("sum",)}
    return ops._replace(**{name: clock(getattr(ops, name), spec.name, phase) for spec in OPS.values()
                           for name, phase in zip(functions(spec), phases.get(spec.kind, ()))})


def weight(x):
    """Bytes of all arrays in x, however nested."""
    if isinstance(x, np.ndarray):
        return x.nbytes
    return sum(map(weight, x.values() if isinstance(x, dict) else x)) if isinstance(x, (dict, tuple, list)) else 0


def table(seconds, calls, flops, limits, backend):
    """A line an op and phase, those that lose most first; milliseconds of a step."""
    from minillm.kernels.select import select
    backends, steps = select(backend).backends, len(seconds)
    spent, size, count = Counter(), Counter(), Counter()
    for op, phase, took, moved in calls:
        spent[op, phase] += 1e3 * took / steps
        size[op, phase] += moved / steps
        count[op, phase] += 1
    lines = []
    for (op, phase), took in spent.items():
        dtype = "bfloat16" if backends[op] == "cpu/bf16" else "float32"
        roof = 1e3 * max(flops[op, phase] / limits[dtype]["gflops"], size[op, phase] / limits["memory"]["gbs"]) / 1e9
        lines.append((took - roof, f"{op + ' ' + phase:32}{count[op, phase] / steps:6.0f}{took:9.1f}"
                      f"{flops[op, phase] / 1e9:9.1f}{size[op, phase] / 1e9:8.2f}{roof:9.1f}{100 * roof / took:7.0f}%"
                      f"{took - roof:8.1f}"))
    step, measured = 1e3 * float(np.median(seconds)), sum(spent.values())
    head = f"{'op':32}{'calls':>6}{'ms':>9}{'GFLOP':>9}{'GB':>8}{'roof ms':>9}{'':>8}{'lost ms':>8}"
    rest = f"{'between the calls':38}{1e3 * sum(seconds) / steps - measured:9.1f}"
    rates = ", ".join(f"{name} {limits[name].get('gflops') or limits[name]['gbs']}" for name in limits)
    title = f"{backend}: a step {step:.0f} ms, {sum(flops.values()) / 1e9:.0f} GFLOP; limits (GFLOP/s, GB/s): {rates}"
    return "\n".join([title, head, *(line for _, line in sorted(lines, reverse=True)), rest])


if __name__ == "__main__":
    main()
