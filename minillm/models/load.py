"""Loading: a model of whatever family from its directory, alone or with its tokenizer."""
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig, LlamaConfig, ModelConfig, names, of_depth
from ..kernels.select import Ops, select
from ..storage.atomic import AnyPath
from ..tokenizer import Tokenizer
from ..tokenizer.roles import TextEnds, role_id
from .adapted import load_adapter
from .adapter_files import CONFIG as ADAPTED
from .adapter_files import FOLDER, adapter_folder
from .gemma import Gemma
from .gguf import read_config, read_gguf, read_tokenizer
from .gpt2 import GPT
from .llama import Llama
from .llama_files import ARCHITECTURES, llama_shapes, parse_llama, settings_of
from .olmo2 import Olmo2
from .params import Shapes, gpt_shapes
from .pretrained import CONFIG, GENERATION, parse_config, read_json
from .quantized import METHOD, is_quantized, quantize, stored_type

MANY = 1000                 # layers
TRAITS = {"norm_eps": "rms_norm_eps", "window": "sliding_window", "full_layers": "layer_types",
          "attention_cap": "attn_logit_softcapping", "logit_cap": "final_logit_softcapping"}    # ours: the files'
FAMILIES: dict[str, Any] = {"gpt2": GPT} | {family: kind for kind in (Llama, Olmo2, Gemma) for family in kind.families}


def model_class(config: ModelConfig) -> Any:
    """The class whose configuration it is: GPT, Llama, Olmo2 or Gemma."""
    return FAMILIES[config.family] if isinstance(config, LlamaConfig) else GPT


def fresh_config(values: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a model to be trained from scratch, from settings by name: of GPT-2, or of another `family`.

    A family's own traits need not be said: they are what its files mean that do not say them. Qwen3 normalises queries
    and keys, Mistral has a window, Gemma 2 one in every other layer and soft-caps, OLMo 2 an epsilon of 1e-5. Nor need
    the sizes that have a usual value: a head for each n_embd / n_head, keys and values for every head, an MLP of 8/3
    n_embd in whole 64s, the embedding as head. Raises ValueError for a setting that the family does not have.
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
    if isinstance(given.get("full_layers"), list):
        given["full_layers"] = tuple(given["full_layers"])
    own = own_traits(family, given.get("n_layer", LlamaConfig.n_layer))
    wanted = LlamaConfig(**usual_sizes(given) | own | given)
    few: Any = of_depth(wanted, min(wanted.n_layer, MANY))                  # its file has a line for each
    found = replace(parse_llama(settings_of(few, np.float32, None), f"model.family={family}"), n_layer=wanted.n_layer)
    for name in given:
        if getattr(found, name) != getattr(wanted, name):
            raise ValueError(f"model.{name} must be {getattr(found, name)!r} in family {family}, whose files cannot "
                             f"say otherwise: got {given[name]!r}")
    return found


def own_traits(family: str, n_layer: int) -> dict[str, Any]:
    """What the files of a family mean that do not say these traits (llama_files.ABSENT and windows_of)."""
    few: Any = of_depth(LlamaConfig(family=family, n_layer=n_layer), min(n_layer, MANY))
    settings = settings_of(few, np.float32, None)
    found = parse_llama({key: value for key, value in settings.items() if key not in TRAITS.values()}, family)
    return {name: getattr(found, name) for name in TRAITS}


def usual_sizes(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the sizes that are given suggest for those that are not."""
    sizes = {name: given[name] for name in ("n_head", "n_embd") if name in given}
    c = LlamaConfig(**sizes | {"n_kv_head": given.get("n_head", LlamaConfig.n_head)})
    return {"n_kv_head": c.n_head, "head_dim": c.n_embd // c.n_head, "n_inner": 64 * -(-8 * c.n_embd // 192),
            "tied": True}


def load_model(directory: AnyPath, ops: Ops | None = None, dtype: DTypeLike = np.float32,
               weights: str | None = None) -> Any:
    """The model of a directory, ours or of transformers, by its config.json's model_type: a GPT or a Llama, which
    answer to the same calls; see GPT.from_pretrained. Or of a GGUF file, by its architecture."""
    if is_gguf(directory):
        config, params = read_gguf(directory, dtype)
        model = model_class(config)(config, ops=ops, params=params)
        return quantize(model, weights) if weights else model
    family = FAMILIES.get(stored_type(directory), GPT)                      # GPT: says what is wrong
    return family.from_pretrained(directory, ops, dtype, weights)


def load(directory: AnyPath, backend: str | dict = "auto", dtype: DTypeLike = np.float32,
         adapter: AnyPath | None = None) -> tuple[Any, Tokenizer]:
    """(model, Tokenizer) of a run directory, of a transformers directory with tokenizer.json, or of a GGUF file.

    adapter: a directory with a LoRA adapter, which is merged into the model; its own tokenizer, where it has one, takes
    the place of the model's, and its ends of a text join the model's.
    Raises FileNotFoundError for what is missing, and ValueError for files that are broken or do not belong together.
    """
    if not (is_gguf(directory) or Path(directory).is_dir()):
        kind = "a file, but not named *.gguf" if Path(directory).is_file() else "there is no such directory"
        raise FileNotFoundError(f"{directory}: {kind}; a model's directory holds config.json, model.safetensors and "
                                "tokenizer.json")
    home = directory if adapter is None else tokenizer_home(adapter, directory)
    tokenizer = read_tokenizer(home) if is_gguf(home) else Tokenizer.from_pretrained(home)
    model = load_model(directory, select(backend), dtype)
    if adapter is not None:
        model = load_adapter(model, adapter).merged()
    if tokenizer.vocab_size > model.config.vocab_size:
        forget_without_rows(tokenizer, model.config.vocab_size, home, None if adapter is None else directory)
    if tokenizer.vocab_size < model.config.vocab_size:
        model.known = tokenizer.vocab_size
    tell_ends(tokenizer, directory, home)
    if adapter is not None and (end := role_id(tokenizer, "eos_token")) is not None:
        tokenizer.ends |= {end}                                         # which it has learned, whatever its base had
    return model, tokenizer


def tell_ends(tokenizer: Tokenizer, *directories: AnyPath) -> None:
    """Let the tokenizer know what the files of models say of the end of a text."""
    tokenizer.ends |= {end for directory in directories for end in named_ends(directory, tokenizer.vocab_size).eos}
    if tokenizer.eot_token is None:
        tokenizer.eot_token = min(tokenizer.ends, default=None)


def forget_without_rows(tokenizer: Tokenizer, size: int, home: AnyPath, base: AnyPath | None) -> None:
    """Take from the tokenizer the special tokens that a model of `size` ids has no rows for: mostly a pad token that
    was added without resizing. Their texts are ordinary text then, which is said. Raises ValueError for others, and for
    an adapter's tokenizer, whose tokens its `base` should have rows for."""
    beyond = {text: id for text, id in tokenizer.special_tokens.items() if id >= size}
    if base is not None or len(beyond) < tokenizer.vocab_size - size:
        raise ValueError(f"{home}: the tokenizer has {tokenizer.vocab_size} ids, the model"
                         + (f" only {size}" if base is None else
                            f" in {base} only {size}, and the adapter brings no embedding for the others: it was "
                            f"trained on {read_json(adapter_folder(home) / ADAPTED).get('base_model_name_or_path')}"))
    warnings.warn(f"{home}: the model has no embedding for {', '.join(beyond)} of its tokenizer, which is left out: "
                  "its text is ordinary text (minillm train --init gives it a row)", stacklevel=3)
    tokenizer.special_tokens = {text: id for text, id in tokenizer.special_tokens.items() if id < size}
    tokenizer.vocab_size = size


def tokenizer_home(adapter: AnyPath, directory: AnyPath) -> AnyPath:
    """Where an adapter's tokenizer lies: beside it, or in the run of ours that it lies in, or else with the model."""
    folder = adapter_folder(adapter)
    places = [folder, folder.parent] if folder.name == FOLDER else [folder]
    return next((place for place in places if (place / "tokenizer.json").exists()), directory)


def is_gguf(path: AnyPath) -> bool:
    """Is it a file of llama.cpp's form? A directory's name may end so, too."""
    return str(path).endswith(".gguf") and not Path(path).is_dir()


def named_ends(directory: AnyPath, vocab_size: int) -> TextEnds:
    """What ends and what begins a text by a model's files: eos_token_id, one or a list, and bos_token_id of
    generation_config.json, or else of config.json."""
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


def described(directory: AnyPath) -> tuple[str, ModelConfig, Shapes]:
    """(its family's name, its configuration, {parameter: shape}) of the model in a directory, by config.json alone."""
    if is_gguf(directory):
        config = read_config(directory)
        return ("GPT-2" if isinstance(config, GPTConfig) else config.family.capitalize(), config,
                model_class(config).shapes(config))
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
