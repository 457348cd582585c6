"""The main job, start to end, on a corpus that needs no download: text -> tokenizer -> GPT -> bits per byte -> samples.

`docs` is the language reference and the docstrings of the Python that runs this: some megabytes of real English.
`stories` comes from a seeded grammar whose entropy is known exactly, so the loss can be seen to approach it from above.
"""
import gzip
import lzma
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig, TrainConfig
from ..data.shards.format import Shards, split_documents
from ..data.shards.prepare import TrainingData, prepare
from ..data.sources.pydocs import describe_corpus, pydoc_corpus
from ..data.sources.stories import entropy_bits, expected_bytes, log2_probability, stories
from ..generation.decode import generate
from ..kernels.select import Ops, multiplies_in_bf16, select
from ..models.load import fresh_config, load_model, model_class
from ..progress import Progress, clock
from ..tokenizer import Tokenizer
from ..tokenizer.chat_template import learned_ends
from ..train.loop import one_step, train
from ..train.optim import optimizer_for
from ..train.plot import plot_losses
from ..train.schedule import last_step

VOCAB = {"docs": 4096, "stories": 1024}
MODELS: dict[str, dict[str, Any]] = {
    "docs": {"family": "qwen3", "n_layer": 4, "n_head": 3, "n_embd": 96, "block_size": 256},
    "stories": {"family": "qwen3", "n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 256}}
PROMPTS = {"docs": "Return a list of", "stories": "Once upon a time"}
STORIES = 20_000
SETTINGS = TrainConfig(optimizer="muon", batch_size=8, lr=8e-3, min_lr=0.0, schedule="wsd", decay=0.4,
                       weight_decay=0.1, save_every=500, log_every=10)      # chosen by measurement: benchmarks/LOG.md
EPOCHS = 10                          # at most: from then on the same text is memorized
TIMED_STEPS = 15                     # steps to measure the machine by
FEWEST, ENOUGH, LONGEST = 50, 1000, 3000      # steps: at least; for a good text; no other recipe profits from more
Say = Callable[[str], None]


def quickstart(corpus: str = "docs", out: str | Path = "runs/quickstart", minutes: float = 3.5,
               steps: int | None = None, seed: int = 0, backend: str = "auto", say: Say = print) -> dict:
    """Run the whole job into directory `out`; returns the results as a dict. `steps` overrides `minutes`.

    minutes: how long pretraining may take. The learning rate stays high until its decay just fits into the rest of the
    time; if the machine then becomes slower, training ends early, a quarter of the time later. Where the steps are too
    few for a good text, a line says so. backend: "auto" is bfloat16 where the CPU has instructions for it.
    """
    started, out = time.monotonic(), Path(out)
    backend = "cpu/bf16" if backend == "auto" and multiplies_in_bf16() else backend
    documents = bundled_corpus(corpus, seed, say)
    tokenizer, shards = tokenized(documents, out, corpus, seed, say)
    held_out = split_documents(shards.val, tokenizer)
    results: dict = {"corpus": corpus}
    model = fresh(fresh_config({"vocab_size": tokenizer.vocab_size, **MODELS[corpus]}), seed, select(backend))
    config = replace(SETTINGS, seed=seed, backend=backend)
    data = TrainingData(shards, model.config.block_size, config.batch_size, seed)
    most = EPOCHS * shards.train.tokens // (config.batch_size * data.block_size)
    config = planned(model, data, config, minutes, steps, most=most)
    say(f"model       {describe_model(model)}\nplan        {describe_plan(config, data, timed=steps is None)}\n")
    slow = steps is None and config.steps < ENOUGH
    if slow:
        say(too_few_steps(f"only {config.steps:,} steps fit into {minutes:g} minutes", minutes * ENOUGH / config.steps))
    say(f"before training:\n{quote(sample(model, tokenizer, PROMPTS[corpus], seed))}\n")
    begun, seconds = time.monotonic(), math.inf if steps else 60 * minutes
    results |= pretrain(model, data, config if steps else replace(config, steps=most), out, tokenizer,
                        begun + 1.25 * seconds, finish=begun + 0.98 * seconds)    # the rest is for the last validation
    if corpus == "stories":
        results |= entropy_floor(held_out, shards.val.tokens)
    results["baselines"] = baselines(held_out, split_documents(shards.train, tokenizer))
    plot_losses(out, results.get("floor_nats_per_token"))
    best = load_model(out, model.ops)
    say(f"after training:\n{quote(sample(best, tokenizer, PROMPTS[corpus], seed))}\n")
    done, planned_steps = results["steps"], results["planned_steps"]
    if done < planned_steps:
        say(too_few_steps(f"time was up after {done:,} of {planned_steps:,} steps", minutes * planned_steps / done))
    elif steps is None and done < ENOUGH and not slow:
        say(too_few_steps(f"only {done:,} steps fitted into {minutes:g} minutes", minutes * ENOUGH / done))
    results["seconds"] = time.monotonic() - started
    say(closing_page(results, out))
    return results


def too_few_steps(what: str, minutes: float) -> str:
    """One line that says why the text is not good, and what to do."""
    return (f"too slow    {what}: this machine is too slow or too busy now for a good text; give it more time "
            f"(--minutes {math.ceil(minutes)}), or try again when it is quieter\n")


def bundled_corpus(corpus: str, seed: int, say: Say) -> list[tuple[str, str]]:
    """The documents as [(name, text)], and a line that says what they are."""
    if corpus == "docs":
        documents = pydoc_corpus()
        say(f"corpus      {describe_corpus(documents)}")
    else:
        documents = [(f"story {i}", text) for i, text in enumerate(stories(STORIES, seed))]
        say(f"corpus      {STORIES:,} stories from a seeded grammar: {entropy_bits():.1f} bits and "
            f"{expected_bytes():.0f} bytes each, so {entropy_bits() / expected_bytes():.3f} bits per byte at best")
    return documents


def tokenized(documents: list[tuple[str, str]], out: Path, corpus: str, seed: int,
              say: Say) -> tuple[Tokenizer, Shards]:
    """Tokenizer and shards in `out`."""
    tokenizer, shards = prepare(lambda: documents, out, vocab_size=VOCAB[corpus],
                                source=f"quickstart {corpus}, Python {platform.python_version()}, seed {seed}",
                                progress=lambda label: Progress(label, ""))
    say(describe_shards(shards))
    return tokenizer, shards


def describe_shards(shards: Shards) -> str:
    """A line on each split."""
    return "\n".join(f"{name:<11} {split.documents:,} documents, {split.bytes / 1e6:.2f} MB, {split.tokens:,} tokens "
                     f"({split.bytes / max(1, split.tokens):.2f} bytes each)"
                     for name, split in (("training", shards.train), ("validation", shards.val)))


def baselines(held_out: list[bytes], training: list[bytes]) -> dict[str, float]:
    """Bits per byte of general compressors on the validation split; the last one may read the training split first."""
    text, training_text = b"".join(held_out), b"".join(training)

    def bits(compressed: int) -> float:
        return 8 * compressed / len(text)
    return {"gzip": bits(len(gzip.compress(text, 9))), "lzma": bits(len(lzma.compress(text, preset=9))),
            "lzma after the training split":
                bits(len(lzma.compress(training_text + text, preset=9)) - len(lzma.compress(training_text, preset=9)))}


def fresh(config: ModelConfig, seed: int, ops: Ops) -> Any:
    """An untrained model of this shape."""
    return model_class(config)(config, seed, ops=ops)


def planned(model: Any, data: TrainingData, config: TrainConfig, minutes: float, steps: int | None,
            step: Callable = one_step, most: int = LONGEST) -> TrainConfig:
    """The configuration with the number of steps that fits into `minutes`, from the speed of a few trial steps.

    steps: that many instead. step: what `train` will be asked to do in each. most: as many steps at most.
    """
    if steps is None:
        trial = fresh(model.config, config.seed, model.ops)
        optimizer, times = optimizer_for(trial, config), []
        for number in range(TIMED_STEPS):
            started = time.perf_counter()
            step(trial, optimizer, data, config, {"step": number})
            times.append(time.perf_counter() - started)
        steps = int(minutes * 60 / (1.1 * statistics.median(times)))      # a tenth for validation and checkpoints
        steps = max(FEWEST, min(most, steps // 50 * 50))
    return replace(config, steps=steps, warmup=min(100, steps // 10), eval_every=max(50, steps // 5))


def pretrain(model: Any, data: TrainingData, config: TrainConfig, out: str | Path, tokenizer: Tokenizer,
             deadline: float, label: str = "training", step: Callable = one_step, finish: float = math.inf) -> dict:
    """Train until the deadline at most, to end by `finish`; returns the best validation figures. Ctrl-C ends all."""
    progress = Progress(label, "step")
    state = train(model, data, config, out, learned_ends(tokenizer), False, progress, deadline, step, finish=finish)
    progress.close()
    end = last_step(config, state)
    if state["step"] < end and time.monotonic() < deadline:
        raise KeyboardInterrupt
    return {"steps": state["step"], "planned_steps": end, "tokens": state["tokens"], **state["best"]}


def entropy_floor(held_out: list[bytes], tokens: int) -> dict[str, float]:
    """The exact information content of these very stories, as bits per byte and nats per token."""
    bits = -sum(log2_probability(story.decode()) for story in held_out)
    return {"floor_bpb": bits / sum(map(len, held_out)), "floor_nats_per_token": bits * math.log(2) / tokens}


def describe_model(model: Any) -> str:
    c = model.config
    family = getattr(c, "family", "gpt2")
    return (f"{family}, {model.params.flat.size / 1e6:.1f}M parameters: n_layer {c.n_layer}, n_head {c.n_head}, n_embd "
            f"{c.n_embd}, block_size {c.block_size}, vocab_size {c.vocab_size}")


def describe_plan(config: TrainConfig, data: TrainingData, timed: bool) -> str:
    tokens_per_step = config.batch_size * data.block_size * config.accumulate
    return (f"{'about ' * timed}{config.steps:,} steps of {tokens_per_step:,} tokens, "
            f"{config.steps * tokens_per_step / data.shards.train.tokens:.1f} times through the training split"
            + ", matmuls in bfloat16" * config.backend.endswith("/bf16"))


def sample(model: Any, tokenizer: Tokenizer, prompt: str, seed: int) -> str:
    """Sixty tokens after a prompt."""
    ids = generate(model, tokenizer.encode(prompt), 60, temperature=0.7, top_k=50, seed=seed, stop=tokenizer.eot_token)
    return tokenizer.decode([i for i in ids if i != tokenizer.eot_token])


def quote(text: str) -> str:
    return "\n".join("    | " + line for line in text.splitlines())


def closing_page(results: dict, out: Path) -> str:
    """What came out, what it is worth, and what to do next."""
    rows = [("minillm", results["val_bpb"])] + list(results["baselines"].items())
    if "floor_bpb" in results:
        rows.append(("the text's own entropy", results["floor_bpb"]))
    table = "\n".join(f"    {name:<32}{value:6.3f}" for name, value in rows)
    return (f"validation, bits per byte (lower is better):\n{table}\n\n"
            f"{results['steps']:,} steps, {results['tokens']:,} tokens; everything together took "
            f"{clock(results['seconds'])}. The model, log.csv and loss.png are in {out}/\n\n"
            f"What next:\n"
            f"    minillm generate {out} -p \"The list of\"          more samples\n"
            f"    minillm train --data FOLDER --out runs/mine     the same on your own text (.txt .md .py .jsonl)\n"
            f"    minillm gradcheck                               check every derivative that was just used\n"
            f"    python -m benchmarks                            how fast this machine runs each of them")
