"""Loading: a model of whatever family from its directory, alone or with its tokenizer."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig, LlamaConfig, ModelConfig, names
from ..kernels.select import Ops, select
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer
from .gpt2 import GPT
from .llama import Llama
from .llama_files import ARCHITECTURES, llama_shapes, parse_llama, settings_of
from .params import Shapes, gpt_shapes
from .pretrained import CONFIG, parse_config, read_json

GENERATION = "generation_config.json"
FAMILIES: dict[str, Any] = {"gpt2": GPT} | dict.fromkeys(ARCHITECTURES, Llama)      # by model_type of config.json


def model_class(config: ModelConfig) -> Any:
    """GPT or Llama, whose configuration it is."""
    return Llama if isinstance(config, LlamaConfig) else GPT


def fresh_config(values: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a model to be trained from scratch, from settings by name: of GPT-2, or of another `family`.

    A family's own traits need not be said (Qwen3 normalises queries and keys): they are those that its files mean. Nor
    need the sizes that have a usual value: a head for each n_embd / n_head, keys and values for every head, an MLP of
    8/3 n_embd in whole 64s, the embedding as head. Raises ValueError for a setting that the family does not have.
    """
    family = values.get("family", "gpt2")
    if family not in FAMILIES:
        raise ValueError(f"model.family must be one of {', '.join(FAMILIES)}: got {family!r}")
    kind = GPTConfig if family == "gpt2" else LlamaConfig
    given = {name: value for name, value in values.items() if name != "family" or kind is LlamaConfig}
    if foreign := [name for name in given if name not in names(kind)]:
        raise ValueError(f"model.{foreign[0]} is not a setting of family {family}: expected one of "
                         f"{', '.join(names(kind))}" + ", or another model.family" * (kind is GPTConfig))
    if kind is GPTConfig:
        return GPTConfig(**given)
    if isinstance(given.get("rope_scaling"), dict):
        given["rope_scaling"] = tuple(sorted(given["rope_scaling"].items()))
    wanted = LlamaConfig(**usual_sizes(given) | given)
    found = parse_llama(settings_of(wanted, np.float32, None), f"model.family={family}")
    for name in given:
        if getattr(found, name) != getattr(wanted, name):
            raise ValueError(f"model.{name} must be {getattr(found, name)!r} in family {family}, whose files cannot "
                             f"say otherwise: got {given[name]!r}")
    return found


def usual_sizes(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the sizes that are given suggest for those that are not."""
    sizes = {name: given[name] for name in ("n_head", "n_embd") if name in given}
    c = LlamaConfig(**sizes | {"n_kv_head": given.get("n_head", LlamaConfig.n_head)})
    return {"n_kv_head": c.n_head, "head_dim": c.n_embd // c.n_head, "n_inner": 64 * -(-8 * c.n_embd // 192),
            "tied": True}


def load_model(directory: AnyPath, ops: Ops | None = None, dtype: DTypeLike = np.float32,
               weights: str | None = None) -> Any:
    """The model of a directory, ours or of transformers, by its config.json's model_type: a GPT or a Llama, which
    answer to the same calls; see GPT.from_pretrained."""
    model_type = str(read_json(Path(directory) / CONFIG).get("model_type"))
    return FAMILIES.get(model_type, GPT).from_pretrained(directory, ops, dtype, weights)    # GPT: says what is wrong


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
    """The ids after which the model has learned to end a text: eos_token_id, one or a list, of generation_config.json
    or else of config.json."""
    for name in (GENERATION, CONFIG):
        path = Path(directory) / name
        ends = read_json(path).get("eos_token_id") if path.exists() else None
        found = frozenset(end for end in (ends if isinstance(ends, list) else [ends])
                          if type(end) is int and 0 <= end < tokenizer.vocab_size)
        if found:
            return found
    return frozenset()


def described(directory: AnyPath) -> tuple[str, ModelConfig, Shapes]:
    """(its family's name, its configuration, {parameter: shape}) of the model in a directory, by config.json alone."""
    path = Path(directory) / CONFIG
    settings = read_json(path)
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
