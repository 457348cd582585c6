"""The model that `minillm train --init DIR` goes on from: any that loads, as it is or grown (models/grow.py)."""
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..kernels.select import select
from ..models.gguf import read_tokenizer
from ..models.grow import config_for_context, with_context, with_vocabulary
from ..models.load import described, is_gguf, load_model, tell_ends
from ..models.params import Params
from ..tokenizer import Tokenizer

CHANGEABLE = ("block_size", "dropout")                  # settings that can be other than those of DIR


def continued_config(init: str | Path, given: Mapping[str, Any]) -> ModelConfig:
    """The configuration of DIR with the settings that are given. Raises ValueError for one that cannot be other."""
    if not (is_gguf(init) or Path(init).is_dir()):
        raise FileNotFoundError(f"--init {init}: there is no such directory; a model's holds config.json and "
                                "model.safetensors")
    config = described(init)[1]
    for name, value in given.items():
        now = getattr(config, name, None)
        if name not in CHANGEABLE and value != now:
            raise ValueError(f"model.{name} is that of --init {init}, {now!r}: got {value!r}; only "
                             f"{' and '.join(f'model.{key}' for key in CHANGEABLE)} can be other")
    config = config_for_context(config, given["block_size"]) if "block_size" in given else config
    return replace(config, **{name: given[name] for name in ("dropout",) if name in given})


def tokenizer_for(path: str | Path | None, init: str | Path | None) -> Tokenizer | None:
    """The tokenizer that is given, or that of DIR, with what DIR says of the end of a text; None to train one."""
    if not path and not init:
        return None
    tokenizer = Tokenizer.from_pretrained(path) if path else tokenizer_of(init)
    if init:
        tell_ends(tokenizer, init)
    return tokenizer


def tokenizer_of(init: Any) -> Tokenizer:
    return read_tokenizer(init) if is_gguf(init) else Tokenizer.from_pretrained(init)


def initial_model(init: str | Path, config: ModelConfig, tokenizer: Tokenizer, backend: str) -> Any:
    """The model of DIR with rows for the tokenizer's ids and this configuration's context length and dropout.

    Raises ValueError for stored weights without gradients, and for a tokenizer whose ids mean something else.
    """
    model = load_model(init, select(backend))
    if not isinstance(model.params, Params):
        raise ValueError(f"--init {init}: int8 weights have no gradients; take the model that they were made from")
    check_vocabulary(init, tokenizer, model.config.vocab_size)
    model = with_context(with_vocabulary(model, tokenizer.vocab_size), config.block_size)
    return type(model)(replace(model.config, dropout=config.dropout), ops=model.ops, params=model.params)


def grown(init: str | Path, model: Any) -> bool:
    """Is this model of DIR another than what transformers would read there?"""
    config = None if is_gguf(init) else described(init)[1]
    return not config or (config.block_size, config.vocab_size) != (model.config.block_size, model.config.vocab_size)


def check_vocabulary(init: str | Path, tokenizer: Tokenizer, known: int) -> None:
    """Raise ValueError unless the ids that both tokenizers have mean the same; DIR may have none."""
    try:
        own = tokenizer_of(init)
    except FileNotFoundError:
        return
    for id in range(min(own.vocab_size, tokenizer.vocab_size, known)):
        old, new = token_of(own, id), token_of(tokenizer, id)
        if old != new:
            raise ValueError(f"--tokenizer does not continue the vocabulary of --init {init}: id {id} is {new!r}, and "
                             f"{old!r} there")


def token_of(tokenizer: Tokenizer, id: int) -> bytes | None:
    try:
        return tokenizer.token_bytes(id)
    except ValueError:                                                  # an id that stands for nothing
        return None


def digest_of(model: Any) -> str:
    """A hash of the parameters: a run is resumed from what it began with."""
    return hashlib.blake2b(model.params.flat.view("u1"), digest_size=8).hexdigest()
