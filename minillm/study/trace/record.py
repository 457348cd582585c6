"""One training step and one decoding step of a model, recorded as data that JSON can hold.

    forward, loss, backward    of the prompt, each token predicting the next
    clipping, AdamW            on a copy of the parameters: the model itself is never written
    decoding                   the last token, with the keys and values of those before it in the KV cache

In reading order: watch.py (recording ops), source.py (lines of source), numbers.py (digits), numeric.py (finite
differences), terms.py (what a gradient is the sum of), lens.py (attention maps, logits of every layer), export.py (all
of it as data), run.py (a run directory), page.py (the page).
"""
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...config import TrainConfig
from ...kernels.select import OPS, Ops, functions
from ...models.packing import Batch
from ...models.params import Params
from ...progress import Report
from ...train.nonfinite import find_nonfinite
from ...train.optim import AdamW, clip_scale, global_norm
from ...version import __version__
from .export import arrays_of, calls_of, described, ops_of, plan, totals, updated
from .lens import attention_maps, best, logit_lens
from .numeric import differences
from .terms import contributors
from .watch import Record, unite, watched

Array = np.ndarray
LOSSES = ("linear_cross_entropy_forward", "cross_entropy_forward")
REPEATS, SECONDS = 5, 3.0   # runs, of which the median time is shown; no more of them after so long


class Training(NamedTuple):
    """How the next step is to be taken: AdamW's settings, the step's number and the moments (None: a first step)."""

    config: TrainConfig = TrainConfig()
    lr: float = TrainConfig().lr
    step: int = 0                   # steps that were taken before
    m: Params | None = None
    v: Params | None = None
    moments: str = "fresh"


def record(model: Any, tokens: Sequence[int], training: Training | None = None, text: Callable[[int], str] = str,
           progress: Report | None = None) -> dict:
    """Record a training step on `tokens` and a decoding step of the last of them.

    model: GPT with plain parameters; it is not changed. training: None for the first step, by the default settings.
    text: a token's text. Raises ValueError for fewer than two tokens, more than block_size, and a model without
    gradients; NonFiniteError.
    """
    check(model, tokens)
    training = training or Training()
    ids, say = np.array([tokens]), share_of_progress(progress, 0, 10)
    batch, key = Batch(ids[:, :-1], ids[:, 1:]), (training.config.seed, training.step, 0)
    say(0, 3, "forward and backward")
    seen = Record(model.ops, model.params)
    optimizer, step = training_step(model, seen, batch, key, training)
    say(1, 3, "decoding")
    decoded = decoding_step(model, seen, ids, text)
    say(2, 3, "timing")
    time_calls(model, seen, batch, key, ids)
    same = unite(seen)
    cuts, room = plan(seen, same, batch, 6 if training.m else 4)
    shown = {name: cut.places for name, cut in cuts.items()}
    shares = contributors(seen, same, shown, room, share_of_progress(progress, 10, 50))
    measured = differences(model, seen, same, shown, batch, key, share_of_progress(progress, 50, 100))
    return {
        "version": 1, "minillm": __version__, "prompt": "".join(map(text, tokens)),
        "tokens": [{"id": int(i), "text": text(int(i))} for i in tokens],
        "model": described(model) | {"whole": all(cut.whole for cut in cuts.values())}, "ops": ops_of(seen),
        "arrays": arrays_of(seen, same, cuts, measured, shares), "training": step,
        "parameters": updated(seen, optimizer, cuts, training), "attention": attention_maps(seen),
        "lens": logit_lens(model, seen, text), "decode": decoded, "totals": totals(seen.calls),
        "calls": calls_of(seen, same)}


def share_of_progress(progress: Report | None, low: int, high: int) -> Report:
    """A part of the work that goes from `low` to `high` per cent of all."""
    def report(done: int, total: int, text: str) -> None:
        if progress:
            progress(low + (high - low) * done // max(1, total), 100, text)
    return report


def check(model: Any, tokens: Sequence[int]) -> None:
    """Raise ValueError for what cannot be traced."""
    if not isinstance(model.params, Params) or hasattr(model, "base"):
        raise ValueError("model must have plain weights to be traced: int8 and bfloat16 matrices are for generating "
                         "and have no gradients; trace the run that they were made from")
    if len(tokens) < 2:
        raise ValueError(f"prompt must be at least 2 tokens, one to read and one to predict: got {len(tokens)}")
    if len(tokens) > model.config.block_size:
        raise ValueError(f"prompt must fit into the context window of {model.config.block_size} tokens: got "
                         f"{len(tokens)}")


# ---- the two steps ----

def training_step(model: Any, seen: Record, batch: Batch, key: tuple, training: Training) -> tuple[AdamW, dict]:
    """Forward, backward, clipping and AdamW, recorded; the optimizer, which holds the updated copy of the parameters,
    and figures."""
    grads, count = model.params.zeros_like(), batch.learned
    seen.shared, seen.names = {model.head} & {model.rows_of_tokens[0]}, {id(view): name for name, view in grads.items()}
    seen.phase = "forward"
    recorded = watched(model, seen)
    losses, caches = recorded.losses(batch.tokens, batch.targets, key=key)
    loss = float(losses.sum()) / count
    seen.phase = "backward"
    recorded.backward(np.full(losses.shape, 1 / count, losses.dtype), caches, grads)
    seen.phase = "update"
    norm = global_norm(grads, recorded.ops)
    if not math.isfinite(loss + norm):
        find_nonfinite(model, [batch], None)
    scale = clip_scale(norm, training.config.clip)
    optimizer = optimizer_of(model, training, recorded.ops)
    optimizer.step(grads, training.lr, scale)
    after = model.on(model.ops, optimizer.params).losses(batch.tokens, batch.targets, key=key)[0]
    return optimizer, {
        **placed(seen), "loss_before": loss, "loss_after": float(after.sum()) / count, "count": count, "norm": norm,
        "scale": scale, "lr": training.lr, "step": training.step + 1, "moments": training.moments,
        **{name: getattr(training.config, name) for name in ("clip", "beta1", "beta2", "eps", "weight_decay")}}


def optimizer_of(model: Any, training: Training, ops: Ops) -> AdamW:
    """AdamW on a copy of the parameters, as the steps before have left it."""
    c = training.config
    optimizer = AdamW(model.params.astype(model.params.flat.dtype), training.lr, (c.beta1, c.beta2), c.eps,
                      c.weight_decay, ops)
    for moment, given in ((optimizer.m, training.m), (optimizer.v, training.v)):
        for name, values in (given or {}).items():
            moment[name][...] = values
    optimizer.steps = training.step
    return optimizer


def placed(seen: Record) -> dict:
    """The keys of tokens, targets and losses."""
    (last,) = [call for call in seen.calls if call["function"] in LOSSES and call["parent"] is None]
    return {"tokens": seen.calls[0]["inputs"][0]["array"], "losses": last["outputs"][0]["array"],
            "targets": next(put["array"] for put in last["inputs"] if put["name"] == "targets")}


def decoding_step(model: Any, seen: Record, ids: Array, text: Callable[[int], str]) -> dict:
    """The last token through `decode`, recorded; the tokens before it fill the KV cache."""
    cache = model.new_cache(1)
    model.decode(ids[:, :-1], cache)
    cached, seen.phase, seen.buffers = cache.length, "decode", [cache.keys, cache.values]
    logits = watched(model, seen).decode(ids[:, -1:], cache)
    token = int(ids[0, -1])
    return {"token": {"id": token, "text": text(token)}, "position": cached, "cached": cached,
            "logits": seen.calls[-1]["outputs"][0]["array"],
            "next": best(model, np.asarray(logits)[0], text, 10)[0]}


def time_calls(model: Any, seen: Record, batch: Batch, key: tuple, ids: Array) -> None:
    """Give every call of an op the median time of some runs that record nothing else."""
    runs, started = list[list[float]](), time.perf_counter()
    while len(runs) < REPEATS and (not runs or time.perf_counter() - started < SECONDS):
        seconds: list[float] = []
        timed = model.on(stopwatch(model.ops, seconds))
        losses, caches = timed.losses(batch.tokens, batch.targets, key=key)
        timed.backward(np.full(losses.shape, 1 / batch.learned, losses.dtype), caches)
        global_norm(model.params, timed.ops)
        AdamW(model.params.astype(model.params.flat.dtype), ops=timed.ops).step(model.params)
        cache = model.new_cache(1)
        model.decode(ids[:, :-1], cache)
        timed.decode(ids[:, -1:], cache)
        runs.append(seconds)
    calls = [call for call in seen.calls if call["op"] and call["parent"] is None]
    for call, times in zip(calls, np.median(runs, axis=0), strict=True):
        call["seconds"] = float(f"{times:.3g}")


def stopwatch(ops: Ops, seconds: list[float]) -> Ops:
    """The same namespace, in which every call notes its time."""
    def timed(function: Callable) -> Callable:
        def call(*args: Any, **more: Any) -> Any:
            started = time.perf_counter()
            found = function(*args, **more)
            seconds.append(time.perf_counter() - started)
            return found
        return call
    return ops._replace(**{name: timed(getattr(ops, name)) for spec in OPS.values() for name in functions(spec)})
