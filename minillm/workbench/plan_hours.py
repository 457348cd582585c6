"""`minillm plan --hours`: size, tokens, batch and learning rate for so many hours here, and the loss they will reach.

A part of the hours goes to small runs, each trained to the end of its own schedule: the size that 20 tokens for each
parameter suggest, at three lengths, of which the longest is about a quarter of the run that is planned; and the sizes
beside it, at the shortest. Through their losses goes, by least squares and the longer ones counting more,

    L(N, D) = E + A / N^alpha + B / D^beta          N parameters, D tokens (Hoffmann et al. 2022, equation 2)

with E, alpha and beta of a grid; tokens that are seen again count for less (`worth`). The size that this says is best
within the hours is chosen, and its loss predicted. The stated error is how far the same fit without the longest run was
from that run, for each doubling of the tokens. The learning rate is Kaplan's rule (Kaplan et al. 2020, arXiv
2001.08361, equation D.1) times the factor that did best in runs of the shortest length.
"""
import math
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..config import GPTConfig, TrainConfig
from ..data.shards.format import Shards
from ..data.shards.prepare import TrainingData
from ..kernels.select import select
from ..models.gpt2 import GPT
from ..train.estimate import CHINCHILLA, flops_per_second, step_flops, step_tokens
from ..train.loop import evaluate, one_step
from ..train.memory import count_parameters, free_bytes, step_memory
from ..train.optim import AdamW

Say = Callable[[str], None]
SIZES = ((2, 64, 2), (2, 96, 3), (3, 128, 4), (4, 192, 6), (6, 256, 8), (6, 384, 6), (8, 512, 8), (12, 640, 10),
         (12, 768, 12), (18, 896, 14), (24, 1024, 16), (36, 1280, 20), (48, 1600, 25))     # n_layer, n_embd, n_head
SHARE = 0.4                     # of the hours, for small runs
LENGTHS = (1, 2, 4)             # of the runs, in the shortest; sizes beside the middle one have that alone
FACTORS = (1.0, 2.0, 4.0)       # of the learning rate
EXPONENTS = np.arange(0.05, 0.4, 0.05)          # from Kaplan's 0.076 and 0.095 to Hoffmann's 0.34 and 0.28
FLOORS = np.arange(0, 0.6, 0.05)                # E, in the lowest loss: more than half cannot be told from so few runs
VALIDATED = 64                  # sequences of the validation split that every loss is measured on
STEPS = 2000                    # that a batch size leaves, about; and the fewest tokens in a batch
LEAST_TOKENS = 512
REPEATED = 15.39                # passes after which more of the same data teach little: Muennighoff et al. 2023, R*_D
LEAST_ERROR = 0.04              # that is stated: two real runs were so far from what was predicted (benchmarks/LOG.md)


class Run(NamedTuple):
    """A small run that was made."""

    parameters: int
    tokens: int
    loss: float
    seconds: float = 0.0
    unique: int = 0             # tokens that there are to train on; 0: more than enough


class Fit(NamedTuple):
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def __call__(self, parameters: float, tokens: float) -> float:
        return self.E + self.A / parameters ** self.alpha + self.B / tokens ** self.beta


def worth(tokens: float, unique: int) -> float:
    """How many fresh tokens teach as much as so many of which only `unique` are different.

        again = tokens / unique - 1         worth = unique * (1 + R * (1 - exp(-again / R)))        R = 15.39 passes

    Source: Muennighoff et al. 2023 (arXiv 2305.16264), equation 5.
    """
    again = max(0.0, tokens / unique - 1) if unique else 0.0
    return tokens if not again else unique * (1 + REPEATED * (1 - math.exp(-again / REPEATED)))


def plan_hours(hours: float, shards: Shards, backend: str = "auto", seed: int = 0, say: Say = print) -> dict[str, Any]:
    """The plan for `hours` on this machine with these shards, as a dict; small runs are told through `say`."""
    seconds, started = 3600 * hours, time.perf_counter()
    length, vocabulary = 128 if hours < 0.5 else 256, shards.vocab_size
    ladder = [GPTConfig(layers, heads, width, length, vocabulary) for layers, width, heads in SIZES]
    middle, speed = suggested(ladder, seconds * (1 - SHARE), backend)
    begun = small_run(ladder[middle], 0, shards, backend, seed, 1.0, lambda text: None)
    slower = begun.tokens / begun.seconds / speed[middle]               # than the GEMMs alone
    speed = {place: slower * tokens for place, tokens in speed.items()}
    shortest = SHARE * seconds / (len(FACTORS) - 1 + 2 + sum(LENGTHS))
    lr_factor, first = best_factor(ladder[middle], shortest * speed[middle], shards, backend, seed, say)
    runs = [first]
    for place in (middle - 1, middle, middle + 1):
        for length in LENGTHS[1:] if place == middle else LENGTHS[:1]:
            tokens = length * shortest * speed[place]
            runs.append(small_run(ladder[place], tokens, shards, backend, seed, lr_factor, say))
        speed[place] = runs[-1].tokens / runs[-1].seconds
    fitted, unique = fit(runs), shards.train.tokens
    left = max(seconds - (time.perf_counter() - started), (1 - SHARE) * seconds / 2)
    chosen = min((middle - 1, middle, middle + 1),
                 key=lambda place: fitted(count_parameters(ladder[place]), worth(left * speed[place], unique)))
    c, tokens = ladder[chosen], left * speed[chosen]
    t = settings(c, tokens, backend, seed, lr_factor)
    tokens = t.steps * step_tokens(c, t)
    return {"hours": hours, "hours_left": left / 3600, "model": vars(c), "train": t.as_dict(),
            "parameters": count_parameters(c), "tokens": tokens, "passes": tokens / unique,
            "tokens_per_second": speed[chosen],
            "predicted_loss": fitted(count_parameters(c), worth(tokens, unique)),
            "stated_error": stated_error(runs, tokens),
            "fit": fitted._asdict(), "runs": [run._asdict() for run in runs]}


def suggested(ladder: Sequence[GPTConfig], seconds: float, backend: str) -> tuple[int, dict[int, float]]:
    """(place of the largest size that sees 20 tokens for each parameter in these seconds, tokens a second by place); a
    size beside it on both sides."""
    speed: dict[int, float] = {}
    for place, c in enumerate(ladder):
        t = settings(c, 1, backend, 0)
        speed[place] = step_tokens(c, t) / (step_flops(c, t).total() / flops_per_second(c, t))
        if place > 2 and sum(step_memory(c, t).values()) > (free_bytes() or math.inf):
            return place - 2, speed
        if place >= 2 and speed[place] * seconds < CHINCHILLA * count_parameters(c):
            break
    return place - 1, speed


def settings(c: GPTConfig, tokens: float, backend: str, seed: int, factor: float = 1.0) -> TrainConfig:
    """Batch, steps and learning rate for a run on so many tokens."""
    wanted = max(LEAST_TOKENS, tokens / STEPS) / c.block_size
    batch = 2 ** max(0, round(math.log2(wanted)))
    steps = max(10, round(tokens / (batch * c.block_size)))
    blocks = count_parameters(c) - (c.vocab_size + c.block_size) * c.n_embd             # Kaplan's N: no embeddings
    lr = float(f"{factor * max(1e-4, 0.003239 - 0.0001395 * math.log(blocks)):.3g}")
    return TrainConfig(steps=steps, batch_size=batch, lr=lr, min_lr=lr / 10, warmup=max(1, steps // 20), seed=seed,
                       backend=backend, eval_every=max(1, steps // 10), eval_batches=max(1, VALIDATED // batch))


def best_factor(c: GPTConfig, tokens: float, shards: Shards, backend: str, seed: int, say: Say) -> tuple[float, Run]:
    """The factor of the learning rate that does best in a run on so many tokens, and that run."""
    tried = {factor: small_run(c, tokens, shards, backend, seed, factor, say) for factor in FACTORS}
    best = min(tried, key=lambda factor: tried[factor].loss)
    return best, tried[best]


def small_run(c: GPTConfig, tokens: float, shards: Shards, backend: str, seed: int, factor: float, say: Say) -> Run:
    """Train for so many tokens, to the end of a schedule of its own."""
    t, started = settings(c, tokens, backend, seed, factor), time.perf_counter()
    model = GPT(c, seed, ops=select(backend))
    data = TrainingData(shards, c.block_size, t.batch_size, seed)
    optimizer = AdamW(model.params, t.lr, (t.beta1, t.beta2), t.eps, t.weight_decay, model.ops)
    for step in range(t.steps):
        one_step(model, optimizer, data, t, {"step": step})
    seconds = time.perf_counter() - started
    nats, count = evaluate(model, data.validation(t.eval_batches))
    run = Run(count_parameters(c), t.steps * step_tokens(c, t), nats / count, seconds, shards.train.tokens)
    say(f"small run   {run.parameters / 1e6:.2f}M parameters, {run.tokens:,} tokens, lr {t.lr:.3g}: "
        f"loss {run.loss:.4f} in {run.seconds:.0f} s")
    return run


def fit(runs: Sequence[Run]) -> Fit:
    """The law through the losses: A and B by least squares (none below 0), E, alpha and beta the best of a grid."""
    N, L = (np.array(column, float) for column in zip(*((run.parameters, run.loss) for run in runs)))
    D = np.array([worth(run.tokens, run.unique) for run in runs])
    best, least = Fit(0.0, 0.0, float(L.mean()), 0.3, 0.0), math.inf
    for E, alpha, beta in product(FLOORS * L.min(), EXPONENTS, EXPONENTS):
        columns = np.stack([N ** -alpha, D ** -beta], 1)
        weight = np.sqrt(D) / L                                         # errors are relative
        for used in ([0, 1], [0], [1]):
            found = np.zeros(2)
            found[used] = np.linalg.lstsq(columns[:, used] * weight[:, None], (L - E) * weight, rcond=None)[0]
            error = float((((E + columns @ found - L) * weight) ** 2).sum())
            if found.min() >= 0 and error < least:
                best, least = Fit(float(E), float(found[0]), float(found[1]), float(alpha), float(beta)), error
    return best


def stated_error(runs: Sequence[Run], tokens: float) -> float:
    """Relative, of a prediction for so many tokens: how far the law through the other runs is from the longest one, for
    each doubling from the second longest of its size to that, times the doublings from there."""
    longest = max(runs, key=lambda run: run.tokens * run.parameters)
    others = [run for run in runs if run is not longest]
    second = max((run.tokens for run in others if run.parameters == longest.parameters), default=longest.tokens / 2)
    off = abs(fit(others)(longest.parameters, worth(longest.tokens, longest.unique)) / longest.loss - 1)
    return max(LEAST_ERROR, off * max(1.0, math.log(tokens / longest.tokens) / math.log(longest.tokens / second)))


def describe_hours(p: dict[str, Any], data: Sequence[Any], out: Any) -> str:
    """The plan in a few lines, with the command that carries it out."""
    m, t = p["model"], p["train"]
    chosen = {name: m[name] for name in ("n_layer", "n_head", "n_embd", "block_size")} | {
        name: t[name] for name in ("steps", "batch_size", "lr", "min_lr", "warmup", "eval_every", "eval_batches")}
    if t["backend"] != "auto":
        chosen["backend"] = t["backend"]
    sets = " ".join(f"--set {name}={float(f'{value:.6g}') if isinstance(value, float) else value}"
                    for name, value in chosen.items())
    law = p["fit"]
    passes = f", {p['passes']:.1f} times through the data" + (
        " (more than 4 say little new: Muennighoff et al. 2023)" if p["passes"] > 4 else "")
    return (f"chosen      {p['parameters'] / 1e6:.2f}M parameters, {p['tokens']:,} tokens "
            f"({p['tokens'] / p['parameters']:.1f} for each parameter{passes}), lr {t['lr']:.3g}, "
            f"batch_size {t['batch_size']}\n"
            f"law         L = {law['E']:.3f} + {law['A']:.3g} / N^{law['alpha']:.2f} "
            f"+ {law['B']:.3g} / D^{law['beta']:.2f}\n"
            f"predicted   validation loss {p['predicted_loss']:.4f} nats per token, give or take "
            f"{p['stated_error']:.1%}, in {p['hours_left']:.2f} hours\n"
            f"next: minillm train --data {' '.join(map(str, data))} --out {out} {sets}")
