"""Saving loses nothing: neither of a model nor of a run that is resumed. All of it happens in a temporary directory."""
import shutil
from copy import copy
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from ...config import TrainConfig
from ...models.adapted import FOLDER, load_adapter
from ...models.params import Params
from ...models.pretrained import read_json
from ...models.quantized import Quantized, save_quantized
from ...train.checkpoint import STATE, restore, save
from ...train.loop import one_step
from ...train.optim import AdamW, optimizer_for
from .subject import ROWS, Finding, Subject, compare, leaves


def save_and_load(s: Subject) -> Finding:
    """A model that is saved and loaded is the same, bit for bit."""
    with TemporaryDirectory() as folder:
        if isinstance(s.model.params, Params):
            s.model.save_pretrained(folder)
        else:
            save_quantized(folder, s.model)
        bits = any(isinstance(weight, Quantized) and weight.scales is None for weight in s.model.params.values())
        loaded = type(s.model).from_pretrained(folder, s.model.ops, s.dtype, "bfloat16" if bits else None)
        return compare({what: pair for name, weight in s.model.params.items()
                        for what, pair in leaves(name, loaded.params[name], weight)}, 0)


def resume(s: Subject) -> Finding:
    """A step after saving and loading a checkpoint is the step of the run that was never stopped, to the last bit.

    From the run's own checkpoint (RUN/last, which is read), if it has one.
    """
    learner, optimizer, state = learner_of(s)
    data = SimpleNamespace(batch=lambda step, micro: (s.tokens, s.targets))
    config = TrainConfig(batch_size=ROWS, lr=1e-3, min_lr=1e-3, warmup=0, steps=state["step"] + 2)
    one_step(learner, optimizer, data, config, state)
    state["step"] += 1
    with TemporaryDirectory() as folder:
        needed, free = 4 * learner.params.flat.nbytes, shutil.disk_usage(folder).free
        if needed > free:
            return Finding(None, f"skipped: it takes {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} are free")
        save(Path(folder), learner, optimizer, state, None)
        one_step(learner, optimizer, data, config, state)
        want = digests(learner, optimizer)
        del learner, optimizer
        learner, optimizer, _ = learner_of(s, begun=False)
        state = restore(Path(folder), learner, optimizer, state, say=lambda text: None)
    one_step(learner, optimizer, data, config, state)
    wrong = [name for name, digest in digests(learner, optimizer).items() if digest != want[name]]
    if wrong:
        return Finding(False, f"{len(wrong)} of {len(want)} tensors differ after resuming: {', '.join(wrong[:3])}")
    return Finding(True, f"step {state['step'] + 1:,}: weights and moments bit-identical, {len(want)} tensors")


def learner_of(s: Subject, begun: bool = True) -> tuple[Any, AdamW, dict]:
    """A copy of the model that may be trained (or fresh adapters on it), with its optimizer and state: begun where the
    run's checkpoint ends, if it has one."""
    run = s.directory.resolve().parent if s.directory and (s.directory / STATE).exists() else s.directory
    last = run / "last" if run else None
    if last and (last / FOLDER).is_dir():
        learner = load_adapter(s.model, last / FOLDER)
    else:
        learner = copy(s.model)
        learner.params = s.model.params.astype(s.dtype)
    found = read_json(last / STATE) if last and (last / STATE).exists() else {}
    optimizer = optimizer_for(learner, TrainConfig.recorded(found.get("settings", {})))
    state = {"step": 0, "seed": 0, "data": "random tokens", "settings": {}, "best": {"step": 0}}
    if begun and found and run:
        mine = {"settings": found.get("settings", {}), "data": found.get("data"), "seed": found.get("seed")}
        state["step"] = restore(run, learner, optimizer, mine, say=lambda text: None)["step"]
    return learner, optimizer, state


def digests(learner: Any, optimizer: AdamW) -> dict[str, bytes]:
    """{tensor: digest} of weights, moments and mean: what two runs are compared by, without the memory of both."""
    tensors = {"": learner.params, "first moment of ": optimizer.m, "second moment of ": optimizer.v,
               "mean of ": optimizer.mean or {}}
    return {what + name: blake2b(array, digest_size=16).digest()
            for what, params in tensors.items() for name, array in params.items()}
