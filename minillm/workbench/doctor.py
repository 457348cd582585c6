"""`minillm doctor RUN`: the classical pitfalls of training, each as a check that gives numbers and says what to change.

A check takes a Patient (workbench/patient.py) and returns a Finding or None. CHECKS lists them with what they need and
what they explain: a cause stands before its symptoms, and where it is found these are not reported beside it.
"""
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..config import GPTConfig, LlamaConfig
from ..data.shards.format import documents_of
from ..models.adapted import GPT2_LAYERS, LLAMA_LAYERS
from ..storage.free_memory import free_bytes
from ..train import symptoms
from ..train.memory import count_parameters, remedy, step_memory
from ..train.schedule import last_step
from ..train.symptoms import Finding, late
from .patient import Patient, longest_repeat, repeated, window_hashes

RATES = [3e-4 * 10 ** (i / 2) for i in (0, 1, 2, 3, 4, -2)]         # of the range test: from 3e-4 up, and one below
TOO_FEW_STEPS = 20
ENOUGH_TOKENS = 1000                                                # below, a data set is too small to be judged
SCORING = ("q_proj", "k_proj")      # of a Llama: while it attends to all tokens alike, small in health, too


def out_of_memory(p: Patient) -> Finding | None:
    """The run died of memory."""
    if p.failure.get("kind") != "MemoryError":
        return None
    free, shape = free_bytes(), shape_of(p.failure["model"])
    planned = sum(step_memory(shape, p.config).values())
    room = min(free or planned, planned) if (free or 0) < planned else planned // 2    # it fits now, then it did not
    return Finding("out of memory", f"at step {p.failure['step']}: {p.failure['message'] or 'memory ran out'}; "
                   f"{count_parameters(shape) / 1e6:.1f}M parameters, {p.config.batch_size} sequences of "
                   f"{shape.block_size} tokens take {planned / 1e9:.3g} GB" +
                   f"; {(free or 0) / 1e9:.3g} GB are free now" * bool(free),
                   f"{remedy(shape, p.config, room)}, in {room / 1e9:.3g} GB (now train.batch_size="
                   f"{p.config.batch_size}, train.accumulate={p.config.accumulate}); see minillm plan --memory")


def shape_of(settings: dict) -> Any:
    """A model's configuration from what JSON has of it."""
    if "family" not in settings:
        return GPTConfig(**settings)
    return LlamaConfig(**settings | {"rope_scaling": tuple(map(tuple, settings["rope_scaling"])),
                                     "full_layers": tuple(settings["full_layers"])})


def diverged(p: Patient) -> Finding | None:
    """Training ended with NaN, infinity or a loss beyond recovery."""
    if p.failure.get("kind") not in ("NonFiniteError", "DivergenceError"):
        return None
    return Finding("diverged", p.failure["message"], f"lower train.lr, now {p.config.lr:g}, by three to ten; lengthen "
                   f"train.warmup, now {p.config.warmup}; set train.clip to 1, now {p.config.clip:g}")


def unfinished(p: Patient) -> Finding | None:
    """The learning rate never came down to min_lr: the run ended before its schedule did."""
    step, end = p.state["step"], last_step(p.config, p.state)
    if step >= end:
        return None
    rate = next((row["lr"] for row in reversed(p.rows) if "lr" in row), p.config.lr)
    return Finding("schedule not finished", f"step {step} of {end}: learning rate {rate:.3g}, to end at "
                   f"{p.config.min_lr:g}", "run the same command again, which resumes; or plan train.steps for the "
                   "time there is (train.schedule=wsd can end when it must)")


def not_shifted(p: Patient) -> Finding | None:
    """The model repeats its input: the loss that was logged is what it gets with each token as its own target."""
    logged, copy, proper = late([row["train_loss"] for row in p.rows if "train_loss" in row]), p.losses["copy"], \
        p.losses["val"]
    if copy > proper - 1 or abs(logged - copy) > abs(logged - proper) / 4:
        return None
    return Finding("targets not shifted", f"logged loss {logged:.3f}; measured {copy:.3f} with each token its own "
                   f"target, {proper:.3f} with the next one", "make targets[:, t] the token at t + 1: "
                   "tokens, targets = ids[:, :-1], ids[:, 1:]")


def loss_mask(p: Patient) -> Finding | None:
    """Most tokens of a batch are not learned from."""
    rows = [row for row in p.rows if "tokens" in row]
    full = p.config.batch_size * p.config.accumulate * p.model.config.block_size
    if not rows or (share := rows[-1]["tokens"] / rows[-1]["step"] / full) > 0.6:
        return None
    return Finding("loss mask", f"{100 * share:.0f}% of the tokens in a batch have a target, of {full} a step",
                   "only what is not to be learned, such as padding, gets the target -1")


def leak(p: Patient) -> Finding | None:
    """Validation text is in the training data, or was trained on, or the logged loss is not that of the model."""
    train, val = p.streams
    copied = np.isin(window_hashes(val, p.window)[::4], window_hashes(train, p.window))
    if copied.size and copied.mean() > 0.1:
        return Finding("leak", f"{100 * copied.mean():.0f}% of the validation text stands in the training text, in "
                       f"stretches of {p.window} tokens", "minillm data dedup, then tokenize again: it splits by the "
                       "hash of each document")
    if p.losses["val"] < 0.8 * p.losses["train"]:
        return Finding("leak", f"loss {p.losses['val']:.2f} on validation text, {p.losses['train']:.2f} on training "
                       "text", "the training read the validation split: train on shards.train only")
    best = p.state["best"] or {}
    if best.get("val_loss", math.inf) < 0.8 * (again := p.loss_of_best):
        return Finding("leak", f"logged validation loss {best['val_loss']:.2f}, measured {again:.2f} on the run's "
                       "validation text", "the validation read other text, or a target is among its inputs: minillm "
                       "verify looks for it")
    return None


def below_floor(p: Patient) -> Finding | None:
    """The validation loss is below all that the text's entropy allows."""
    bits = (p.state["best"] or {}).get("val_bpb", math.inf)
    if bits > 0.25 * p.compressed:
        return None
    return Finding("below the entropy floor", f"{bits:.3f} bits per byte, lzma with the training text needs "
                   f"{p.compressed:.3f}", "look for what the model should not see: validation text in the training "
                   "data, a leak in the attention (minillm verify); or count the bytes of the validation text again")


def data_order(p: Patient) -> Finding | None:
    """The batches were not a random sample of the data: lately trained text costs less than the rest."""
    logged = late([row["train_loss"] for row in p.rows if "train_loss" in row])
    if p.losses["train"] < 1.15 * logged + 0.1:
        return None
    return Finding("data order", f"loss {logged:.2f} on the batches of late, {p.losses['train']:.2f} on training text "
                   "drawn at random", "shuffle the blocks, each once an epoch (data/shards/loader.py does), instead of "
                   "sorted text or the same batch again")


def not_learning(p: Patient) -> Finding | None:
    """The loss is above what token frequencies alone give, or rises; a range test tells whether it is the rate."""
    if p.state["step"] < max(TOO_FEW_STEPS, last_step(p.config, p.state) / 2):                  # too early to say
        return None
    if not p.shards:
        return symptoms.rising_loss(p.rows, p.settings) or symptoms.nothing_learned(p.rows, p.settings)
    train, _ = p.streams
    counts = np.bincount(train.astype(np.int64))
    share = counts[counts > 0] / counts.sum()
    unigram = -float((share * np.log(share)).sum())
    if p.losses["train"] < unigram and not symptoms.rising_loss(p.rows, p.settings):
        return None
    small = p.model.params.flat.size < 2e7
    tried = p.range_test(RATES if small else RATES[::2], steps=30 if small else 10)
    best = min(tried, key=lambda rate: tried[rate])
    evidence = (f"loss {p.losses['train']:.2f}, token frequencies alone give {unigram:.2f}; highest rate used "
                f"{p.rate:.3g}, a short test from 3e-4 learns best at {best:.2g} ("
                + ", ".join(f"{rate:.2g}: {loss:.2f}" for rate, loss in sorted(tried.items())) + ")")
    if p.rate > 4 * best or p.rate > max(tried):
        return Finding("learning rate too high", evidence, f"train.lr={min(best, 3e-3):.1g}, now {p.config.lr:g}")
    if p.rate < best / 30:
        return Finding("learning rate too low", evidence, f"train.lr={best / 3:.1g}, now {p.config.lr:g}; and a "
                       f"train.warmup shorter than the run, now {p.config.warmup}")
    return Finding("loss not decreasing", evidence, f"the rate is not why: more train.steps (now {p.config.steps}), a "
                   "larger model, or text with more in it")


def exploding(p: Patient) -> Finding | None:
    """The gradient's norm grew over the run, or is far above the clip."""
    found = symptoms.exploding_gradients(p.rows, p.settings)
    if found is None:
        return None
    found = found._replace(evidence=found.evidence + growth(p))
    if not p.shards:
        return found
    worst = max(p.update_ratios, key=lambda name: p.update_ratios[name])
    return found._replace(evidence=f"{found.evidence}; {over_time(p)}; largest update over weight "
                                   f"{p.update_ratios[worst]:.2g} in {worst}")


def vanishing(p: Patient) -> Finding | None:
    """A layer's gradient is less than a thousandth of the largest one's."""
    layers = {name: norm for name, norm in p.gradients[-1][1].items()
              if name.startswith(p.model.layers.blocks + ".") and not name.endswith(SCORING)}
    name = min(layers, key=lambda name: layers[name])
    if layers[name] > 1e-3 * max(layers.values()):
        return None
    return Finding("vanishing gradients", f"gradient of {name} {layers[name]:.2g}, largest of a layer "
                   f"{max(layers.values()):.2g}{fading(p, name)}; {over_time(p)}; update over weight "
                   f"{p.update_ratios[name]:.2g}",
                   f"look at the initialisation of {name} and the norm before it; fewer layers, a fresh start "
                   "(--resume never)")


def growth(p: Patient) -> str:
    """Of gradients.csv: the layer whose gradient has grown most, and since when it is tenfold its first."""
    rows = p.gradient_rows
    if len(rows) < 2:
        return ""
    growths = {name: rows[-1][name] / max(rows[0][name], 1e-30) for name in layers_of(rows[-1])}
    name = max(growths, key=lambda name: growths[name])
    since = since_when(rows, lambda row: row[name] > 10 * rows[0][name])
    return f"; {name} grew most, {growths[name]:.2g} times since step {rows[0]['step']:.0f}" + (
        f", tenfold from step {since:.0f} on" if since else "")


def fading(p: Patient, name: str) -> str:
    """Of gradients.csv: since when a layer's gradient is less than a thousandth of the largest layer's."""
    since = since_when(p.gradient_rows,
                       lambda row: row.get(name, 1) <= 1e-3 * max((row[layer] for layer in layers_of(row)), default=0))
    return f", so small from step {since:.0f} on" if since else ""


def layers_of(row: dict[str, float]) -> list[str]:
    return [name for name in row if name.startswith((GPT2_LAYERS.blocks + ".", LLAMA_LAYERS.blocks + "."))]


def since_when(rows: list[dict[str, float]], ill: Callable[[dict[str, float]], bool]) -> float | None:
    """The step of the first of the rows that are ill up to the last one; None if that one is not."""
    healthy = max((i for i, row in enumerate(rows) if not ill(row)), default=-1)
    return rows[healthy + 1]["step"] if healthy + 1 < len(rows) else None


def over_time(p: Patient) -> str:
    """Norms of the first and the last block, over the run."""
    first, last = (f"{p.model.layers.blocks}.{i}." for i in (0, p.model.config.n_layer - 1))
    return "first and last block " + ", ".join(
        f"{when} {block_norm(norms, first):.2g} {block_norm(norms, last):.2g}" for when, norms in p.gradients)


def block_norm(norms: dict[str, float], prefix: str) -> float:
    return max(norm for name, norm in norms.items() if name.startswith(prefix))


def dead_units(p: Patient) -> Finding | None:
    """More than a tenth of a layer's units never fire on validation text."""
    layer = int(np.argmax(p.dead_units))
    if p.dead_units[layer] < 0.1:
        return None
    return Finding("dead units", f"{100 * p.dead_units[layer]:.0f}% of the units of "
                   f"{p.model.layers.blocks}.{layer}.mlp never fire; by layer "
                   + " ".join(f"{share:.2f}" for share in p.dead_units),
                   f"lower train.lr, now {p.config.lr:g}, lengthen train.warmup, and begin again: dead units do not "
                   "come back")


def duplicated_data(p: Patient) -> Finding | None:
    """Much of the training text is there more than once."""
    train, _ = p.streams
    hashes = window_hashes(train, p.window)
    share = 1 - len(np.unique(hashes)) / max(1, len(hashes))
    if len(train) < ENOUGH_TOKENS or share < 0.15:
        return None
    known = [ids.tobytes() for ids in documents_of(p.shards.train, p.shards.eot_token)]
    return Finding("duplicated data", f"{100 * share:.0f}% of the training text stands there before, in stretches of "
                   f"{p.window} tokens; {len(known) - len(set(known))} of {len(known)} documents are copies",
                   "minillm data dedup (with --line-dedup for lines), then tokenize again")


def over_fitting(p: Patient) -> Finding | None:
    """The validation loss rose, or is far above the training loss; samples may be copies of the training text."""
    found = symptoms.over_fitting(p.rows, p.settings)
    if found is None or not p.shards:
        return found
    epochs = p.state["tokens"] / p.shards.train.tokens
    return found._replace(evidence=f"{found.evidence}; {epochs:.1f} epochs; {copied_samples(p)} of 4 samples hold "
                                   f"{p.window} tokens of training text word for word")


def copied_samples(p: Patient) -> int:
    """How many of four samples are in part the training text."""
    known = window_hashes(p.streams[0], p.window)
    return sum(bool(np.isin(window_hashes(np.array(ids, np.uint64), p.window), known).any())
               for ids in p.samples(1.0, 4))


def small_vocabulary(p: Patient) -> Finding | None:
    """A token stands for few bytes of text, so a context holds little."""
    split = p.shards.train
    if split.tokens < ENOUGH_TOKENS or (size := split.bytes / split.tokens) > 1.5:
        return None
    return Finding("too small a vocabulary", f"{size:.2f} bytes per token with a vocabulary of {p.shards.vocab_size}; "
                   f"a context of {p.model.config.block_size} tokens is {size * p.model.config.block_size:.0f} bytes",
                   "a larger --vocab-size (8192 gives about 4 bytes per token of English)")


def padding(p: Patient) -> Finding | None:
    """Much of the training text is one token over and over."""
    train, _ = p.streams
    edges = np.concatenate([[0], np.flatnonzero(train[1:] != train[:-1]) + 1, [len(train)]])
    lengths = np.diff(edges)
    share = lengths[lengths >= 8].sum() / max(1, len(train))
    if share < 0.1:
        return None
    token = int(train[edges[int(lengths.argmax())]])
    return Finding("wasted padding", f"{100 * share:.0f}% of the training tokens are runs of one token, mostly id "
                   f"{token}", "put documents one behind another, with one end-of-text token between (minillm data "
                   "tokenize), instead of filling each up to a length")


def repetition(p: Patient) -> Finding | None:
    """Sampled text repeats itself, which the training text does not; greedy text alone may."""
    train, _ = p.streams
    text = float(np.mean([repeated(train[i:i + 64].tolist()) for i in range(0, len(train) - 64, len(train) // 16 + 1)]))
    drawn = p.samples(1.0, 4)
    said = float(np.mean([repeated(ids) for ids in drawn]))
    if len(train) < ENOUGH_TOKENS or said < text + 0.3:
        return None
    return Finding("repetition", f"{100 * said:.0f}% of the 4-grams of samples at temperature 1 occurred before, "
                   f"{100 * text:.0f}% of the training text's; longest repeated span "
                   f"{max(map(longest_repeat, drawn))} tokens; {phrases(p, drawn)}",
                   "not the sampling is at fault but the training: a phrase that is so frequent in the text, such as a "
                   "menu, goes with minillm data clean or dedup --line-dedup; else more text, more train.steps; until "
                   "then --repetition-penalty 1.2")


def sampling_note(p: Patient) -> str:
    """For the page: greedy text repeats itself where text drawn at random does not."""
    (greedy,), drawn = p.samples(0.0, 1), p.samples(1.0, 4)
    said = float(np.mean([repeated(ids) for ids in drawn]))
    if repeated(greedy) < said + 0.3:
        return ""
    return (f"greedy text repeats itself ({100 * repeated(greedy):.0f}% of its 4-grams, longest span "
            f"{longest_repeat(greedy)} tokens), at temperature 1 {100 * said:.0f}% do: that is the sampling, not the "
            "training; generate with --temperature 0.8 or --top-p 0.9")


def phrases(p: Patient, texts: list[list[int]]) -> str:
    """distinct-2 of texts, and their commonest phrase of four tokens."""
    pairs = [pair for ids in texts for pair in pairwise(ids)]
    grams = [tuple(ids[i:i + 4]) for ids in texts for i in range(len(ids) - 3)]
    common = max(set(grams), key=lambda gram: (grams.count(gram), gram))
    there = (sliding_window_view(p.streams[0], 4) == np.array(common, np.uint64)).all(axis=1).sum()
    return (f"distinct-2 {len(set(pairs)) / len(pairs):.2f}; {p.tokenizer.decode(list(common))!r} "
            f"{grams.count(common)} times, in the training text {there:,} times")


class Check(NamedTuple):
    """needs: attributes of a Patient without which it is not made. explains: illnesses not reported beside it."""

    function: Callable[[Patient], Finding | None]
    needs: tuple[str, ...] = ("state", "shards")
    explains: tuple[Callable, ...] = ()


LEARNING = (not_learning, exploding, vanishing, dead_units, repetition)
CHECKS = (
    Check(out_of_memory, (), (unfinished, *LEARNING)),
    Check(diverged, (), (unfinished, over_fitting, *LEARNING)),
    Check(unfinished, ("state",)),
    Check(duplicated_data, ("shards",), (over_fitting, repetition, leak, below_floor)),
    Check(padding, ("shards",), (repetition, not_learning, small_vocabulary, below_floor)),
    Check(not_shifted, explains=(leak, below_floor, data_order, over_fitting, *LEARNING)),
    Check(loss_mask, explains=(leak, data_order, over_fitting, *LEARNING)),
    Check(leak, explains=(below_floor, data_order, over_fitting, *LEARNING)),
    Check(below_floor),
    Check(vanishing, explains=LEARNING),
    Check(exploding, ("state",), (data_order, over_fitting, *LEARNING)),
    Check(data_order, explains=(over_fitting, *LEARNING)),
    Check(not_learning, ("state",), LEARNING),
    Check(dead_units, explains=LEARNING),
    Check(over_fitting, ("state",)),
    Check(small_vocabulary, ("state", "shards")),
    Check(repetition),
)


def examine(run: str | Path, data: str | Path | None = None) -> dict:
    """All checks of a run: {"run", "healthy", "findings", "checked", "skipped", "notes"}; nothing is written."""
    p, found, explained = Patient(run, data), [], set()
    checked, skipped = [], []
    with np.errstate(all="ignore"):
        for check in CHECKS:
            name = check.function.__name__
            if check.function in explained:
                continue
            if not all(getattr(p, needed) for needed in check.needs):
                skipped.append(name)
                continue
            checked.append(name)
            if finding := check.function(p):
                found.append(finding._asdict())
                explained.update(check.explains)
        note = sampling_note(p) if "repetition" in checked else ""
    return {"run": str(run), "healthy": not found, "findings": found, "checked": checked, "skipped": skipped,
            "notes": [note] * bool(note)}


def doctor_page(results: dict) -> str:
    """What was found, one paragraph an illness; or that nothing was."""
    lines = [f"{found['illness'].upper()}: {found['evidence']}\n  try: {found['advice']}"
             for found in results["findings"]]
    lines = lines or [f"healthy: {len(results['checked'])} checks found nothing"]
    lines += [f"note: {note}" for note in results["notes"]]
    if results["skipped"]:
        lines.append(f"not checked, for want of a checkpoint or of the training data: {', '.join(results['skipped'])}")
    return "\n".join(lines)
