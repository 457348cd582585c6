"""How much memory training takes, told before any of it is allocated: a dry run of one step (models/dry_run.py)."""
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import prod

from ..config import ModelConfig, TrainConfig, of_depth
from ..kernels.select import Ops, multiplies_by_tiles, select
from ..models.dry_run import Meter, dry_step
from ..models.load import model_class
from ..models.params import BLOCKS, Shapes, block_matrices
from ..storage.free_memory import free_bytes

CATEGORIES = ("weights", "gradients", "moments", "activations", "logits", "workspace")
LARGEST = 1 << 20           # sequences, or tokens of context, that are tried
IN_FLIGHT = 1 << 21         # numbers that a process is about to receive from each other one
DEEP = 100                  # layers at most in a dry run: more are alike
ROWS, DEPTH = 1024, 1152    # of what the kernels' GEMM packs at a time


def count_parameters(c: ModelConfig) -> int:
    """Of a model of this shape, from those of one block: a shape may be too large even to be listed.

        parameters = (V + T) * C + L * (12 * C^2 + 13 * C) + 2 * C          of a GPT-2 of L layers
    """
    return sum(prod(shape) * (c.n_layer if name.startswith(BLOCKS) else 1) for name, shape in one_block(c).items())


def one_block(c: ModelConfig) -> Shapes:
    """{name: shape} of the parameters of this model with one block."""
    return model_class(c).shapes(of_depth(c, 1))


def step_memory(c: ModelConfig, t: TrainConfig, processes: int = 1) -> dict[str, int]:
    """Bytes by category at the moment of a training step when they are most.

    processes: that share the optimizer's moments (ZeRO stage 1: Rajbhandari et al. 2020, arXiv 1910.02054); each has
    batch_size sequences of its own.
    """
    parameters, ops = count_parameters(c), select(t.backend)
    peak = dry_run(c, t).at_peak
    copy = 2 * parameters if t.backend == "cpu/bf16" and multiplies_by_tiles() else 0
    found = {"weights": 4 * parameters + copy, "moments": -(-optimizer_bytes(c, t) // processes),
             "workspace": workspace(c, t.batch_size, ops), **peak}
    found["gradients"] = found.get("gradients", 0) + gradient_sums(parameters, t.accumulate, processes)
    return {name: found.get(name, 0) for name in CATEGORIES}


def gradient_sums(parameters: int, accumulate: int, processes: int) -> int:
    """Bytes beside the gradients of the micro-batch in hand: their sum over several, of which each process has a share,
    and what is on its way from the others (train/parallel.py)."""
    if processes == 1:
        return 4 * parameters * (accumulate > 1)
    return 4 * -(-parameters // processes) + 4 * IN_FLIGHT * processes


def optimizer_bytes(c: ModelConfig, t: TrainConfig) -> int:
    """Of what the optimizer keeps: two moments, but one of Muon's matrices; and the mean of the weights, if any."""
    arrays = 2 + bool(t.ema)
    shapes = one_block(c)
    matrices = c.n_layer * sum(prod(shapes[name]) for name in block_matrices(shapes)) if t.optimizer == "muon" else 0
    return 4 * (arrays * count_parameters(c) - matrices)


def dry_run(c: ModelConfig, t: TrainConfig) -> Meter:
    """The Meter of a step with one micro-batch: bytes by category (gradients, activations, logits)."""
    meter = dry_step_of(of_depth(c, min(DEEP, c.n_layer)), t.batch_size, t.recompute, t.backend,
                        t.optimizer)
    return meter if c.n_layer <= DEEP else meter.times(c.n_layer / DEEP)


@cache
def dry_step_of(c: ModelConfig, batch: int, recompute: bool, backend: str,
                optimizer: str) -> Meter:
    return dry_step(c, select(backend), batch, recompute, optimizer)


def workspace(c: ModelConfig, batch: int, ops: Ops) -> int:
    """What ops use within a call, about: the kernels keep theirs; NumPy's temporaries of its largest op."""
    tokens, C = batch * c.block_size, c.n_embd
    rows = min(ROWS, tokens)
    if ops.backends["linear"] == "numpy":
        return 4 * max(4 * batch * c.n_head * c.block_size ** 2, 5 * tokens * 4 * C, 3 * 256 * c.vocab_size)
    packed = 4 * min(ROWS, max(rows, 4 * C)) * min(DEPTH, 4 * C)
    if ops.backends["linear"] == "cpu/bf16":
        return 14 * rows * 4 * C + 6 * tokens * C + 12 * packed
    return 12 * rows * 4 * C + 4 * rows * min(DEPTH, c.vocab_size) + 6 * packed


def check_memory(c: ModelConfig, t: TrainConfig) -> str:
    """A few words on what training needs. Raises ValueError for more than there is, with what would fit instead."""
    size, needed, free = count_parameters(c), sum(step_memory(c, t).values()), free_bytes()
    if free is not None and needed > free:
        raise ValueError(f"a model of {size / 1e6:,.1f}M parameters needs about {needed / 1e9:,.1f} GB to train, and "
                         f"{free / 1e9:,.1f} GB are free: {remedy(c, t, free)}")
    return f"{size / 1e6:.1f}M parameters, about {needed / 1e9:.1f} GB to train"


def remedy(c: ModelConfig, t: TrainConfig, free: int) -> str:
    """What to change so that it fits, the least first: smaller micro-batches, recomputation, a shallower model."""
    least = replace(t, batch_size=1, recompute=True)
    for again in dict.fromkeys((t, replace(t, recompute=True))):
        whole = sum(step_memory(c, again).values()) <= free
        several = replace(again, accumulate=max(2, t.accumulate))
        if found := t.batch_size if whole else largest_batch(c, several, free, t.batch_size):
            first = "train.recompute=true and " * (again.recompute and not t.recompute)
            return (f"{first}train.batch_size={found} with train.accumulate={-(-t.batch_size * t.accumulate // found)} "
                    "would fit, with the same gradients")
    layers = largest(lambda n: step_memory(of_depth(c, n), least), free, c.n_layer)
    depth = f" (n_layer={layers} would fit, with train.batch_size=1 and train.recompute=true)" if layers else ""
    return f"choose a smaller n_layer, n_embd, block_size or vocab_size{depth}"


def largest_batch(c: ModelConfig, t: TrainConfig, memory: int, most: int = LARGEST, processes: int = 1) -> int:
    """The largest micro-batch that fits into so many bytes, 0 for none."""
    return largest(lambda n: step_memory(c, replace(t, batch_size=n), processes), memory, most)


def largest(memory: Callable[[int], dict[str, int]], limit: int, most: int) -> int:
    """The largest n in [0, most] whose memory(n), by category, is at most `limit` in all; 0 if there is none."""
    low, high = 0, 1
    while high <= most and sum(memory(high).values()) <= limit:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(memory(middle).values()) <= limit else (low, middle)
    return low
