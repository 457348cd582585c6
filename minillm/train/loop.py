"""The training loop: batches in, AdamW steps, validation, log, checkpoints; and a resume that changes no bit.

A step is a pure function of the parameters, the two moments and the step number: batches come from (seed, step), the
dropout masks from (seed, step, site), the learning rate from the step. So a run that is killed at any moment and resumed
from its last checkpoint ends with the very bytes of the run that was never killed.

A run directory holds the best model so far (config.json, model.safetensors, tokenizer.json), log.csv, loss.png and
`last/`, the same model files plus the optimizer and the step: where to resume.
"""
import csv
import math
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..models import pretrained as checkpoint
from ..storage.atomic import atomic_write
from ..models.gpt2 import GPT
from .optim import AdamW, clip_scale, cosine_schedule, global_norm
from ..kernels.select import multiplies_by_tiles
from .nonfinite import NonFiniteError, find_nonfinite

COLUMNS = ["step", "tokens", "train_loss", "lr", "grad_norm", "val_loss", "val_bpb", "tokens_per_second"]


def train(model, data, config, run, eot_token=None, resume=True, progress=None, deadline=math.inf, step=None,
          validate=None, columns=COLUMNS):
    """Train `model` on `data` as `config` (TrainConfig) says; returns the state at the end as a dict.

    data: an object with batch(step, micro) -> (tokens, targets) or (tokens, targets, lengths) for a packed row (see
    GPT.losses), validation() -> iterator of such tuples, validation_tokens, validation_bytes (the UTF-8 bytes behind
    them) and a fingerprint. run: the directory. resume: continue from run/last if it is there. progress(step, steps,
    text) is called after each step. deadline: value of time.monotonic() at which the run ends early, validated and
    saved. step, validate, columns: what to do instead of `one_step` and `validate_loss`, with their arguments and
    results, and what the log holds: preference training is the same loop. SIGINT and SIGTERM end the run after the step
    in hand, with a checkpoint written. Raises NonFiniteError naming op and layer, ValueError for a checkpoint of a
    different model or data.
    """
    run, step, validate = Path(run), step or one_step, validate or validate_loss
    run.mkdir(parents=True, exist_ok=True)
    optimizer = AdamW(model.params, config.lr, (config.beta1, config.beta2), config.eps, config.weight_decay, model.ops)
    state = {"step": 0, "tokens": 0, "best": None, "seed": config.seed, "data": data.fingerprint}
    if resume and checkpoint_exists(run):
        state = restore(run, model, optimizer, state)
    trim_log(run, state["step"])
    saved = state["step"]
    quiet = np.errstate(all="ignore")                    # what is not finite is found and named below
    with stop_signals() as stopped, rounded_weights(model, optimizer), quiet:
        while state["step"] < config.steps and not stopped:
            row = step(model, optimizer, data, config, state)
            state["step"] += 1
            state["tokens"] += row.pop("count")
            done = state["step"] == config.steps or time.monotonic() > deadline
            if done or due(config.eval_every, state):
                row |= validate(model, data, config, state, run, eot_token)
            if "val_loss" in row or due(config.log_every, state):
                append_log(run, state, row, columns)
            if done or due(config.save_every, state):
                save(run, model, optimizer, state, eot_token)
                saved = state["step"]
            if progress:
                progress(state["step"], config.steps, describe(row, state))
            if done:
                break
        if saved != state["step"]:                       # stopped by a signal
            save(run, model, optimizer, state, eot_token)
    return state


def copy_pays():
    """Where AMX multiplies, reading the weights is a large part of a product. Without it the copy was measured to save
    nothing (benchmarks/LOG.md), and would cost 2 bytes of memory a parameter."""
    return multiplies_by_tiles()


@contextmanager
def rounded_weights(model, optimizer):
    """Meanwhile the weights are kept in bfloat16, too, if all of the model's products are in that type and it pays."""
    products = {model.ops.backends[op] for op in ("linear", "mlp", "linear_cross_entropy")}
    if products != {"cpu/bf16"} or not isinstance(model, GPT) or not copy_pays():    # LoRA's base does not change: no copy
        yield
        return
    optimizer.keep_bits()
    try:
        yield
    finally:
        optimizer.drop_bits()


def due(every, state):
    """Every `every` steps, never for 0."""
    return every and state["step"] % every == 0


def one_step(model, optimizer, data, config, state):
    """Accumulate, clip, update. The mean is over all valid targets of all micro-batches, whatever their sizes."""
    started, step = time.perf_counter(), state["step"]
    batches = [data.batch(step, micro) for micro in range(config.accumulate)]
    count = sum(int((targets != -1).sum()) for _, targets, *_ in batches)
    loss, grads = 0.0, optimizer.zero_grads()
    for micro, (tokens, targets, *lengths) in enumerate(batches):
        part, _ = model.loss_and_grads(tokens, targets, -1, (config.seed, step, micro), grads, count, *lengths)
        loss += part
    return update(model, optimizer, grads, config, state, loss, count, started, batches)


def update(model, optimizer, grads, config, state, loss, count, started, batches=()):
    """Clip and take one step of AdamW; returns the log's columns.

    count: of learned tokens; started: value of time.perf_counter() when the step began; batches: to find a NaN in.
    """
    norm = global_norm(grads, model.ops)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        explain_nonfinite(model, batches, config, state["step"], loss, norm)
    lr = cosine_schedule(state["step"], config.warmup, config.steps, config.lr, config.min_lr)
    optimizer.step(grads, lr, clip_scale(norm, config.clip))
    return {"train_loss": loss, "lr": lr, "grad_norm": norm, "count": count,
            "tokens_per_second": count / (time.perf_counter() - started)}


def explain_nonfinite(model, batches, config, step, loss, norm):
    """Raise NonFiniteError that names the op and the layer. The parameters are still those of the last good step."""
    try:
        with np.errstate(all="ignore"):
            find_nonfinite(model, batches, (config.seed, step))
    except NonFiniteError as error:
        raise NonFiniteError(f"step {step}: {error}. Nothing was updated; the last checkpoint is good. "
                             f"A lower lr or a longer warm-up often helps.") from None
    raise NonFiniteError(f"step {step}: loss {loss}, gradient norm {norm}: every number is finite, their sum is not. "
                         f"Nothing was updated. A lower lr or a longer warm-up often helps.")


def validate_loss(model, data, config, state, run, eot_token):
    """Mean loss over the validation split; a new best is saved at once. Returns the log's columns."""
    nats, tokens = evaluate(model, limited(data.validation(), config.eval_batches))
    share = tokens / data.validation_tokens                      # 1 unless eval_batches cuts the split short
    loss, bpb = nats / tokens, nats / math.log(2) / (data.validation_bytes * share)
    return keep_best(model, state, run, eot_token, {"val_loss": loss, "val_bpb": bpb})


def keep_best(model, state, run, eot_token, found):
    """Save the model if its val_loss is the lowest so far; returns `found`, the columns that hold it."""
    if state["best"] is None or found["val_loss"] < state["best"]["val_loss"]:
        state["best"] = {"step": state["step"], **found}
        model.save_pretrained(run, eot_token)
    return found


def evaluate(model, batches):
    """(summed loss in nats, number of predicted tokens) over an iterator of (tokens, targets) or (.., .., lengths)."""
    nats, count = 0.0, 0
    for tokens, targets, *lengths in batches:
        losses, _ = model.losses(tokens, targets, -1, None, *lengths)
        nats += float(losses.sum(dtype=np.float64))
        count += int((targets != -1).sum())
    return nats, count


def limited(batches, limit):
    """The first `limit` batches, or all for 0."""
    for i, batch in enumerate(batches):
        if limit and i >= limit:
            return
        yield batch


def save(run, model, optimizer, state, eot_token):
    """Replace run/last in one step: a kill at any moment leaves the old or the new checkpoint."""
    def fill(directory):
        model.save_pretrained(directory, eot_token)
        checkpoint.save_training(directory, optimizer.m, optimizer.v, state)
    checkpoint.replace_directory(run / "last", fill)


def checkpoint_exists(run):
    checkpoint.recover_directory(run / "last")
    return (run / "last").exists()


def restore(run, model, optimizer, fresh):
    """Load run/last into model and optimizer; returns its state."""
    try:
        model.load_weights(run / "last")
    except ValueError as error:
        raise ValueError(f"{error}; use another --out, or --resume never") from None
    m, v, state = checkpoint.load_training(run / "last")
    for name in ("seed", "data"):
        if state[name] != fresh[name]:
            raise ValueError(f"{run}/last was trained with another {name}: {state[name]}, now {fresh[name]}; "
                             f"use another --out, or --resume never")
    optimizer.m.flat[:], optimizer.v.flat[:] = m.flat, v.flat
    optimizer.steps = state["step"]
    return state


@contextmanager
def stop_signals():
    """A list that becomes non-empty at the first SIGINT or SIGTERM; a second one acts as usual."""
    stopped = []

    def stop(number, frame):
        stopped.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:            # not in the main thread: signals are somebody else's business
        before = {}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def append_log(run, state, row, columns=COLUMNS):
    """One line at the end of log.csv."""
    path = run / "log.csv"
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if new:
            writer.writeheader()
        writer.writerow({"step": state["step"], "tokens": state["tokens"]} | {k: f"{v:.6g}" for k, v in row.items()})


def read_log(run):
    """The rows of log.csv as dicts of numbers; empty cells are left out. A torn last line is dropped."""
    path = Path(run) / "log.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return [{k: float(v) for k, v in row.items() if v} for row in rows]


def trim_log(run, step):
    """Drop the rows that a resumed run is about to write again."""
    rows = [row for row in read_log(run) if row.get("step", step + 1) <= step]
    if not (run / "log.csv").exists():
        return
    with open(run / "log.csv", newline="", encoding="utf-8") as file:
        columns = csv.DictReader(file).fieldnames or COLUMNS
    with atomic_write(run / "log.csv", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: int(v) if k in ("step", "tokens") else f"{v:.6g}" for k, v in row.items()})


def describe(row, state):
    """The end of the progress line."""
    text = f"loss {row['train_loss']:.3f}"
    if state["best"]:
        text += f"  val {state['best']['val_loss']:.3f}"
        text += f" ({state['best']['val_bpb']:.3f} bits/byte)" if "val_bpb" in state["best"] else ""
    return text + f"  {row['tokens_per_second']:,.0f} tok/s"
