"""Two models for speculative decoding: a target of 30M parameters, a draft distilled from it, and their speed-up.

`make_draft` distils a draft for a model that is there; `make_pair` trains both on the bundled corpus; `measure` decodes
with and without the draft, in turns, and puts the speed-up beside what the theory promises (Leviathan et al. 2023,
theorem 3.8): (1 - a^(k+1)) / ((1 - a)(k c + 1)), a the acceptance rate, c the time of a draft's token in the target's.
"""
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import GPTConfig, LlamaConfig, ModelConfig, TrainConfig
from ..data.shards.format import SIDECAR, Shards, Split, open_shards
from ..data.shards.prepare import TrainingData, prepare
from ..data.sources.files import read_documents
from ..generation.decode import Step, steps
from ..generation.sampling import Sampling
from ..generation.speculative import Counts, Lookup, speculative_steps, theoretical_speedup
from ..kernels.select import select
from ..models.gpt2 import GPT
from ..models.load import load, load_model, model_class
from ..posttrain.distill import distill_step
from ..progress import Progress
from ..tokenizer import Tokenizer
from ..train.loop import one_step
from ..train.memory import check_memory
from ..train.origin import begin
from ..train.plot import plot_losses
from .quickstart import Say, bundled_corpus, describe_model, planned, pretrain, tokenized

TARGET: dict[str, Any] = {"n_layer": 6, "n_head": 10, "n_embd": 640}            # 29.5M parameters and the vocabulary
BLOCK = {"docs": 128, "stories": 256}
SETTINGS = TrainConfig(batch_size=4, min_lr=5e-5, weight_decay=0.1, eval_batches=25, save_every=0, log_every=10)
RATES = {"target": 1e-3, "draft": 3e-3}
PROMPTS, PROMPT, LENGTH = 6, 12, 96                             # texts to measure on, tokens given and tokens decoded


def make_pair(corpus: str, out: str | Path, minutes: float = 15.0, n_steps: int | None = None, k: int = 4,
              seed: int = 0, backend: str = "auto", say: Say = print, **draft: float) -> dict:
    """Train a target on the bundled corpus, distil a draft, measure them; returns the results as a dict.

    out: gets the run directories target/ and draft/. minutes: of training, two thirds of them the target's. n_steps: a
    fixed number for each instead. draft: n_layer, n_embd, temperature and weight, as of `make_draft`.
    """
    target = Path(out) / "target"
    tokenizer, shards = tokenized(bundled_corpus(corpus, seed, say), target, corpus, seed, say)
    config = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=BLOCK[corpus], **TARGET)
    model = GPT(config, seed, ops=select(backend))
    best = fit("target", model, shards, target, tokenizer, one_step, minutes * 2 / 3, n_steps, seed, backend, say)
    results = make_draft(target, Path(out) / "draft", None, minutes=minutes / 3, n_steps=n_steps, k=k, seed=seed,
                         backend=backend, say=say, **draft)         # type: ignore[arg-type]
    return {"target": best, **results}


def make_draft(target: str | Path, out: str | Path, data: Sequence[str | Path] | None = None, n_layer: int = 2,
               n_embd: int = 192, temperature: float = 1.0, weight: float = 0.9, minutes: float = 5.0,
               n_steps: int | None = None, k: int = 4, seed: int = 0, backend: str = "auto", say: Say = print) -> dict:
    """Train a draft for the model in directory `target` and measure the two; returns the results as a dict.

    data: files and folders to learn on (None: the shards that the target was trained on). n_layer, n_embd: the draft's
    shape. temperature, weight: of the loss (ops/losses/distillation_loss.py). Raises FileNotFoundError where there is
    nothing to learn on.
    """
    teacher, tokenizer = load(target, backend)
    shards = shards_of(target, out, data, tokenizer)
    learned = ", ".join(map(str, data)) if data else Path(target) / "data"
    begin(out, tokenizer, "distilled", target, learned, shards.train.documents, shards.val.documents, role="taught by")
    config = draft_shape(teacher.config, n_layer, n_embd)
    check_memory(config, replace(SETTINGS, backend=backend))
    student = model_class(config)(config, seed, ops=teacher.ops)
    step = distill_step(teacher, temperature, weight)
    best = fit("draft", student, shards, out, tokenizer, step, minutes, n_steps, seed, backend, say)
    report = measure(load_model(target), load_model(out), prompts_from(shards.val), k)
    say(speculation_page(report, target, out))
    return {"draft": best, "speculation": report}


def draft_shape(c: ModelConfig, n_layer: int, n_embd: int) -> ModelConfig:
    """A small model of the target's family, with its ratios of the MLP's width to the model's and of query heads to
    key heads; all layers alike, without Gemma 2's own scale of the scores and cap of the logits."""
    n_head = heads(n_embd)
    shape: dict[str, Any] = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "n_inner": 0, "dropout": 0.0}
    if isinstance(c, LlamaConfig):
        n_kv_head = next(n for n in range(max(1, n_head * c.n_kv_head // c.n_head), 0, -1) if n_head % n == 0)
        shape |= {"n_kv_head": n_kv_head, "head_dim": n_embd // n_head, "full_layers": (), "query_size": 0.0,
                  "n_inner": max(8, 8 * round(c.n_inner * n_embd / c.n_embd / 8)), "logit_cap": 0.0}
    return replace(c, **shape)


def heads(n_embd: int) -> int:
    """How many: as many as divide the width and are at least 64 wide each."""
    return next(n for n in range(max(1, n_embd // 64), 0, -1) if n_embd % n == 0)


def shards_of(target: str | Path, out: str | Path, data: Sequence[str | Path] | None, tokenizer: Tokenizer) -> Shards:
    """Training data: files that are given, or the shards that `train` and `quickstart` leave beside a model."""
    if data:
        return prepare(lambda: read_documents(data), out, tokenizer, progress=lambda label: Progress(label, ""))[1]
    if not (Path(target) / "data" / SIDECAR).exists():
        raise FileNotFoundError(f"{target}/data: the target's training data is not there; give some with --data")
    return open_shards(Path(target) / "data")


def fit(name: str, model: Any, shards: Shards, run: str | Path, tokenizer: Tokenizer, step: Callable, minutes: float,
        n_steps: int | None, seed: int, backend: str, say: Say) -> dict:
    """Train one of the two for so many minutes (or steps); returns the best validation figures."""
    config = replace(SETTINGS, lr=RATES[name], seed=seed, backend=backend)
    data = TrainingData(shards, model.config.block_size, config.batch_size, seed)
    config = planned(model, data, config, minutes, n_steps, step)
    say(f"{name:<11} {describe_model(model)}; {config.steps:,} steps of {config.batch_size * data.block_size:,} tokens")
    deadline = math.inf if n_steps else time.monotonic() + 1.25 * 60 * minutes
    best = pretrain(model, data, config, run, tokenizer, deadline, name, step)
    plot_losses(run)
    return {"parameters": model.params.flat.size, **best}


def prompts_from(split: Split, count: int = PROMPTS, length: int = PROMPT) -> list[list[int]]:
    """The beginnings of `count` documents spread over a split, as lists of ids."""
    ids = np.concatenate(split.arrays)
    starts = np.linspace(0, len(ids) - length, count).astype(int)
    return [ids[start:start + length].tolist() for start in starts]


def measure(target: Any, draft: Any, prompts: list[list[int]], k: int = 4, temperatures: Sequence[float] = (0.0, 0.8),
            length: int = LENGTH) -> list[dict]:
    """Decode with and without a draft, in turns: a list of dicts, one a draft (the model; lookup) and temperature.

    The speed-up is the median over the prompts of plain over speculative time per token.
    """
    length = min(length, target.config.block_size - max(map(len, prompts)))
    costs, rows = relative_costs(target, draft, k), []
    for temperature in temperatures:
        found = summary(k, *race(target, draft, prompts, k, temperature, length)) | costs
        found["theory"] = theoretical_speedup(found["acceptance"], k, costs["c"])
        rows.append({"draft": "draft", "temperature": temperature} | found)
        lookup = Lookup(target.config.vocab_size)               # often proposes nothing: no theory for that
        found = summary(k, *race(target, lookup, prompts, k, temperature, length))
        rows.append({"draft": "lookup", "temperature": temperature} | found)
    return rows


def race(target: Any, draft: Any, prompts: list[list[int]], k: int, temperature: float,
         length: int) -> tuple[Counts, list[float], list[float]]:
    """One draft against none, in turns, prompt by prompt: (Counts, plain seconds a token, seconds with the draft)."""
    counts, plain, drafted = Counts(), [], []
    for seed, prompt in enumerate(prompts):
        sampling = Sampling(temperature, seed=seed)
        plain.append(seconds(steps(target, prompt, length, sampling)) / length)
        drafted.append(seconds(speculative_steps(target, draft, prompt, length, sampling, k=k, counts=counts)) / length)
    return counts, plain, drafted


def summary(k: int, counts: Counts, plain: list[float], drafted: list[float]) -> dict[str, float]:
    """Medians over the prompts, as a row of `measure`."""
    return {"k": k, "acceptance": counts.acceptance, "tokens_per_pass": counts.tokens_per_pass,
            "speedup": statistics.median(p / d for p, d in zip(plain, drafted)),
            "plain_ms": 1e3 * statistics.median(plain), "speculative_ms": 1e3 * statistics.median(drafted)}


def relative_costs(target: Any, draft: Any, k: int, rounds: int = 15) -> dict[str, float]:
    """{"c": a draft's token, "pass": the target's pass over k + 1 tokens}, both in times of one token of the target."""
    runs = {"one": (target, 1), "pass": (target, k + 1), "c": (draft, 1)}
    caches = {name: model.new_cache(1) for name, (model, _) in runs.items()}
    text = np.arange(64)[None] % target.config.vocab_size
    half = min(64, target.config.block_size // 2)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, (model, count) in runs.items():
            caches[name].truncate(half)
            if turn == 0:
                model.decode(text[:, :half], caches[name])                  # a context of half a block, and warm
                continue
            started = time.perf_counter()
            model.decode(text[:, :count], caches[name])
            times[name].append(time.perf_counter() - started)
    one, whole, draft_token = (statistics.median(times[name]) for name in ("one", "pass", "c"))
    return {"c": draft_token / one, "pass": whole / one}


def seconds(decoding: Iterator[Step]) -> float:
    """Wall time of decoding a text."""
    started = time.perf_counter()
    for _ in decoding:
        pass
    return time.perf_counter() - started


def speculation_page(report: list[dict], target: str | Path, out: str | Path) -> str:
    """The report as a table."""
    lines = ["", "draft    temperature  k  accepted  tokens/pass  plain ms  with draft ms  speed-up  in theory"]
    lines += [f"{r['draft']:<8} {r['temperature']:>11} {r['k']:>2}  {r['acceptance']:>8.1%}"
              f"  {r['tokens_per_pass']:>11.2f}  {r['plain_ms']:>8.2f}  {r['speculative_ms']:>13.2f}"
              f"  {r['speedup']:>7.2f}x" + (f"  {r['theory']:>8.2f}x" if "theory" in r else "") for r in report]
    c, verification = report[0]["c"], report[0]["pass"]
    lines += ["", f"a draft's token costs {c:.2f} of the target's, a pass over {report[0]['k'] + 1} tokens "
              f"{verification:.2f} (the theory counts it as 1)",
              f"next: minillm generate {target} --draft {out} -p \"...\""]
    return "\n".join(lines)
