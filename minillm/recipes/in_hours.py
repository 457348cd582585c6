"""`minillm train --hours`: the size, the batch and the rate that the time and the text suggest, measured here.

What is chosen was found by measurement (benchmarks/LOG.md): a Qwen3-like model, whose normalised queries and keys bear
a high learning rate; Muon; a rate that stays high until its decay just fits into the rest of the time. The size is the
largest of SIZES that sees TOKENS tokens for each parameter in the time; text that is read again counts less (worth).

Where there is more time than text, the size is the largest that the time takes through the text FEWEST times, with
PER_TOKEN parameters for each of its tokens at most. After PASSES times the run ends before its time, for it would only
memorize from then on. Weight decay, which slows that, is stronger, and the rate's decay longer.

On ranks (train/parallel.py) a batch has as many rows as on one process, dealt to the ranks; only where there are more
ranks than rows it grows. They take the timed steps together, so that their messages and waits count, and rank 0's
clock decides for all.
"""
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig, TrainConfig
from ..data.shards.format import Shards
from ..data.shards.prepare import TrainingData
from ..kernels.select import multiplies_in_bf16, select
from ..models.load import fresh_config, load_model
from ..train.checkpoint import checkpoint_exists, load_training
from ..train.device import to_device
from ..train.estimate import flops_per_second, step_flops, step_tokens
from ..train.loop import step_for
from ..train.memory import count_parameters
from ..train.optim import optimizer_for
from ..train.parallel import World, all_ranks, of_rank_0
from ..train.sharded import sharded
from ..workbench.plan_hours import worth
from .quickstart import Say, fresh
from .train_on_files import shards_for, train_on_files

SIZES = (               # layers, width, heads
    (4, 96, 3), (4, 128, 4), (6, 192, 6), (6, 256, 8), (6, 384, 6), (8, 384, 6), (8, 512, 8), (12, 768, 12))
MODEL = {"family": "qwen3", "block_size": 256}
ROWS = 8                        # of a step, whatever the number of ranks
TRAIN = {"optimizer": "muon", "schedule": "wsd", "decay": 0.4, "min_lr": 0.0, "weight_decay": 0.1, "batch_size": ROWS}
LR, WIDTH = 8e-3, 96            # the rate at that width; it falls with the root of the width
TOKENS = 5                      # for each parameter, at least
FEWEST, PASSES = 6, 14          # times through a short text, of the size that is chosen; at most
PER_TOKEN = 16                  # parameters for each of its tokens, at most
PULL, DECAY = 4e-3, 0.6         # where text is read again: the share of a weight that a step takes; the rate's decay
TRIALS = 6                      # steps that are timed, after one
MOST = 10 ** 7                  # steps: the time ends the training, not their number
VALIDATIONS = 20                # on the way


def train_for_hours(paths: Sequence[str | Path], out: str | Path, hours: float, model: Mapping[str, Any],
                    train: Mapping[str, Any], tokenizer: str | Path | None = None, vocab_size: int = 8192,
                    resume: str = "auto", say: Say = print) -> dict:
    """`minillm train --hours`: as train_on_files, for so many hours from the first step on. Returns the results.

    model, train: settings that are given. A run that is there goes on as it was begun, for so many hours more, on any
    number of ranks that its rows suffice for.
    """
    if not 0 < hours < math.inf:
        raise ValueError(f"--hours must be above 0 and finite: got {hours:g}")
    world = all_ranks()
    if resume != "never" and checkpoint_exists(Path(out), world):
        c, t, resume = begun_with(Path(out), model, train, resume, world.size if world else 1)
    else:
        shards = shards_for(paths, out, tokenizer, vocab_size, world)
        c, t = suggested(shards, hours, model, train, world)
        if t.steps < MOST and "steps" not in train:
            say(f"text        {shards.train.tokens:,} tokens are few for {hours:g} hours: training ends after {PASSES} "
                "passes, before it knows them by heart; more text would teach more")
    return train_on_files(paths, out, c, t, tokenizer, vocab_size, resume, say, seconds=3600 * hours)


def begun_with(out: Path, model: Mapping[str, Any], train: Mapping[str, Any], resume: str,
               ranks: int) -> tuple[ModelConfig, TrainConfig, str]:
    """The settings of the run that is there, but for those that are given; and how to resume it: more ranks than it has
    micro-batches override their number, where nothing else changes."""
    recorded = TrainConfig.recorded(load_training(out / "last")[2]["settings"])
    given = replace(recorded, **train)
    t = given if {"accumulate", "batch_size"} & set(train) else cut_for(given, ranks)
    return replace(load_model(out / "last").config, **model), t, "override" if given == recorded != t else resume


def cut_for(t: TrainConfig, ranks: int) -> TrainConfig:
    """With a micro-batch for each rank at least: the same rows in every step, cut more finely if need be."""
    rows = t.batch_size * t.accumulate
    accumulate = next((n for n in range(max(ranks, t.accumulate), rows + 1) if rows % n == 0), t.accumulate)
    return replace(t, accumulate=accumulate, batch_size=rows // accumulate)


def suggested(shards: Shards, hours: float, model: Mapping[str, Any], train: Mapping[str, Any],
              world: World | None = None) -> tuple[ModelConfig, TrainConfig]:
    """(ModelConfig, TrainConfig) for so many hours here. model, train: settings that are given and stay as they are."""
    chosen, steps, text = None, 1.0, shards.train.tokens
    train = {**for_ranks(world, train), **train} if world else train
    for layers, width, heads in SIZES:
        c, t = settings(shards, (layers, width, heads), model, train)
        fits = 3600 * hours / step_seconds(c, t, shards, world)
        if chosen and not suits(count_parameters(c), fits * step_tokens(c, t), text):
            break
        chosen, steps = (c, t), fits
        if {"n_layer", "n_embd"} <= set(model):
            break
    assert chosen
    c, t = chosen
    most = max(1, math.ceil(PASSES * text / step_tokens(c, t)))
    again = {"weight_decay": float(f"{PULL / t.lr:.2g}"), "decay": DECAY} if FEWEST * most <= PASSES * steps else {}
    steps, last = (most, most) if steps > most else (steps, MOST)
    every = max(50, int(steps / VALIDATIONS))
    pace: dict[str, Any] = {"steps": last, **again, "warmup": max(1, min(100, int(steps / 10))), "eval_every": every,
                            "save_every": every, "log_every": max(1, every // 50)}
    return c, replace(t, **{name: value for name, value in pace.items() if name not in train})


def suits(parameters: int, tokens: float, text: int) -> bool:
    """Is a model of so many parameters worth the time, which suffices for so many tokens, in a text of so many?"""
    learns = worth(tokens, text) >= TOKENS * parameters
    return learns or tokens >= FEWEST * text and parameters <= PER_TOKEN * text


def for_ranks(world: World, train: Mapping[str, Any]) -> dict[str, Any]:
    """A micro-batch for each rank, of its share of the rows; bf16 where all ranks multiply in it."""
    backend = "cpu/bf16" if world.gather([multiplies_in_bf16()]).all() else "auto"
    cut = {"accumulate": world.size, "batch_size": -(-ROWS // world.size)}
    return {"backend": backend} | (cut if "accumulate" not in train else {})


def settings(shards: Shards, size: tuple[int, int, int], model: Mapping[str, Any],
             train: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """(ModelConfig, TrainConfig) of one size (layers, width, heads). model, train: settings given instead."""
    layers, width, heads = size
    if isinstance(given_width := model.get("n_embd"), int) and given_width != width:
        heads = next((n for n in range(given_width // 32, 1, -1) if given_width % (2 * n) == 0), 1)
    c = fresh_config({**MODEL, "n_layer": layers, "n_embd": width, "n_head": heads, **model,
                      "vocab_size": shards.vocab_size})
    rate = {"lr": float(f"{LR * math.sqrt(WIDTH / c.n_embd):.2g}"),
            "backend": "cpu/bf16" if multiplies_in_bf16() else "auto"}
    return c, TrainConfig(**{**TRAIN, **rate, **train})


def step_seconds(c: ModelConfig, t: TrainConfig, shards: Shards, world: World | None = None) -> float:
    """What a step takes, on all ranks: by its FLOPs (the slowest rank's), or measured where it is under a second."""
    estimate = step_flops(c, t, world.size if world else 1).total() / flops_per_second(c, t)
    if world:
        estimate = float(world.gather([estimate]).max())
    if estimate > 1:
        return estimate
    model = to_device(fresh(c, t.seed, select(t.backend)), t.backend)
    data = TrainingData(shards, c.block_size, t.batch_size, t.seed, t.accumulate)
    optimizer = sharded(world, model, t) if world else optimizer_for(model, t)
    times, take_step = [], step_for(model)
    for step in range(1 + TRIALS):
        started = time.perf_counter()
        take_step(model, optimizer, data, t, {"step": step})
        times.append(time.perf_counter() - started)
    return of_rank_0(world, sorted(times[1:])[TRIALS // 2])[0]
