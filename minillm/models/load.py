"""Loading: a model of whatever family from its directory, alone or with its tokenizer."""
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig, LlamaConfig
from ..kernels.select import Ops, select
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer
from .gguf import read_gguf, read_tokenizer
from .gpt2 import GPT
from .llama import Llama
from .llama_files import ARCHITECTURES, llama_shapes, parse_llama
from .params import Shapes, gpt_shapes
from .pretrained import CONFIG, parse_config, read_json

GENERATION = "generation_config.json"
FAMILIES: dict[str, Any] = {"gpt2": GPT} | dict.fromkeys(ARCHITECTURES, Llama)      # by model_type of config.json


def load_model(directory: AnyPath, ops: Ops | None = None, dtype: DTypeLike = np.float32,
               weights: str | None = None) -> Any:
    """The model of a directory, ours or of transformers, by its config.json's model_type: a GPT or a Llama, which
    answer to the same calls; see GPT.from_pretrained. Or of a GGUF file, by its architecture."""
    if is_gguf(directory):
        config, params = read_gguf(directory, dtype)
        model: Any = GPT if isinstance(config, GPTConfig) else Llama
        return model(config, ops=ops, params=params)
    model_type = str(read_json(Path(directory) / CONFIG).get("model_type"))
    return FAMILIES.get(model_type, GPT).from_pretrained(directory, ops, dtype, weights)    # GPT: says what is wrong


def load(directory: AnyPath, backend: str | dict = "auto", dtype: DTypeLike = np.float32) -> tuple[Any, Tokenizer]:
    """(model, Tokenizer) of a run directory, of a transformers directory with tokenizer.json, or of a GGUF file.

    Raises FileNotFoundError for what is missing, and ValueError for files that are broken or do not belong together.
    """
    gguf = is_gguf(directory)
    if not (gguf or Path(directory).is_dir()):
        raise FileNotFoundError(f"{directory}: there is no such directory; a model's holds config.json, "
                                "model.safetensors and tokenizer.json")
    tokenizer = read_tokenizer(directory) if gguf else Tokenizer.from_pretrained(directory)
    model = load_model(directory, select(backend), dtype)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, the model only "
                         f"{model.config.vocab_size}")
    if tokenizer.vocab_size < model.config.vocab_size:
        model.known = tokenizer.vocab_size
    if not gguf:
        tokenizer.ends = ends_of(directory, tokenizer)
    if tokenizer.eot_token is None:
        tokenizer.eot_token = min(tokenizer.ends, default=None)
    return model, tokenizer


def is_gguf(path: AnyPath) -> bool:
    """Is it a file of llama.cpp's form? A directory's name may end so, too."""
    return str(path).endswith(".gguf") and not Path(path).is_dir()


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


def described(directory: AnyPath) -> tuple[str, GPTConfig | LlamaConfig, Shapes]:
    """(its family's name, its configuration, {parameter: shape}) of the model in a directory, by config.json alone."""
    if is_gguf(directory):
        found = read_gguf(directory)[0]
        return ("GPT-2", found, gpt_shapes(found)) if isinstance(found, GPTConfig) else (
            found.family.capitalize(), found, llama_shapes(found))
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
