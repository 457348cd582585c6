"""`minillm plan --verify`: one real step held against its plan.

FLOPs: every op of the step is counted at the shapes that it is really called with. Arrays: those that the ops make are
weighed as they come and go. Memory: the most that the process had resident, as the system counts it, beyond what it had
before the model; it contains what the kernels use within a call, and whole pages.
"""
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelConfig, TrainConfig
from ..kernels.select import OPS, Ops, functions, select
from ..models.dry_run import ARRAYS, Meter, metered
from ..models.load import model_class
from ..models.packing import Batch
from ..train.estimate import step_flops
from ..train.loop import one_step
from ..train.memory import check_memory, dry_run, step_memory
from ..train.optim import AdamW, bf16_weight_copy, optimizer_for

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WITHIN = 0.05
COARSE = 200 << 20          # bytes: below, pages of 2 MB and Python's own memory are too much of the whole


class RandomBatches:
    """Data of random tokens, each batch the same."""

    def __init__(self, c: ModelConfig, t: TrainConfig):
        tokens = np.random.default_rng(t.seed).integers(0, c.vocab_size, (2, t.batch_size, c.block_size))
        self.tokens, self.targets = tokens

    def batch(self, step: int, micro: int) -> Batch:
        return Batch(self.tokens, self.targets)


def verify(c: ModelConfig, t: TrainConfig) -> dict[str, Any]:
    """What was planned and what was measured; "right": FLOPs are equal, bytes within 5%. Raises ValueError where the
    step does not fit into memory."""
    check_memory(c, t)
    before, counts = resident("VmRSS"), Meter()
    weights = model_class(c)(c, t.seed, ops=select(t.backend))
    data, optimizer = RandomBatches(c, t), optimizer_for(weights, t)
    with bf16_weight_copy(weights, optimizer):
        for _ in zip(range(2), optimizer.micro_gradients(t.accumulate)):    # its buffers are there from now on; adding
            pass                                        # up what nobody has written would make pages of zeros, to lend
        kept = [weights.params.flat, optimizer.grads.flat] + ([optimizer.part.flat] if optimizer.part else [])
        model = weights.on(weighed(metered(weights.ops, counts), counts, kept))
        optimizer.use(model.ops)
        step(model, optimizer, data, t)                                     # its pages are there for the next, too
        optimizer.use(weights.ops)
        reset_peak()
        step(weights, optimizer, data, t)
    planned, measured = sum(step_memory(c, t).values()), resident("VmHWM") - before
    arrays = dry_run(c, t).most[ARRAYS]
    flops = step_flops(c, t)
    equal = {"planned": flops.total(), "counted": counts.flops.total(), "equal": flops == counts.flops}
    found: dict[str, Any] = {
        "flops": equal, "arrays": compared(arrays, counts.most[ARRAYS]), "memory": compared(planned, measured)}
    coarse = planned < COARSE or before == 0
    found["right"] = (found["flops"]["equal"] and found["arrays"]["within"]
                      and (coarse or found["memory"]["within"]))
    return found | {"coarse": coarse}


def step(model: Any, optimizer: AdamW, data: RandomBatches, t: TrainConfig) -> None:
    model.recompute = t.recompute
    one_step(model, optimizer, data, t, {"step": 0})


def compared(planned: int, measured: int) -> dict[str, Any]:
    return {"planned": planned, "measured": measured, "error": measured / planned - 1,
            "within": abs(measured / planned - 1) <= WITHIN}


def resident(field: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most; 0 where the system does not say."""
    if not STATUS.exists():
        return 0
    return next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(field))


def reset_peak() -> None:
    """VmHWM counts from now on."""
    try:
        PEAK.write_text("5")
    except OSError:
        pass                            # it then counts from the start: more only if something else was larger


def weighed(ops: Ops, meter: Meter, known: Sequence) -> Ops:
    """The same namespace, whose pairs tell the meter of arrays that they make, and of their end. known: not theirs."""
    seen = {id(array) for array in known}

    def weigh(made: Any) -> None:
        for array in arrays_in(made):
            if id(array) not in seen:
                seen.add(id(array))
                meter.take("activations", array.nbytes)
                weakref.finalize(array, forget, id(array), array.nbytes).atexit = False

    def forget(identity: int, size: int) -> None:
        seen.discard(identity)
        meter.give("activations", size)

    def weighing(function: Callable) -> Callable:
        def run(*args: Any, **more: Any) -> Any:
            weigh(args[:1])                                                 # a sum of what two ops have made is a third
            made = function(*args, **more)
            weigh(made)
            return made
        return run
    return ops._replace(**{name: weighing(getattr(ops, name))
                           for spec in OPS.values() if spec.kind == "pair" for name in functions(spec)})


def arrays_in(made: Any) -> Iterator[np.ndarray]:
    """The arrays of numbers (not ids) that own the memory of what an op returned."""
    if isinstance(made, (tuple, list)):
        for part in made:
            yield from arrays_in(part)
    elif isinstance(made, np.ndarray) and made.dtype.kind in "fu":
        while isinstance(made.base, np.ndarray):
            made = made.base
        yield made
