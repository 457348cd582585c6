"""One training step and one decoding step of a model, recorded as data that JSON can hold.

    forward, loss, backward    of the prompt, each token predicting the next
    clipping, AdamW            on a copy of the parameters: the model itself is never written
    decoding                   the last token, with the keys and values of those before it in the KV cache

In reading order: watch.py (recording ops), source.py (lines of source), numbers.py (digits), numeric.py (finite
differences), terms.py (what a gradient is the sum of), lens.py (attention maps, logits of every layer), run.py (a run
directory), page.py (the page).
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
from ...ops.table import FILES
from ...progress import Report
from ...train.nonfinite import find_nonfinite
from ...train.optim import AdamW, clip_scale, global_norm
from ...version import __version__
from ..formulas import formulas_of, to_mathml
from .lens import attention_maps, best, logit_lens
from .numbers import Cut, cut_of, shortest, statistics
from .numeric import differences
from .source import shown
from .terms import contributors
from .watch import Record, recording, unite

Array = np.ndarray
MOST = 100_000              # numbers in a record, about: a tiny model has no more
REPEATS, SECONDS = 5, 3.0   # runs, of which the median time is shown; no more of them after so long


class Training(NamedTuple):
    """How the next step is to be taken: AdamW's settings, the step's number and the moments (None: a first step)."""

    config: TrainConfig = TrainConfig()
    lr: float = TrainConfig().lr
    step: int = 0                   # steps that were taken before
    m: Params | None = None
    v: Params | None = None
    moments: str = "fresh"


def record(model: Any, tokens: Sequence[int], training: Training = Training(), text: Callable[[int], str] = str,
           progress: Report | None = None) -> dict:
    """Record a training step on `tokens` and a decoding step of the last of them.

    model: GPT with plain parameters; it is not changed. text: a token's text. Raises ValueError for fewer than two
    tokens, more than block_size, and a model without gradients; NonFiniteError.
    """
    check(model, tokens)
    ids = np.array([tokens])
    batch, key = Batch(ids[:, :-1], ids[:, 1:]), (training.config.seed, training.step, 0)
    say = progress or (lambda done, total, what: None)
    say(0, 5, "forward and backward")
    seen, grads = Record(model.ops, model.params), model.params.zeros_like()
    step = training_step(model, seen, batch, key, grads, training)
    say(1, 5, "decoding")
    decoded = decoding_step(model, seen, ids, text)
    say(2, 5, "timing")
    time_calls(model, seen, batch, key, ids)
    same = unite(seen)
    cuts = plan(seen, same, batch)
    say(3, 5, "what gradients are the sum of")
    shares = contributors(seen, same, {name: cut.places for name, cut in cuts.items()})
    say(4, 5, "finite differences")
    measured = differences(model, seen, same, batch, key, progress and (lambda done, total, what: say(
        4 + done // total, 5, f"finite differences {done}/{total}")))
    found = {
        "version": 1, "minillm": __version__, "prompt": "".join(map(text, tokens)),
        "tokens": [{"id": int(i), "text": text(int(i))} for i in tokens],
        "model": described(model), "attention": attention_maps(seen), "lens": logit_lens(model, seen, text),
        "decode": decoded, "totals": totals(seen.calls)}
    found["model"]["whole"] = all(cut.whole for cut in cuts.values())
    found |= {"ops": ops_of(seen), "arrays": exported(seen, same, cuts, measured, shares), "calls": calls_of(seen, same),
              "training": step["training"], "parameters": updated(seen, step, cuts, training)}
    say(5, 5, "")
    return found


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

def training_step(model: Any, seen: Record, batch: Batch, key: tuple, grads: Params, training: Training) -> dict:
    """Forward, backward, clipping and AdamW, recorded; grads is filled."""
    seen.shared = {"wte.weight"}
    seen.names = {id(view): name for name, view in grads.items()}
    watched, count = model.on(recording(seen)), batch.learned
    seen.phase = "forward"
    losses, caches = watched.losses(batch.tokens, batch.targets, key=key)
    loss = float(losses.sum()) / count
    seen.phase = "backward"
    watched.backward(np.full(losses.shape, 1 / count, losses.dtype), caches, grads)
    seen.phase = "update"
    norm = global_norm(grads, watched.ops)
    if not math.isfinite(loss + norm):
        find_nonfinite(model, [batch], None)
    c, after = training.config, model.params.astype(model.params.flat.dtype)
    optimizer = AdamW(after, training.lr, (c.beta1, c.beta2), c.eps, c.weight_decay, watched.ops)
    for moment, given in ((optimizer.m, training.m), (optimizer.v, training.v)):
        moment.flat[:] = 0 if given is None else given.flat
    optimizer.steps = training.step
    optimizer.step(grads, training.lr, clip_scale(norm, c.clip))
    loss_after = float(model.on(model.ops, after).losses(batch.tokens, batch.targets, key=key)[0].sum()) / count
    (last,) = [call for call in seen.calls if call["function"] == "linear_cross_entropy_forward"]
    given = {put["name"]: put["array"] for put in last["inputs"] if "array" in put}
    return {"optimizer": optimizer, "training": {
        "tokens": seen.calls[0]["inputs"][0]["array"], "targets": given["targets"],
        "losses": last["outputs"][0]["array"], "loss_before": loss, "loss_after": loss_after, "count": count,
        "norm": norm, "clip": c.clip, "scale": clip_scale(norm, c.clip), "lr": training.lr, "beta1": c.beta1,
        "beta2": c.beta2, "eps": c.eps, "weight_decay": c.weight_decay, "step": training.step + 1,
        "moments": training.moments}}


def decoding_step(model: Any, seen: Record, ids: Array, text: Callable[[int], str]) -> dict:
    """The last token through `decode`, recorded; the tokens before it fill the KV cache."""
    cache = model.new_cache(1)
    model.decode(ids[:, :-1], cache)
    cached, seen.phase = cache.length, "decode"
    logits = model.on(recording(seen)).decode(ids[:, -1:], cache)
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


# ---- as data ----

def described(model: Any) -> dict:
    return {"parameters": model.params.flat.size, "config": vars(model.config), "dtype": str(model.params.flat.dtype),
            "backends": dict(model.ops.backends)}


def ops_of(seen: Record) -> dict:
    """What the op table says of each op that was called."""
    found = {}
    for name in dict.fromkeys(call["op"] for call in seen.calls if call["op"]):
        docstring = FILES[name].__doc__ or ""
        found[name] = {"summary": docstring.split("\n\n")[0].replace("\n", " "), "docstring": docstring,
                       "file": shown(FILES[name].__file__ or ""),
                       "formulas": [{"text": formula.text, "line": formula.line, "mathml": to_mathml(formula.text)}
                                    for formula in formulas_of(docstring)]}
    return found


def plan(seen: Record, same: dict[str, str], batch: Batch) -> dict[str, Cut]:
    """What is shown of each array: all, if there is room for all of them; else less of the largest."""
    vocabulary = seen.live["a0"].shape[0]
    tokens, targets = (list(dict.fromkeys(ids.ravel().tolist())) for ids in (batch.tokens, batch.targets))
    def cut(key: str, most: float) -> Cut:
        shape = seen.live[key].shape
        return cut_of(shape, most, tokens if shape[0] == vocabulary else (), targets if shape[-1] == vocabulary else ())
    for most in (math.inf, *(2 ** n for n in range(14, 3, -1))):
        cuts = {key: cut(key, most) for key in seen.live if key not in same}
        shown = sum(cut.size * (5 if seen.arrays[key]["kind"] == "parameter" else 1) for key, cut in cuts.items())
        if shown <= MOST:
            break
    return cuts


def exported(seen: Record, same: dict[str, str], cuts: dict[str, Cut], measured: dict, shares: dict) -> dict:
    """Every array with its numbers, its gradient, and what is known of that."""
    found: dict[str, dict] = {}
    for key, cut in cuts.items():
        about, array = seen.arrays[key], seen.live[key]
        used = [call for name in seen.arrays if same.get(name, name) == key for call in seen.arrays[name]["used_by"]]
        grads = [seen.arrays[name].get("gradient") for name in seen.arrays if same.get(name, name) == key]
        grads = [same.get(grad, grad) for grad in grads if grad]
        found[key] = {
            "id": key, "name": about["name"], "kind": about["kind"], "role": about["role"], "shape": [*array.shape],
            "dtype": str(array.dtype), "made_by": about["made_by"], "used_by": sorted(set(used)),
            "gradient": grads[0] if grads else None,
            "of": same.get(about["of"][0], about["of"][0]) if about["of"] else None,
            "stats": statistics(array, not cut.whole), "whole": cut.whole,
            **({} if cut.whole else {"rows": cut.rows, "cols": cut.cols}),
            "values": shortest(array.ravel()[cut.places])}
        for name, known in (("numeric", measured), ("contributors", shares)):
            if key in known:
                whole = len(known[key]["index"]) == array.size
                found[key][name] = known[key] | {"index": None if whole else known[key]["index"].tolist()}
    return found


def calls_of(seen: Record, same: dict[str, str]) -> list[dict]:
    for call in seen.calls:
        for put in call["inputs"] + call["outputs"]:
            if "array" in put:
                put["array"] = same.get(put["array"], put["array"])
        for name in ("backward", "values", "shapes"):
            call.pop(name, None)
        call |= {name: call.get(name) for name in ("flops", "bytes", "seconds")}
    return seen.calls


def updated(seen: Record, step: dict, cuts: dict[str, Cut], training: Training) -> list[dict]:
    """AdamW, parameter by parameter: the moments and the weight, at the places that are shown of the parameter."""
    optimizer, found = step["optimizer"], []
    decayed = [name for name, shape in optimizer.params.shapes.items() if len(shape) > 1]
    for key, about in seen.arrays.items():
        if about["kind"] != "parameter":
            continue
        name, places = about["name"], cuts[key].places
        before, after = (array.ravel()[places] for array in (seen.live[key], optimizer.params[name]))
        values = {"m_after": optimizer.m[name].ravel()[places], "v_after": optimizer.v[name].ravel()[places],
                  "update": after - before, "after": after}
        for moment, given in (("m", training.m), ("v", training.v)):
            values[moment] = np.zeros(1) if given is None else given[name].ravel()[places]
        found.append({"name": name, "decayed": name in decayed, "value": key, "gradient": about["gradient"],
                      **{label: shortest(array) for label, array in values.items()},
                      **({"m": None, "v": None} if training.m is None else {})})
    return found


def totals(calls: list[dict]) -> dict:
    """FLOPs, bytes and seconds of each phase; parts of a composite op are in the op."""
    found: dict[str, dict] = {}
    for call in calls:
        if call["op"] and call["parent"] is None:
            total = found.setdefault(call["phase"], {"flops": 0, "bytes": 0, "seconds": 0.0})
            for name in total:
                total[name] += call[name]
    return found
