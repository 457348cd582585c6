"""`minillm plan --hours`: size, tokens, batch and learning rate for so many hours here, and the loss they will reach.

The size is the one that 20 tokens for each parameter suggest at this machine's speed (Hoffmann et al. 2022, arXiv
2203.15556). Half of the hours then go to one small run with the planned batch and rate, half as long as the run that is
planned, of which several lengths are known: the rate is constant (WSD: Hägele et al. 2024, arXiv 2405.18392), and from
points along the way a copy decays to the end of a schedule of its own. Through those losses goes, by least squares,

    L(D) = E + B / D^beta               D tokens (Hoffmann et al. 2022, equation 2, for one size)

with E and beta of a grid; tokens that are seen again count for less (`worth`). So the loss is predicted twice as far as
it was measured; four times was too far (benchmarks/LOG.md). The stated error is how far the law through the first half
of the points was from the last, which is twice as far, too; or twice what the prediction moves by when a point is left
out, if that is more. No law sees a step ahead: a model that has learned which
pairs of tokens are frequent stays there for a while before it learns more. So points that are not better than a table
of pairs (`loss_of_pairs`) are left out if there are others, and on that plateau a large error is stated. The learning
rate is Kaplan's rule (Kaplan et al. 2020, arXiv 2001.08361, equation D.1) times the factor that did best.
"""
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..config import GPTConfig, TrainConfig
from ..data.shards.format import Shards
from ..data.shards.prepare import TrainingData
from ..kernels.select import select
from ..models.gpt2 import GPT
from ..storage.free_memory import free_bytes
from ..train.estimate import CHINCHILLA, flops_per_second, step_flops, step_tokens
from ..train.loop import evaluate, one_step
from ..train.memory import count_parameters, step_memory
from ..train.optim import AdamW

Say = Callable[[str], None]
SIZES = ((2, 64, 2), (2, 96, 3), (3, 128, 4), (4, 192, 6), (6, 256, 8), (6, 384, 6), (8, 512, 8), (12, 640, 10),
         (12, 768, 12), (18, 896, 14), (24, 1024, 16), (36, 1280, 20), (48, 1600, 25))     # n_layer, n_embd, n_head
SHARE = 0.5                     # of the hours, for the small run: about half as many tokens as are then trained on
POINTS = (1 / 8, 1 / 4, 8 ** -0.5, 1 / 2, 2 ** -0.5, 1.0)        # of its length, at which copies end their schedules
FITTED, ENOUGH = 5, 4            # points that the law is fitted through, the longest; and the fewest
DECAY = 0.2                     # of the steps: Hägele et al. 2024, section 3, as long as pays
FACTORS = (2.0, 1.0, 4.0)       # of the learning rate: the first, unless another does clearly better
CLEARLY = 1.005
EXPONENTS = np.arange(0.05, 0.61, 0.05)
FLOORS = np.arange(0, 0.81, 0.02)                # E, in the lowest loss: more cannot be told from so few points
VALIDATED = 64                  # sequences of the validation split that every loss is measured on
STEPS = 8000                    # that a batch size leaves, at most about; and the fewest tokens in a batch
LEAST_TOKENS = 512
TIMED_STEPS, SPARE = 10, 28     # bytes for each parameter: of a second trunk, and of what a branch puts back
REPEATED = 15.39                # passes after which more of the same data teach little: Muennighoff et al. 2023, R*_D
TAKEN = 2 ** 21                 # tokens that pairs are counted in, at most
PAST_PAIRS = 0.95               # of the loss of pairs: a run with less has learned more than pairs
SLOW = 0.1                      # exponent of a loss that falls slowly while it has not
EARLY_ERROR = 0.15              # that is then stated
LEAST_ERROR = 0.03              # that is stated: most real runs were closer to what was predicted (benchmarks/LOG.md)


class Run(NamedTuple):
    """A run that was made, to the end of its schedule."""

    tokens: int
    loss: float
    unique: int = 0             # tokens that there are to train on; 0: more than enough


class Fit(NamedTuple):
    """L(D) = E + B / D^beta."""

    E: float
    B: float
    beta: float

    def __call__(self, tokens: float) -> float:
        return self.E + self.B / tokens ** self.beta


class Trunk:
    """A training at constant rate, from which runs branch off that end their schedule."""

    def __init__(self, c: GPTConfig, t: TrainConfig, shards: Shards):
        self.config, self.unique, self.step = t, shards.train.tokens, 0
        self.model = GPT(c, t.seed, ops=select(t.backend))
        self.data = TrainingData(shards, c.block_size, t.batch_size, t.seed)
        self.optimizer = AdamW(self.model.params, t.lr, (t.beta1, t.beta2), t.eps, t.weight_decay, self.model.ops)

    def train(self, steps: int, decay: list[int]) -> None:
        """Go on to so many steps. decay: [its first step, its end]."""
        for step in range(self.step, steps):
            one_step(self.model, self.optimizer, self.data, self.config, {"step": step, "decay": decay})

    def branch(self, steps: int) -> Run:
        """Of a run of so many steps in all, which ends with the decay; the trunk itself goes on as if there was none.
        """
        start = steps - round(DECAY * steps)
        self.train(start, [start, steps])
        self.step, o = start, self.optimizer
        kept = [flat.copy() for flat in (self.model.params.flat, o.m.flat, o.v.flat)]
        self.train(steps, [start, steps])
        nats, count = evaluate(self.model, self.data.validation(self.config.eval_batches))
        for flat, before in zip((self.model.params.flat, o.m.flat, o.v.flat), kept):
            flat[:] = before
        o.steps = start
        return Run(steps * step_tokens(self.model.config, self.config), nats / count, self.unique)


def worth(tokens: float, unique: int) -> float:
    """How many fresh tokens teach as much as so many of which only `unique` are different.

        again = tokens / unique - 1         worth = unique * (1 + R * (1 - exp(-again / R)))        R = 15.39 passes

    Source: Muennighoff et al. 2023 (arXiv 2305.16264), equation 5.
    """
    again = max(0.0, tokens / unique - 1) if unique else 0.0
    return tokens if not again else unique * (1 + REPEATED * (1 - math.exp(-again / REPEATED)))


def loss_of_pairs(shards: Shards) -> float:
    """Nats per token of the validation text where the token before is all that is known: counted pairs, smoothed by
    frequencies (Jelinek & Mercer 1980, with a weight that a frequent token needs less of)."""
    train, val = (np.concatenate([np.asarray(array[:TAKEN], np.int64) for array in split.arrays])[:TAKEN]
                  for split in (shards.train, shards.val))
    V, prior = shards.vocab_size, 5.0                                   # prior: of so many tokens
    single = np.bincount(train, minlength=V) + 1.0
    pairs, counts = np.unique(train[:-1] * V + train[1:], return_counts=True)
    wanted = val[:-1] * V + val[1:]
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[place] == wanted, counts[place], 0)
    share = (seen + prior * single[val[1:]] / single.sum()) / (single[val[:-1]] - 1 + prior)
    return float(-np.log(share).mean())


def plan_hours(hours: float, shards: Shards, backend: str = "auto", seed: int = 0, say: Say = print) -> dict[str, Any]:
    """The plan for `hours` on this machine with these shards, as a dict; small runs are told through `say`."""
    seconds, started = 3600 * hours, time.perf_counter()
    length = 128 if hours < 0.5 else 256
    c, speed = suggested([GPTConfig(layers, heads, width, length, shards.vocab_size) for layers, width, heads in SIZES],
                         seconds * (1 - SHARE), shards, backend)
    t = settings(c, (1 - SHARE) * seconds * speed, backend, seed)
    cost = len(FACTORS) * POINTS[0] + (1 - DECAY) * (1 - POINTS[0]) + DECAY * sum(POINTS[1:])      # in its longest run
    size = SHARE * seconds * speed / cost / step_tokens(c, t)
    trunk, first = best_rate(c, t, max(TIMED_STEPS, round(POINTS[0] * size)), shards, say)
    spent, runs = time.perf_counter() - started, [first]
    size *= max(0.5, (SHARE * seconds / spent - 1) / (cost / len(FACTORS) / POINTS[0] - 1))        # by the speed since
    for point in POINTS[1:]:
        runs.append(trunk.branch(max(trunk.step + TIMED_STEPS, round(point * size))))
        told(runs[-1], trunk.config, say)
        if time.perf_counter() - started > SHARE * seconds and len(runs) >= ENOUGH:
            break                                                       # the machine became slower
    spent, pairs = time.perf_counter() - started, loss_of_pairs(shards)
    law = fit(past(runs, pairs))
    speed = trained_tokens(runs) / spent
    left = max(seconds - spent, (1 - SHARE) * seconds / 2)
    t = with_steps(trunk.config, round(left * speed / step_tokens(c, t)))
    tokens, unique = t.steps * step_tokens(c, t), shards.train.tokens
    return {"hours": hours, "hours_left": left / 3600, "model": vars(c), "train": t.as_dict(),
            "parameters": count_parameters(c), "tokens": tokens, "passes": tokens / unique, "tokens_per_second": speed,
            "predicted_loss": law(worth(tokens, unique)), "stated_error": stated_error(runs, tokens, pairs),
            "loss_of_pairs": pairs, "on_plateau": on_plateau(runs, pairs),
            "fit": law._asdict(), "runs": [run._asdict() for run in runs]}


def trained_tokens(runs: Sequence[Run]) -> float:
    """That were trained on for these runs: the short ones of the rates, the trunk, and the decays."""
    return (len(FACTORS) * runs[0].tokens + (1 - DECAY) * (runs[-1].tokens - runs[0].tokens)
            + DECAY * sum(run.tokens for run in runs[1:]))


def told(run: Run, t: TrainConfig, say: Say) -> None:
    say(f"small run   {run.tokens:,} tokens, lr {t.lr:.3g}: loss {run.loss:.4f}")


def suggested(ladder: Sequence[GPTConfig], seconds: float, shards: Shards, backend: str) -> tuple[GPTConfig, float]:
    """The largest size that sees 20 tokens for each parameter in these seconds, and its tokens a second, measured."""
    chosen, estimate = ladder[0], 0.0
    for c in ladder:
        t = settings(c, 1, backend, 0)
        speed = step_tokens(c, t) / (step_flops(c, t).total() / flops_per_second(c, t))
        if estimate and (speed * seconds < CHINCHILLA * count_parameters(c)
                         or sum(step_memory(c, t).values()) + SPARE * count_parameters(c) > (free_bytes() or math.inf)):
            break
        chosen, estimate = c, speed
    t, started = settings(chosen, estimate * seconds, backend, 0), time.perf_counter()
    Trunk(chosen, t, shards).train(TIMED_STEPS, [TIMED_STEPS, TIMED_STEPS])
    return chosen, TIMED_STEPS * step_tokens(chosen, t) / (time.perf_counter() - started)


def settings(c: GPTConfig, tokens: float, backend: str, seed: int, factor: float = 1.0) -> TrainConfig:
    """Batch, steps and learning rate for a run on so many tokens."""
    wanted = max(LEAST_TOKENS, tokens / STEPS) / c.block_size
    batch = 2 ** max(0, round(math.log2(wanted)))
    blocks = count_parameters(c) - (c.vocab_size + c.block_size) * c.n_embd             # Kaplan's N: no embeddings
    lr = float(f"{factor * max(1e-4, 0.003239 - 0.0001395 * math.log(blocks)):.3g}")
    t = TrainConfig(batch_size=batch, lr=lr, min_lr=lr / 10, seed=seed, backend=backend, schedule="wsd", decay=DECAY,
                    eval_batches=max(1, VALIDATED // batch))
    t = with_steps(t, round(tokens / (batch * c.block_size)))
    return replace(t, warmup=max(1, t.steps // 100))


def with_steps(t: TrainConfig, steps: int) -> TrainConfig:
    """The same for another number of steps."""
    return replace(t, steps=max(10, steps), eval_every=max(1, steps // 10))


def best_rate(c: GPTConfig, t: TrainConfig, steps: int, shards: Shards, say: Say) -> tuple[Trunk, Run]:
    """The trunk whose learning rate does best in a run of so many steps; the first, if none does clearly better."""
    best: tuple[Trunk, Run] | None = None
    for factor in FACTORS:
        trunk = Trunk(c, replace(t, lr=factor * t.lr, min_lr=factor * t.min_lr), shards)
        try:
            run = trunk.branch(steps)
        except FloatingPointError:
            say(f"small run   lr {trunk.config.lr:.3g}: diverged")
            continue
        told(run, trunk.config, say)
        if best is None or run.loss * CLEARLY < best[1].loss:
            best = trunk, run
    if best is None:
        raise ValueError("--data: training on it diverges at every learning rate that was tried")
    return best


def fit(runs: Sequence[Run]) -> Fit:
    """The law through the longest of the runs: B by least squares (none below 0), E and beta the best of a grid."""
    used = sorted(runs)[-FITTED:]
    L = np.array([run.loss for run in used])
    D = np.array([worth(run.tokens, run.unique) for run in used])
    best, least = Fit(float(L.mean()), 0.0, 0.05), math.inf
    weight = np.sqrt(D / D.max()) / L                               # errors are relative, and longer runs count more
    for E, beta in product(FLOORS * L.min(), EXPONENTS):
        column = D ** -beta * weight
        B = max(0.0, float(column @ ((L - E) * weight) / (column @ column)))
        error = float((((E + B * D ** -beta - L) * weight) ** 2).sum())
        if error < least:
            best, least = Fit(float(E), B, float(beta)), error
    return best


def past(runs: Sequence[Run], pairs: float) -> Sequence[Run]:
    """The runs that have learned more than pairs of tokens; all of them, where these are too few for a law."""
    better = [run for run in runs if run.loss < PAST_PAIRS * pairs]
    return better if len(better) >= ENOUGH else runs


def on_plateau(runs: Sequence[Run], pairs: float) -> bool:
    """Does the longest run know little more than pairs of tokens, and falls slowly: by less than L ~ D^-0.1?"""
    longest = max(runs)
    half = max((run for run in runs if run.tokens <= 0.51 * longest.tokens), default=longest)
    slope = math.log(half.loss / longest.loss) / math.log(max(2.0, longest.tokens / half.tokens))
    return longest.loss > PAST_PAIRS * pairs and slope < SLOW


def sway(runs: Sequence[Run], tokens: float) -> float:
    """How far, relative, the prediction for so many tokens moves when one of the points is left out, at most."""
    used, fresh = sorted(runs)[-FITTED:], worth(tokens, runs[0].unique)
    return max(abs(fit([run for run in used if run != out])(fresh) / fit(used)(fresh) - 1) for out in used)


def stated_error(runs: Sequence[Run], tokens: float, pairs: float) -> float:
    """Relative, of a prediction for so many tokens: how far the law through the runs of at most half the length was
    from the longest one, for each doubling of the tokens; or twice what it moves by when a point is left out.

    pairs: the loss where only pairs of tokens are known.
    """
    longest, least = max(runs), EARLY_ERROR if on_plateau(runs, pairs) else LEAST_ERROR
    least = max(least, 2 * sway(past(runs, pairs), tokens))
    short = [run for run in past(runs, pairs) if run.tokens <= 0.51 * longest.tokens]
    if len(short) < 3:
        return least
    off = abs(fit(short)(worth(longest.tokens, longest.unique)) / longest.loss - 1)
    doublings = math.log(tokens / longest.tokens) / math.log(longest.tokens / max(short).tokens)
    return max(least, off * max(1.0, doublings))


def describe_hours(p: dict[str, Any], data: Sequence[Any], out: Any) -> str:
    """The plan in a few lines, with the command that carries it out."""
    m, t = p["model"], p["train"]
    chosen = {name: m[name] for name in ("n_layer", "n_head", "n_embd", "block_size")} | {
        name: t[name] for name in ("steps", "batch_size", "lr", "min_lr", "warmup", "schedule", "decay", "eval_every",
                               "eval_batches")}
    if t["backend"] != "auto":
        chosen["backend"] = t["backend"]
    sets = " ".join(f"--set {name}={float(f'{value:.6g}') if isinstance(value, float) else value}"
                    for name, value in chosen.items())
    law = p["fit"]
    early = ("" if not p["on_plateau"] else
             f"\nATTENTION: the small run is no better than a table of pairs of tokens ({p['loss_of_pairs']:.2f} "
             "nats): the loss may yet fall in a step, which no law predicts; more --hours tell more")
    passes = f", {p['passes']:.1f} times through the data" + (
        " (more than 4 say little new: Muennighoff et al. 2023)" if p["passes"] > 4 else "")
    return (f"chosen      {p['parameters'] / 1e6:.2f}M parameters, {p['tokens']:,} tokens "
            f"({p['tokens'] / p['parameters']:.1f} for each parameter{passes}), lr {t['lr']:.3g}, "
            f"batch_size {t['batch_size']}\n"
            f"law         L = {law['E']:.3f} + {law['B']:.3g} / D^{law['beta']:.2f}\n"
            f"predicted   validation loss {p['predicted_loss']:.4f} nats per token, give or take "
            f"{p['stated_error']:.1%}, in {p['hours_left']:.2f} hours{early}\n"
            f"next: minillm train --data {' '.join(map(str, data))} --out {out} {sets}")
