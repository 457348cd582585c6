"""A run directory as what is traced: its model, the prompt's tokens, and the step that its training would take next."""
from pathlib import Path
from typing import Any

import numpy as np

from ...config import TrainConfig
from ...models.load import load
from ...models.params import Params
from ...models.pretrained import CONFIG
from ...progress import Report
from ...tokenizer import Tokenizer
from ...train.checkpoint import STATE, load_training
from ...train.schedule import learning_rate
from .record import Training, record


def record_run(directory: str | Path, prompt: str, backend: str = "auto", progress: Report | None = None) -> dict:
    """Record the model of a run directory, or of one of transformers, on a prompt (see `record`).

    Raises FileNotFoundError for a directory without a model, ValueError for a prompt of fewer than two tokens or too
    many, and for quantized weights.
    """
    directory = Path(directory)
    if not (directory / CONFIG).exists():
        raise FileNotFoundError(f"{directory}: no run directory and no model: there is no {CONFIG} in it")
    model, tokenizer = load(directory, backend)
    if not isinstance(model.params, Params):
        raise ValueError(f"{directory}: its weights are int8, which are for generating and have no gradients; trace "
                         "the run that was quantized")
    tokens = tokens_of(prompt, tokenizer, model.config.block_size)
    recorded = record(model, tokens, next_step(directory, model), lambda i: tokenizer.decode([i]), progress)
    return recorded | {"prompt": prompt, "model": recorded["model"] | {"directory": str(directory)}}


def tokens_of(prompt: str, tokenizer: Tokenizer, block_size: int) -> list[int]:
    """The tokens of a prompt. Raises ValueError, with what to do, for fewer than two and for more than fit."""
    tokens = tokenizer.encode(prompt, "all")                            # <|endoftext|> is a token, too
    if len(tokens) < 2:
        raise ValueError(f"--prompt must be at least two tokens, one to read and one to predict: {prompt!r} is "
                         f"{len(tokens)}; write a longer one")
    if len(tokens) > block_size:
        fits = tokenizer.decode(tokens[:block_size])
        raise ValueError(f"--prompt must fit into the context window of {block_size} tokens: got {len(tokens)}; it "
                         f"fits up to {fits[-20:]!r}")
    return tokens


def next_step(directory: Path, model: Any) -> Training:
    """The step that the run's training would take next: its settings, and the moments if they belong to these
    weights."""
    for last in (directory, directory / "last"):
        if (last / STATE).exists():
            m, v, state = load_training(last)
            config = TrainConfig.recorded(state.get("settings") or {})
            if m.shapes != model.params.shapes:
                return Training(config, config.lr, moments="fresh: the run trained an adapter, and this is the merged "
                                                           "model")
            if config.optimizer != "adamw":
                return Training(config, config.lr, moments="fresh: the run's matrices were trained by Muon, and this "
                                                           "is a step of AdamW")
            if last != directory and not same_weights(model, last):
                return Training(config, config.lr, moments="fresh: the optimizer's are those of the last step, the "
                                                           f"weights those of the best; {last} has both")
            rate = learning_rate(config, state["step"], state.get("decay"))
            if rate == 0:                                   # an update of 0 would show nothing
                return Training(config, config.lr, state["step"], m, v, "of the run, whose schedule has ended at a "
                                                                         "rate of 0: this is its highest")
            return Training(config, rate, state["step"], m, v, "of the run")
    return Training()


def same_weights(model: Any, directory: Path) -> bool:
    other = type(model).from_pretrained(directory, model.ops)
    return model.config == other.config and np.array_equal(model.params.flat, other.params.flat)
