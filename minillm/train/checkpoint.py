"""Checkpoints to resume from: a model's directory with the optimizer's moments and the step beside it.

To the model's files come `optimizer.safetensors` (the moments; the mean of the weights, where there is one) and
`state.json` (step, seed, fingerprint of the data, checksums). The directory, run/last, is replaced as a whole
(storage/directories.py).
"""
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..models.params import Params
from ..models.pretrained import LAYOUT, MODEL, read_json
from ..storage.atomic import AnyPath, dump_json, write_json
from ..storage.directories import recover_directory, replace_directory
from ..storage.safetensors import read_safetensors, write_safetensors
from ..tokenizer.formats import TOKENIZER_FILES
from ..tokenizer.roles import EndOfText
from .optim import AdamW, averaged
from .parallel import World

OPTIMIZER, STATE, ORIGIN = "optimizer.safetensors", "state.json", "origin.json"
HARMLESS = ("seed", "steps", "eval_every", "eval_batches", "save_every", "log_every",    # the others change every step
            "recompute", "patience")
M, V, MEAN = "exp_avg.", "exp_avg_sq.", "ema."      # PyTorch's AdamW names its moments so


def save(run: Path, model: Any, optimizer: AdamW, state: dict, eot_token: EndOfText) -> None:
    """Replace run/last in one step: a kill at any moment leaves the old or the new checkpoint.

    It gets the run's tokenizer, so that every command can use it; and until there is a best model, the run is the last.
    """
    moments, mean = optimizer.whole_moments(), optimizer.whole_mean()                 # None: another process writes

    def fill(directory: Path, m: Params, v: Params) -> None:
        model.save_pretrained(directory, eot_token)
        for name in (*TOKENIZER_FILES, ORIGIN):
            if (run / name).exists():
                shutil.copy(run / name, directory / name)
        save_training(directory, m, v, state, mean)
    if moments:
        replace_directory(run / "last", lambda directory: fill(directory, *moments))
    if state["best"] is None:
        with averaged(model, optimizer):
            if moments:
                model.save_pretrained(run, eot_token)


def checkpoint_exists(run: Path, world: World | None = None) -> bool:
    """Is there a checkpoint to resume from, after what an interrupted save left is put right? By rank 0 of a world."""
    if world:
        return world.first(lambda: checkpoint_exists(run), bool, bool)
    recover_directory(run / "last")
    return (run / "last").exists()


def restore(run: Path, model: Any, optimizer: AdamW, fresh: dict, override: bool = False,
            say: Callable[[str], None] = print) -> dict:
    """Load run/last into model and optimizer; returns its state, with the settings of `fresh`.

    Raises ValueError if model, seed, data or (without `override`) settings are not those of the checkpoint.
    """
    try:
        model.load_weights(run / "last")
    except ValueError as error:
        raise ValueError(f"{error}; use another --out, or --resume never") from None
    m, v, state = load_training(run / "last")
    if state["data"] != fresh["data"]:
        raise ValueError(f"{run}/last was trained on other data; use another --out, or --resume never")
    if state["seed"] != fresh["seed"]:
        raise ValueError(f"{run}/last was trained with another seed: {state['seed']}, now {fresh['seed']}; "
                         f"use another --out, or --resume never")
    then, now = state.get("settings", {}), fresh["settings"]
    then = {name: value for name, value in TrainConfig().as_dict().items() if name in now} | then   # of an older run
    changed = [f"{name} was {then[name]}, now {now.get(name)}" for name in then if then[name] != now.get(name)]
    grave = [text for text in changed if text.split()[0] not in HARMLESS]
    if grave and not override:
        raise ValueError(f"{run}/last was trained with other settings: {'; '.join(grave)}; use --override to go on "
                         "with the new ones, another --out, or --resume never")
    try:
        optimizer.take_moments(m, v)
    except ValueError as error:
        raise ValueError(f"{run}/last has {error}; use another --out, or --resume never") from None
    say(f"resuming from step {state['step']:,}" + f" ({'; '.join(changed)})" * bool(changed))
    if optimizer.mean is not None:
        optimizer.take_mean(mean_of(run / "last") or model.params)
    optimizer.steps = state["step"]
    return state | {"settings": now}


def save_training(directory: AnyPath, m: Params, v: Params, state: dict, mean: Params | None = None) -> None:
    """Write the moments and `state` (a dict that JSON can hold) beside a model saved there before; the mean of its
    weights, too, if there is one.

    `state.json` also gets checksums of model.safetensors, optimizer.safetensors and of the state itself.
    """
    if "checksums" in state:
        raise ValueError("state: the key 'checksums' is taken by the checkpoint itself")
    directory = Path(directory)
    moments = {M + name: array for name, array in m.items()} | {V + name: array for name, array in v.items()}
    moments |= {MEAN + name: array for name, array in (mean or {}).items()}
    write_safetensors(directory / OPTIMIZER, moments)
    checksums = {name: file_checksum(directory / name) for name in (MODEL, OPTIMIZER)}
    write_json(directory / STATE, state | {"checksums": checksums | {"state": json_checksum(state)}}, **LAYOUT)


def load_training(directory: AnyPath) -> tuple[Params, Params, dict]:
    """Read what `save_training` wrote; returns (m, v, state), the moments in the dtype they were saved in.

    Raises FileNotFoundError for a missing file; ValueError naming the file if one is damaged: a byte of the weights,
    the moments or the state that changed since they were saved is found by its checksum.
    """
    directory = Path(directory)
    state = read_json(directory / STATE)
    checksums = state.pop("checksums", None)
    if not isinstance(checksums, dict):
        raise ValueError(f"{directory / STATE}: no checksums: not a state that was saved for resuming")
    actual = {STATE: json_checksum(state)} | {name: file_checksum(directory / name) for name in (MODEL, OPTIMIZER)}
    for name, checksum in actual.items():
        if checksums.get("state" if name == STATE else name) != checksum:
            raise ValueError(f"{directory / name}: damaged, or not from this checkpoint: its checksum is not the one "
                             f"recorded in {STATE}")
    tensors, _ = read_safetensors(directory / OPTIMIZER)
    return moment(tensors, M, directory), moment(tensors, V, directory), state


def moment(tensors: dict[str, np.ndarray], prefix: str, directory: Path) -> Params:
    """The tensors whose names start with `prefix`, as Params."""
    found = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"{directory / OPTIMIZER}: no tensor named {prefix}...")
    params = Params({name: array.shape for name, array in found.items()}, next(iter(found.values())).dtype)
    for name, array in params.items():
        array[:] = found[name]
    return params


def mean_of(directory: Path) -> Params | None:
    """The mean of the weights that `save_training` wrote there, if it did; its checksum is checked by `load_training`.
    """
    tensors, _ = read_safetensors(directory / OPTIMIZER)
    return moment(tensors, MEAN, directory) if any(name.startswith(MEAN) for name in tensors) else None


def file_checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def json_checksum(value: dict) -> str:
    """Of the text as json writes it: a value read back writes the same text."""
    return hashlib.blake2b(dump_json(value, STATE).encode(), digest_size=16).hexdigest()
