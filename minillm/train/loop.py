"""The training loop: batches in, optimizer steps, validation, log, checkpoints; and a resume that changes no bit.

A step is a pure function of the parameters, the moments and the step number: batches come from (seed, step), the
dropout masks from (seed, step, site), the learning rate from the step. So a run that is killed at any moment and
resumed from its last checkpoint ends with the very bytes of the run that was never killed.

A run directory holds the best model so far (config.json, model.safetensors, tokenizer.json), log.csv, gradients.csv,
loss.png and `last/`, the same model files plus the optimizer and the step: where to resume. With config.ema the best
model is a mean of the weights, as they are validated; `last/` has the weights themselves, the mean beside them.
"""
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..models.packing import Batch
from ..storage.atomic import AnyPath, dump_json
from ..storage.lock import exclusive
from ..tokenizer.roles import EndOfText
from .checkpoint import checkpoint_exists, restore, save
from .device import Recorded, host_model, placed
from .log import (
    COLUMNS,
    GRADIENTS,
    SOURCES,
    append_gradients,
    append_log,
    describe,
    layer_names,
    read_log,
    recorded_failure,
    trim_log,
)
from .nonfinite import DivergenceError, NonFiniteError, find_nonfinite
from .optim import AdamW, averaged, bf16_weight_copy, clip_scale, optimizer_for
from .parallel import World, check_same_run, of_rank_0
from .schedule import Timetable, last_step, learning_rate
from .sharded import sharded
from .symptoms import warning

WORST_LOSS, WORST_NORM = 1e3, 1e6        # nats per token, gradient norm: a run that got over these has diverged


def train(model: Any, data: Any, config: TrainConfig, run: AnyPath, eot_token: EndOfText = None,
          resume: str | bool = "auto", progress: Callable | None = None, deadline: float = math.inf,
          step: Callable | None = None, validate: Callable | None = None, columns: list[str] = COLUMNS,
          say: Callable[[str], None] | None = None, settings: dict | None = None,
          finish: float = math.inf, world: World | None = None) -> dict[str, Any]:
    """Train `model` on `data` as `config` (TrainConfig) says; returns the state at the end as a dict.

    data: an object with batch(step, micro) -> Batch (or a tuple of its fields), validation(batches) -> iterator of such
    (at most so many, 0 for all), validation_tokens, validation_bytes (the UTF-8 bytes behind them) and a fingerprint.
    run: the directory. resume: "auto" continues from run/last if it is there, "override" even with other settings,
    "never" (or False) begins again; say(text) is told so. progress(step, steps, text) is called after each step.
    deadline: value of time.monotonic() at which the run ends early, validated and saved. step, validate, columns: what
    to do instead of `one_step` and `validate_loss`, with their arguments and results, and what the log holds:
    preference training is the same loop. settings: of `step` and `data`, which a resumed run is to share besides
    config. finish: another value of time.monotonic(), at which a run with config.schedule "wsd" is to be done, decay
    and all, after config.steps at most. As the decay begins, its first step and its end are saved in the checkpoint,
    as state["decay"]: resumed from then on, the run ends with the same bytes; resumed before, it goes on at full rate
    until a decay is due by its own `finish`. world: the ranks that train together (train/parallel.py), of which only
    rank 0 writes, and only its clock counts. SIGINT and SIGTERM end the run after the step in hand, with a checkpoint
    written. Raises NonFiniteError naming op and layer, DivergenceError, ValueError for a checkpoint of a different
    model, data or settings, BlockingIOError where another process is training.
    """
    run, step, validate = Path(run), step or step_for(model), validate or validate_loss
    model.recompute = config.recompute
    optimizer = sharded(world, model, config) if world else optimizer_for(model, config)
    started, finish, deadline = of_rank_0(world, time.monotonic(), finish, deadline)
    timetable, timed = Timetable(started, finish, config), min(finish, deadline) < math.inf
    writes = world is None or world.rank == 0
    if world and validate is validate_loss:
        validate = partial(validate_loss, world=world)
    fresh = fresh_state(data, config, settings)
    quiet = np.errstate(all="ignore")                    # what is not finite is found and named below
    with exclusive(run) if writes else nullcontext():
        state = resumed(run, model, optimizer, fresh, resume, say, world)
        if writes:
            trim_log(run, state["step"], columns)
            trim_log(run, state["step"], ["step", "tokens", *layer_names(model.params)], GRADIENTS)
        saved, rows, warned = state["step"], read_log(run), ""
        known = state["settings"] | {"vocab_size": model.config.vocab_size}
        with recorded_failure(run, state, model.config) if writes else nullcontext(), stop_signals() as stopped, \
                bf16_weight_copy(model, optimizer), quiet:
            while state["step"] < last_step(config, state) and not optimizer.agreed(bool(stopped)):
                row = step(model, optimizer, data, config, state)
                state["step"] += 1
                state["tokens"] += row.pop("count")
                now = of_rank_0(world, time.monotonic())[0] if timed else started
                end, decays = timetable.plan(state, now)
                done = state["step"] == end or now > deadline
                if done or due(config.eval_every, state):
                    with averaged(model, optimizer):
                        row |= validate(model, data, config, state, run if writes else None, eot_token)
                    if grads := optimizer.whole_gradients():
                        append_gradients(run, state, grads)
                if writes and ("val_loss" in row or due(config.log_every, state)):
                    append_log(run, state, row, columns)
                    rows.append({"step": state["step"], **row})
                    warned = warning(rows, known) if columns is COLUMNS else ""
                if done or decays or due(config.save_every, state):
                    save(run, model, optimizer, state, eot_token)
                    saved = state["step"]
                if progress:
                    progress(state["step"], end, warned + describe(row, state))
                if done:
                    break
            if state["best"] is None and not optimizer.agreed(bool(stopped)):
                # resumed to do no more steps, before the first validation
                with averaged(model, optimizer):
                    validate(model, data, config, state, run if writes else None, eot_token)
                saved = 0
            if saved != state["step"]:                   # stopped by a signal
                save(run, model, optimizer, state, eot_token)
    return state


def fresh_state(data: Any, config: TrainConfig, settings: dict | None) -> dict[str, Any]:
    """The state of a run before its first step; checkpoints keep it as JSON.

    best: step and losses of the best validation so far; decay: of schedule "wsd", once it is known (see `train`);
    seed, data and settings: what a resumed run must share.
    """
    return {"step": 0, "tokens": 0, "best": None, "decay": None, "seed": config.seed, "data": data.fingerprint,
            "settings": json.loads(dump_json(config.as_dict() | (settings or {}), "settings"))}


def resumed(run: Path, model: Any, optimizer: AdamW, fresh: dict, resume: str | bool, say: Callable | None,
            world: World | None) -> dict:
    """The state of the run's checkpoint, loaded into model and optimizer, if it is there and wanted; else `fresh`."""
    state = fresh
    if checkpoint_exists(run, world) and resume not in (False, "never"):
        state = restore(run, model, optimizer, fresh, resume == "override", say or (lambda text: None))
    if world:
        check_same_run(world, state["step"], state["data"], model.params.flat)
    return state


def due(every: int, state: dict) -> bool:
    """Every `every` steps, never for 0."""
    return bool(every) and state["step"] % every == 0


def step_for(model: Any) -> Callable:
    """`one_step`; for a model on a device, with a forward and backward that are recorded once and then replayed."""
    on_device = getattr(model.params, "device", None)
    return partial(one_step, learn=Recorded(model).loss_and_grads) if on_device else one_step


def one_step(model: Any, optimizer: AdamW, data: Any, config: TrainConfig, state: dict,
             learn: Callable | None = None) -> dict:
    """Accumulate, clip, update. The mean is over all valid targets of all micro-batches, whatever their sizes. learn:
    instead of the model's own loss_and_grads."""
    started, step = time.perf_counter(), state["step"]
    batches = batches_of(data, step, config)
    count = sum(batch.learned for batch in batches)
    parts = {}
    for micro, grads in optimizer.micro_gradients(config.accumulate):
        batch = batches[micro]
        part, _ = (learn or model.loss_and_grads)(batch.tokens, batch.targets, -1, (config.seed, step, micro), grads,
                                                  count, batch.lengths)
        parts[micro] = [part]
    loss = float(sum(optimizer.of_micros(parts, config.accumulate)[:, 0]))
    return update(model, optimizer, config, state, loss, count, started, batches)


def batches_of(data: Any, step: int, config: TrainConfig) -> list[Batch]:
    """The micro-batches of a step, as a list of Batch."""
    return list(starmap(Batch, (data.batch(step, micro) for micro in range(config.accumulate))))


def update(model: Any, optimizer: AdamW, config: TrainConfig, state: dict, loss: float, count: int, started: float,
           batches: Sequence[Batch] = ()) -> dict:
    """Clip the optimizer's gradients and take one step; returns the log's columns.

    count: of learned tokens; started: value of time.perf_counter() when the step began; batches: where the loss is a
    mean over their tokens, which makes it comparable with WORST_LOSS, and a NaN traceable to an op.
    """
    norm = optimizer.norm()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        explain_nonfinite(model, batches, config, state["step"], loss, norm)
    check_converging(state["step"], loss if batches else 0.0, norm)
    lr = learning_rate(config, state["step"], state.get("decay"))
    optimizer.step(optimizer.grads, lr, clip_scale(norm, config.clip))
    return {"train_loss": loss, "lr": lr, "grad_norm": norm, "count": count,
            "tokens_per_second": count / (time.perf_counter() - started)}


def explain_nonfinite(model: Any, batches: Any, config: TrainConfig, step: int, loss: float, norm: float) -> str:
    """Raise NonFiniteError that names the op and the layer. The parameters are still those of the last good step."""
    try:
        with np.errstate(all="ignore"):
            find_nonfinite(host_model(model), batches, (config.seed, step))
    except NonFiniteError as error:
        raise NonFiniteError(f"step {step}: {error}. Nothing was updated; the last checkpoint is good. "
                             f"A lower lr or a longer warm-up often helps.") from None
    raise NonFiniteError(f"step {step}: loss {loss}, gradient norm {norm}: every number is finite, their sum is not. "
                         f"Nothing was updated. A lower lr or a longer warm-up often helps.")


def check_converging(step: int, loss: float, norm: float = 0.0) -> None:
    """Raise DivergenceError for a loss, in nats per token, or a gradient norm from which no training recovers."""
    if not (loss < WORST_LOSS and norm < WORST_NORM):
        raise DivergenceError(f"step {step}: training has diverged: loss {loss:.4g} nats per token (a blind guess "
                              f"costs about 10), gradient norm {norm:.3g}. Nothing was updated or saved. A lower lr or "
                              "a longer warm-up often helps: go on from the last checkpoint with --override, or begin "
                              "again with --resume never.")


def validate_loss(model: Any, data: Any, config: TrainConfig, state: dict, run: Path | None, eot_token: EndOfText,
                  world: World | None = None) -> dict:
    """Mean loss over the validation split; a new best is saved at once. Returns the log's columns.

    Where the data has several sources (data.sources: {name: such data}), the loss of each goes to sources.csv. The mean
    weighs them by their validation tokens, also where config.eval_batches takes only some of these.
    """
    sources = getattr(data, "sources", {"": data})
    found = {}
    for name, source in sources.items():
        nats, tokens = evaluate(model, source.validation(config.eval_batches), world)
        check_converging(state["step"], nats / tokens)
        found[name] = nats / tokens
    if run and hasattr(data, "sources"):
        trim_log(run, state["step"] - 1, ["step", "tokens", *found], SOURCES)
        append_log(run, state, found, ["step", "tokens", *found], SOURCES)
    loss = sum(found[name] * (source.validation_tokens / data.validation_tokens) for name, source in sources.items())
    bpb = loss * data.validation_tokens / math.log(2) / data.validation_bytes
    return keep_best(model, state, run, eot_token, {"val_loss": loss, "val_bpb": bpb})


def keep_best(model: Any, state: dict, run: Path | None, eot_token: EndOfText, found: dict) -> dict:
    """Save the model if its val_loss is the lowest so far, unless run is None: another process does. Returns `found`,
    the columns that hold it."""
    if state["best"] is None or found["val_loss"] < state["best"]["val_loss"]:
        state["best"] = {"step": state["step"], **found}
        if run:
            model.save_pretrained(run, eot_token)
    return found


def evaluate(model: Any, batches: Iterable[Batch], world: World | None = None) -> tuple[float, int]:
    """(summed loss in nats, number of predicted tokens) over an iterator of Batch, which ranks share."""
    count, found = 0, {}
    for i, batch in enumerate(starmap(Batch, batches)):
        if world is None or i % world.size == world.rank:
            here = placed(model, batch)
            losses, _ = model.losses(here.tokens, here.targets, lengths=here.lengths)
            found[i] = [float(losses.sum(dtype=np.float64))]
        count += batch.learned
    nats = world.dealt(found, i + 1, 1)[:, 0] if world else [values[0] for values in found.values()]
    return float(sum(nats)), count


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that becomes non-empty at the first SIGINT or SIGTERM; a second one acts as usual."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
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
