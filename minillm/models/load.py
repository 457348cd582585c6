"""Loading: a model of whatever family from its directory, alone or with its tokenizer."""
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig, LlamaConfig
from ..kernels.select import Ops, select
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer
from ..tokenizer.roles import TextEnds, role_id
from .gpt2 import GPT
from .llama import Llama
from .llama_files import ARCHITECTURES, llama_shapes, parse_llama
from .params import Shapes, gpt_shapes
from .pretrained import CONFIG, GENERATION, parse_config, read_json
from .quantized import METHOD, is_quantized, stored_type

FAMILIES: dict[str, Any] = {"gpt2": GPT} | dict.fromkeys(ARCHITECTURES, Llama)      # by model_type of config.json


def load_model(directory: AnyPath, ops: Ops | None = None, dtype: DTypeLike = np.float32,
               weights: str | None = None) -> Any:
    """The model of a directory, ours or of transformers, by its config.json's model_type: a GPT or a Llama, which
    answer to the same calls; see GPT.from_pretrained."""
    family = FAMILIES.get(stored_type(directory), GPT)                      # GPT: says what is wrong
    return family.from_pretrained(directory, ops, dtype, weights)


def load(directory: AnyPath, backend: str | dict = "auto", dtype: DTypeLike = np.float32) -> tuple[Any, Tokenizer]:
    """(model, Tokenizer) of a run directory, or of a transformers directory with tokenizer.json.

    Raises FileNotFoundError for what is missing, and ValueError for files that are broken or do not belong together.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"{directory}: there is no such directory; a model's holds config.json, "
                                "model.safetensors and tokenizer.json")
    tokenizer = Tokenizer.from_pretrained(directory)
    model = load_model(directory, select(backend), dtype)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, the model only "
                         f"{model.config.vocab_size}")
    if tokenizer.vocab_size < model.config.vocab_size:
        model.known = tokenizer.vocab_size
    tokenizer.ends = ends_of(directory, tokenizer)
    if tokenizer.eot_token is None:
        tokenizer.eot_token = min(tokenizer.ends, default=None)
    return model, tokenizer


def ends_of(directory: AnyPath, tokenizer: Tokenizer) -> frozenset[int]:
    """The ids after which the model has learned to end a text: what its files name, or else its tokenizer's."""
    found = frozenset(named_ends(directory, tokenizer.vocab_size).eos)
    eos = role_id(tokenizer, "eos_token")
    return found if found or eos is None else frozenset([eos])


def named_ends(directory: AnyPath, vocab_size: int) -> TextEnds:
    """eos_token_id, one or a list, and bos_token_id of generation_config.json, or else of config.json."""
    found = TextEnds((), None)
    for name in (CONFIG, GENERATION):
        settings = read_json(path) if (path := Path(directory) / name).exists() else {}
        eos, bos = (ids_of(settings.get(key), vocab_size) for key in ("eos_token_id", "bos_token_id"))
        found = TextEnds(eos or found.eos, next(iter(bos), found.bos))
    return found


def ids_of(value: Any, vocab_size: int) -> tuple[int, ...]:
    """Those ids of a value of JSON, one or a list, that are in the vocabulary."""
    return tuple(id for id in (value if isinstance(value, list) else [value])
                 if type(id) is int and 0 <= id < vocab_size)


def described(directory: AnyPath) -> tuple[str, GPTConfig | LlamaConfig, Shapes]:
    """(its family's name, its configuration, {parameter: shape}) of the model in a directory, by config.json alone."""
    path = Path(directory) / CONFIG
    settings = read_json(path)
    if is_quantized(directory):
        settings = {key: value for key, value in settings.items() if key != METHOD} | {
            "model_type": stored_type(directory)}
    if settings.get("model_type") in ARCHITECTURES:
        llama = parse_llama(settings, path)
        return llama.family.capitalize(), llama, llama_shapes(llama)
    gpt = parse_config(settings, path)
    return "GPT-2", gpt, gpt_shapes(gpt)


def gpt2_only(model: Any, what: str) -> Any:
    """The model itself; raises ValueError if it is of another family, for which `what` is not there."""
    if not isinstance(model, GPT):
        raise ValueError(f"{what} is there for GPT-2 only so far: got a {model.config.family} model")
    return model
