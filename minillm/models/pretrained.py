"""Hugging Face model directories: config.json and model.safetensors, with the names and layouts of transformers' GPT-2.

So `GPT2LMHeadModel.from_pretrained(directory)` opens ours, and we open theirs.
"""
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig
from ..storage.atomic import AnyPath, write_json
from ..storage.safetensors import parse_json_object, read_safetensors, write_safetensors
from ..tokenizer.roles import EndOfText, as_ends
from .params import HEAD, Params, gpt_shapes

Array = np.ndarray

CONFIG, MODEL, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
LAYOUT: dict[str, Any] = {"indent": 2, "end": "\n"}      # of JSON, as transformers writes it
PREFIX = "transformer."
WRAPPERS = re.compile(r"((_orig_mod|module)\.)*")      # what torch.compile and data-parallel training put before names
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")   # causal masks that older transformers saved as weights
TO_HUGGING_FACE = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "block_size": "n_positions",
                   "vocab_size": "vocab_size", "dropout": "resid_pdrop", "layer_norm_epsilon": "layer_norm_epsilon",
                   "activation": "activation_function", "n_inner": "n_inner", "tied": "tie_word_embeddings",
                   "scale_attn_weights": "scale_attn_weights",
                   "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx"}
ALIASES = {"n_embd": ("hidden_size",), "n_layer": ("num_hidden_layers",), "n_head": ("num_attention_heads",),
           "n_positions": ("max_position_embeddings", "n_ctx")}
OPTIONAL = {"resid_pdrop": 0.1, "layer_norm_epsilon": 1e-5,   # what transformers takes when they are absent
            "activation_function": "gelu_new", "n_inner": None, "tie_word_embeddings": True,
            "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
SAME = {"gelu_pytorch_tanh": "gelu_new", "gelu_python_tanh": "gelu_new", "gelu_fast": "gelu_new",   # one formula
        "gelu_accurate": "gelu_new", "gelu_python": "gelu"}
# Keys that a GPT-2 does not have, and which announce what is not computed here, unless they say no. Whatever else is in
# config.json changes nothing (transformers keeps much there); reorder_and_upcast_attn changes the order of sums alone.
FOREIGN = re.compile("|".join("""rope rotary alibi ^position_embedding relative_att softcap qk_ query_pre multi_query
    kv_head head_kv key_value_head sliding window attention_sink expert moe normali[sz]ation norm_type rms_?norm
    parallel_(attn|residual) logit_scale (attention|embedding|residual)_multiplier""".split()))
USUAL = {"absolute", "learned", "learned_absolute", "layernorm", "layer_norm", "default", "none"}   # what a GPT-2 has
SUPPORTED: dict[str, tuple] = {   # key: the values whose meaning we compute; the first is what an absent key means
    "model_type": ("gpt2",),
    "add_cross_attention": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}


def write_model(directory: AnyPath, config: GPTConfig, params: Params, eot_token: EndOfText = None) -> None:
    """Write `config.json` and `model.safetensors` as transformers does. The directory is made if need be.

    params keeps its dtype (float32 or float64). eot_token: id of the end-of-text token, recorded as bos and eos, or
    TextEnds.
    Each file is replaced in one step; use storage/directories.py where both must change together.
    Raises ValueError if the parameters are not those of `config`, OSError as the file system does.
    """
    if params.shapes != gpt_shapes(config):
        raise ValueError("params do not have the names and shapes that config asks for:\n"
                         + differences(gpt_shapes(config), params.shapes))
    write_directory(directory, params, settings_of(config, params.flat.dtype, eot_token))
    write_ends(directory, eot_token)


def write_directory(directory: AnyPath, tensors: Mapping[str, np.ndarray], settings: dict, model: str = MODEL,
                    prefix: str = PREFIX) -> None:
    """The two files from {name: array}, without lm_head.weight where that is wte, and the dict of config.json."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    named = {name if name.startswith(HEAD) else prefix + name: tensors[name] for name in tensors}
    write_safetensors(directory / model, named, {"format": "pt"})
    write_json(directory / CONFIG, settings, **LAYOUT)


def read_model(directory: AnyPath, dtype: DTypeLike = np.float32) -> tuple[GPTConfig, Params]:
    """Read a directory of ours or of transformers' `save_pretrained`; returns (GPTConfig, Params of `dtype`).

    Names may carry "transformer." or not, masks saved as weights are skipped, shards are joined. transformers has
    three dropout rates, we have one, which is resid_pdrop (see unfollowed_dropout).
    Raises FileNotFoundError for a missing file; ValueError for a damaged one, for a configuration that this model
    does not compute (the key is named), for missing, unexpected or misshaped tensors, and for a weight that is NaN or
    infinite (in `dtype`).
    """
    directory = Path(directory)
    settings = read_json(directory / CONFIG)
    config = parse_config(settings, directory / CONFIG)
    check_foreign(settings, directory / CONFIG)
    tensors = read_tensors(directory)
    check_head(tensors, config, directory)
    check_tensors(tensors, config, directory)
    params = Params(gpt_shapes(config), dtype)
    for name, array in params.items():
        with np.errstate(over="ignore", invalid="ignore"):   # what does not fit becomes infinite: found below
            array[:] = tensors[name]
        if not np.isfinite(array).all():
            raise ValueError(f"{directory}: tensor {name!r} holds NaN or infinity in {params.flat.dtype}")
    return config, params


# config.json

def settings_of(config: GPTConfig, dtype: DTypeLike, eot_token: EndOfText) -> dict:
    """The dict that transformers' GPT2Config is read from."""
    settings = {TO_HUGGING_FACE[name]: value for name, value in dataclasses.asdict(config).items()}
    return settings | {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_ctx": config.block_size,
        "n_inner": config.n_inner or None, "embd_pdrop": config.dropout, "attn_pdrop": config.dropout,
        "dtype": np.dtype(dtype).name, **token_ids(eot_token),
    }


def token_ids(ends: EndOfText) -> dict:
    """What config.json says of the end of a text: one id, which every reader understands."""
    eos, bos = as_ends(ends)
    return {"bos_token_id": bos, "eos_token_id": eos[0] if eos else None}


def write_ends(directory: AnyPath, ends: EndOfText) -> None:
    """Write generation_config.json, which names all ends where there are several; one of before would be wrong."""
    eos, bos = as_ends(ends)
    if len(eos) > 1:
        write_json(Path(directory) / GENERATION, {"bos_token_id": bos, "eos_token_id": list(eos)}, **LAYOUT)
    elif eos:
        (Path(directory) / GENERATION).unlink(missing_ok=True)


def check_foreign(settings: dict, path: AnyPath) -> None:
    """Raise ValueError naming a setting that says of a model that it is no GPT-2, whatever its model_type."""
    for key, value in settings.items():
        if value and FOREIGN.search(key) and str(value).lower() not in USUAL:
            raise ValueError(f"{path}: {key} = {value!r} is not supported: GPT-2 has no such setting")


def parse_config(settings: dict, path: AnyPath) -> GPTConfig:
    """A dict of transformers' form as GPTConfig. Raises ValueError naming file and key for what we do not compute."""
    for key, allowed in SUPPORTED.items():
        if settings.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{path}: {key} = {settings[key]!r} is not supported: expected {allowed[0]!r}")
    values = OPTIONAL | settings
    values |= {"n_inner": values["n_inner"] or 0,
               "activation_function": SAME.get(str(values["activation_function"]), values["activation_function"])}
    for key, others in ALIASES.items():
        found = [values[name] for name in (key, *others) if values.get(name) is not None]
        if key not in values and found:
            values[key] = found[0]
    missing = [key for key in TO_HUGGING_FACE.values() if key not in values]
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    try:
        config = GPTConfig(**{name: values[key] for name, key in TO_HUGGING_FACE.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error} (there block_size is called n_positions, dropout resid_pdrop, activation "
                         "activation_function, tied tie_word_embeddings)") from None
    return config


def unfollowed_dropout(directory: AnyPath) -> str:
    """What a GPT-2's config.json says of dropout that training here does otherwise, in one line; "" if nothing.

    What the embedding and the sublayers put into the residual stream is dropped at one rate, resid_pdrop; attention's
    probabilities are never dropped.
    """
    path = Path(directory) / CONFIG
    settings = read_json(path) if path.exists() else {"model_type": None}
    if settings.get("model_type", "gpt2") != "gpt2":
        return ""
    rate, embedding, attention = (settings.get(f"{name}_pdrop", OPTIONAL["resid_pdrop"]) or 0
                                  for name in ("resid", "embd", "attn"))
    others = [f"embd_pdrop {embedding}, for the embedding has the same rate"] * (embedding != rate) + [
        f"attn_pdrop {attention}, for attention drops nothing"] * (attention != 0)
    return f"dropout     {rate}, resid_pdrop of {path}; not followed: {'; '.join(others)}" if others else ""


# model.safetensors

def read_tensors(directory: Path, model: str = MODEL, prefix: str = PREFIX) -> dict[str, np.ndarray]:
    """{name: array} of a model, names without the prefix, masks left out."""
    tensors: dict[str, np.ndarray] = {}
    for name, array in read_shards(directory, model).items():
        short = WRAPPERS.sub("", name, count=1).removeprefix(prefix)
        if short in tensors:
            raise ValueError(f"{directory}: tensor {short!r} is there with and without {prefix!r}")
        if not BUFFERS.fullmatch(short):
            tensors[short] = array
    return tensors


def read_shards(directory: Path, model: str = MODEL) -> dict[str, np.ndarray]:
    """{name: array} from model.safetensors, or from the shards that model.safetensors.index.json lists."""
    if (directory / model).exists():
        return read_safetensors(directory / model)[0]
    if not (directory / INDEX).exists():
        raise FileNotFoundError(f"{directory / model}: no such file, nor {INDEX}" + pickled(directory))
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(is_file_name(shard) for shard in weight_map.values()):
        raise ValueError(f"{directory / INDEX}: weight_map must map tensors to names of files beside it")
    for shard in sorted(set(weight_map.values())):
        if not (directory / shard).is_file():
            raise FileNotFoundError(f"{directory / shard}: no such file, but {INDEX} names it")
    shards = {shard: read_safetensors(directory / shard)[0] for shard in set(weight_map.values())}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise ValueError(f"{directory / shard}: tensor {name!r} is missing, {INDEX} says it is here")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def is_file_name(name: object) -> bool:
    """One step and no more: neither ../x, /x, C:\\x nor x/y leads out of the directory."""
    return (isinstance(name, str) and name not in ("", ".", "..") and len(name.encode(errors="replace")) < 256
            and name.isprintable() and not set(name) & set("/\\:"))


def pickled(directory: Path) -> str:
    """The end of an error where the weights are there, but in a form that can run code when it is opened."""
    if not (directory / "pytorch_model.bin").exists():
        return ""
    return "; pytorch_model.bin is a pickle, which is not read here: save the model again with safe_serialization=True"


def check_head(tensors: dict[str, Array], config: GPTConfig, directory: Path) -> None:
    """Where the output head is the token embedding, it may be there once more: takes it out of `tensors`."""
    head = tensors.pop(HEAD, None) if config.tied else None
    wte: Any = tensors.get("wte.weight")
    if head is not None and not np.array_equal(head, wte, equal_nan=True):
        raise ValueError(f"{directory}: {HEAD} differs from wte.weight, so the head is untied: {CONFIG} must say "
                         "tie_word_embeddings = false")


def check_tensors(tensors: dict[str, Array], config: GPTConfig, directory: Path) -> None:
    """Exactly the parameters that `config` asks for, in their shapes, of floating point."""
    check_shapes(tensors, config, directory)
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{directory}: tensor {name!r} has dtype {array.dtype}: expected floating point")


def check_shapes(tensors: dict[str, Array], config: GPTConfig, directory: Path) -> None:
    """The layers are counted before a list of names is made for a mistyped billion of them."""
    if config.n_layer > len(tensors):
        raise ValueError(f"{directory}: n_layer = {config.n_layer} in {CONFIG}, but only {len(tensors)} tensors")
    found, expected = {name: array.shape for name, array in tensors.items()}, gpt_shapes(config)
    if found != expected:
        said = ", ".join([f"n_inner = {config.n_inner}"] * bool(config.n_inner)
                         + ["tie_word_embeddings = false"] * (not config.tied))
        with_these = f" (with {said})" if said else ""
        raise ValueError(f"{directory}: the tensors are not those of {CONFIG}{with_these}:\n"
                         + differences(expected, found))


def differences(expected: dict[str, Any], found: dict[str, Any], limit: int = 10) -> str:
    """The lines of an error: each name whose shape differs, with both shapes."""
    lines = [f"  {name}: expected {expected.get(name, 'nothing of that name')}, found {found.get(name, 'none')}"
             for name in expected | found if expected.get(name) != found.get(name)]
    return "\n".join(lines[:limit] + [f"  and {len(lines) - limit} more"] * (len(lines) > limit))


def read_json(path: Path) -> dict:
    """A JSON object from a file. Raises FileNotFoundError, or ValueError naming the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file: expected a checkpoint directory that holds it")
    return parse_json_object(path.read_bytes(), str(path))
