"""Directories of Llama and its kin, as transformers writes them: config.json and model.safetensors.

What config.json asks for and we do not compute is refused by its name.
"""
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import LlamaConfig
from ..storage.atomic import AnyPath, write_json
from ..storage.safetensors import write_safetensors
from ..tokenizer.roles import EndOfText
from .params import HEAD, Params, Shapes
from .pretrained import CONFIG, LAYOUT, MODEL, differences, read_json, read_tensors, token_ids, write_ends
from .rope import scaled_frequencies

EMBEDDING = "model.embed_tokens.weight"
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "qwen3": "Qwen3ForCausalLM", "olmo2": "Olmo2ForCausalLM", "gemma": "GemmaForCausalLM",
                 "gemma2": "Gemma2ForCausalLM"}
GEMMAS = ("gemma", "gemma2")
NAMES = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads",
         "head_dim": "head_dim", "n_embd": "hidden_size", "n_inner": "intermediate_size",
         "block_size": "max_position_embeddings", "vocab_size": "vocab_size", "norm_eps": "rms_norm_eps",
         "tied": "tie_word_embeddings"}
SUPPORTED: dict[str, tuple] = {         # key: values whose meaning we compute; the first is what an absent key means
    "hidden_act": ("silu",), "attention_dropout": (0.0,), "pretraining_tp": (1,), "quantization_config": (None,),
    "use_bidirectional_attention": (None, False)}
TANH = "gelu_pytorch_tanh"
OF_FAMILY: dict[Any, dict[str, tuple]] = {
    "gemma": {"hidden_act": (TANH, "gelu"), "hidden_activation": (None, TANH)},     # an old "gelu" means it
    "gemma2": {"hidden_act": (TANH, "gelu"), "hidden_activation": (TANH,)}}
ABSENT: dict[str, dict[str, Any]] = {   # what transformers takes for a key that is absent, where its families differ
    "qwen3": {"head_dim": 128}, "olmo2": {"rms_norm_eps": 1e-5, "pad_token_id": 1},
    "gemma": {"head_dim": 256, "tie_word_embeddings": True, "pad_token_id": 0},
    "gemma2": {"head_dim": 256, "tie_word_embeddings": True, "pad_token_id": 0, "query_pre_attn_scalar": 256,
               "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}}
# The norms of a block: of attention's input and output, of the MLP's input and output.
USUAL_NORMS = ("input_layernorm", "", "post_attention_layernorm", "")
NORMS = {"olmo2": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
         "gemma2": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                    "post_feedforward_layernorm")}
OF_GEMMA2 = {"query_size": "query_pre_attn_scalar", "attention_cap": "attn_logit_softcapping",
             "logit_cap": "final_logit_softcapping"}
# What a family's config.json has no word for: the one value that transformers computes in it.
NO_GEMMA2 = {name: 0.0 for name in OF_GEMMA2}
NO_WINDOW: dict[str, Any] = {"window": 0, "full_layers": ()}
FIXED: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False, **NO_WINDOW, **NO_GEMMA2},
    "mistral": {"qk_norm": False, "full_layers": (), "qkv_bias": False, "o_bias": False, "mlp_bias": False,
                **NO_GEMMA2},
    "qwen2": {"qk_norm": False, "qkv_bias": True, "o_bias": False, "mlp_bias": False, **NO_GEMMA2},
    "qwen3": {"qk_norm": True, "mlp_bias": False, **NO_GEMMA2},
    "olmo2": {"qk_norm": True, "mlp_bias": False, **NO_WINDOW, **NO_GEMMA2},
    "gemma": {"qk_norm": False, "mlp_bias": False, **NO_WINDOW, **NO_GEMMA2},
    "gemma2": {"qk_norm": False, "mlp_bias": False}}
MOST_LAYERS = 10000                     # that any file has; a longer list of their kinds need not be made
SLIDING, FULL = "sliding_attention", "full_attention"


def llama_shapes(config: LlamaConfig) -> Shapes:
    """{name: shape} of every parameter, in reading order; weights are stored (out, in)."""
    c, q, kv = config, config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    shapes: Shapes = {EMBEDDING: (c.vocab_size, c.n_embd)}
    for i in range(c.n_layer):
        at, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        before, after, *of_mlp = [{f"model.layers.{i}.{name}.weight": (c.n_embd,)} if name else {}
                                  for name in NORMS.get(c.family, USUAL_NORMS)]
        shapes |= before
        for name, width, bias in (("q_proj", q, c.qkv_bias), ("k_proj", kv, c.qkv_bias), ("v_proj", kv, c.qkv_bias)):
            shapes |= projection_shapes(f"{at}.{name}", width, c.n_embd, bias)
        if c.qk_norm:
            whole = c.family == "olmo2"
            shapes |= {f"{at}.q_norm.weight": (q if whole else c.head_dim,),
                       f"{at}.k_norm.weight": (kv if whole else c.head_dim,)}
        shapes |= projection_shapes(f"{at}.o_proj", c.n_embd, q, c.o_bias) | after | of_mlp[0]
        for name in ("gate_proj", "up_proj"):
            shapes |= projection_shapes(f"{mlp}.{name}", c.n_inner, c.n_embd, c.mlp_bias)
        shapes |= projection_shapes(f"{mlp}.down_proj", c.n_embd, c.n_inner, c.mlp_bias) | of_mlp[1]
    shapes["model.norm.weight"] = (c.n_embd,)
    return shapes if c.tied else shapes | {HEAD: (c.vocab_size, c.n_embd)}


def projection_shapes(name: str, out: int, width: int, bias: bool) -> Shapes:
    return {f"{name}.weight": (out, width)} | ({f"{name}.bias": (out,)} if bias else {})


def read_llama(directory: AnyPath, dtype: DTypeLike = np.float32) -> tuple[LlamaConfig, Params]:
    """Read a directory of ours or of transformers; returns (LlamaConfig, Params of `dtype`).

    Raises FileNotFoundError for a missing file, ValueError for a damaged one, a configuration that is not computed
    here (the key is named), missing, unexpected or misshaped tensors, and weights that are NaN or infinite.
    """
    directory = Path(directory)
    settings = read_json(directory / CONFIG)
    config = parse_llama(settings, directory / CONFIG)
    tensors = {name: array for name, array in read_tensors(directory, prefix="").items()
               if not name.endswith("rotary_emb.inv_freq")}             # angles that older files saved as weights
    if config.tied:
        head = tensors.pop(HEAD, None)
        if head is not None and not np.array_equal(head, tensors.get(EMBEDDING, head), equal_nan=True):
            raise ValueError(f"{directory}: {HEAD} differs from {EMBEDDING}, though tie_word_embeddings is true")
    return config, checked_params(tensors, config, directory, dtype)


def checked_params(tensors: Mapping[str, np.ndarray], config: LlamaConfig, directory: Path,
                   dtype: DTypeLike) -> Params:
    if config.n_layer > len(tensors):
        raise ValueError(f"{directory}: num_hidden_layers = {config.n_layer} in {CONFIG}, but only {len(tensors)} "
                         "tensors")
    found, expected = {name: array.shape for name, array in tensors.items()}, llama_shapes(config)
    if found != expected:
        raise ValueError(f"{directory}: the tensors are not those of {CONFIG}:\n" + differences(expected, found))
    params = Params(expected, dtype)
    for name, array in params.items():
        if tensors[name].dtype.kind != "f":
            raise ValueError(f"{directory}: tensor {name!r} has dtype {tensors[name].dtype}: expected floating point")
        with np.errstate(over="ignore", invalid="ignore"):              # what does not fit becomes infinite
            array[:] = tensors[name]
        if not np.isfinite(array).all():
            raise ValueError(f"{directory}: tensor {name!r} holds NaN or infinity in {params.flat.dtype}")
    return params


# config.json

def parse_llama(settings: Mapping[str, Any], path: AnyPath) -> LlamaConfig:
    """A dict of transformers' form as LlamaConfig. Raises ValueError naming file and key for what we do not compute."""
    family = settings.get("model_type")
    if family not in ARCHITECTURES:
        raise ValueError(f"{path}: model_type = {family!r} is not supported: expected gpt2 or one of "
                         f"{', '.join(ARCHITECTURES)}")
    for key, allowed in (SUPPORTED | OF_FAMILY.get(family, {})).items():
        if settings.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{path}: {key} = {settings[key]!r} is not supported: expected {allowed[0]!r}")
    values = with_defaults(settings)
    if missing := [key for key in NAMES.values() if values.get(key) is None]:
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    bias = bool(settings.get("attention_bias", False))
    theta, scaling = rope_settings(settings)
    try:
        window, full_layers = windows_of(settings)
        said = {name: values[key] for name, key in NAMES.items()} | {
            name: values.get(key) or 0.0 for name, key in OF_GEMMA2.items()} | {
            "window": window, "full_layers": full_layers, "qkv_bias": bias, "o_bias": bias,
            "mlp_bias": bool(settings.get("mlp_bias", False)), "pad_token": pad_of(values)}
        config = LlamaConfig(family=family, rope_theta=theta, rope_scaling=scaling, **said | FIXED[family])
        scaled_frequencies(config)
        return config
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers takes for what is absent or null."""
    heads = settings.get("num_attention_heads")
    usual = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6} | ABSENT.get(settings["model_type"], {})
    values = usual | dict(settings)
    values["tie_word_embeddings"] = bool(values["tie_word_embeddings"])
    if not values.get("num_key_value_heads"):
        values["num_key_value_heads"] = heads
    if not values.get("head_dim") and isinstance(heads, int) and isinstance(values.get("hidden_size"), int):
        values["head_dim"] = values["hidden_size"] // max(1, heads)
    return values


def rope_settings(settings: Mapping[str, Any]) -> tuple[float, tuple]:
    """(theta, the scaling as sorted pairs) from rope_parameters, or from rope_theta and rope_scaling of older files."""
    found = dict(settings.get("rope_parameters") or settings.get("rope_scaling") or {})
    theta = found.pop("rope_theta", None) or settings.get("rope_theta") or 10000.0
    kind = found.pop("rope_type", None) or found.pop("type", None) or "default"
    found.pop("type", None)
    return float(theta), () if kind == "default" else tuple(sorted((found | {"rope_type": kind}).items()))


def pad_of(values: Mapping[str, Any]) -> int:
    pad = values.get("pad_token_id")
    return pad if type(pad) is int and 0 <= pad else -1


def windows_of(settings: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """(how many tokens a query sees, 0 for all; the layers where it sees all nevertheless). Raises ValueError for
    layers of a kind that the family does not have."""
    family, kinds = settings["model_type"], settings.get("layer_types")
    if not (family in ("mistral", "gemma2") or family in ("qwen2", "qwen3") and settings.get("use_sliding_window")):
        if set(kinds or ()) - {FULL}:
            raise ValueError(f"layer_types must be {FULL} in a {family} without a window: got {kinds}")
        return 0, ()
    window, n_layer = settings.get("sliding_window", 4096) or 0, settings["num_hidden_layers"]
    if not window or family == "mistral" or not isinstance(n_layer, int) or n_layer > MOST_LAYERS:
        return window, ()
    kinds = kinds or usual_kinds(settings, n_layer)
    if len(kinds) != n_layer or set(kinds) - {FULL, SLIDING}:
        raise ValueError(f"layer_types must be {n_layer} of {FULL} and {SLIDING}: got {kinds}")
    full = tuple(i for i, kind in enumerate(kinds) if kind == FULL)
    return (window, full) if len(full) < n_layer else (0, ())


def usual_kinds(settings: Mapping[str, Any], n_layer: int) -> list[str]:
    """What transformers takes where layer_types is absent: every other layer of Gemma 2, the last ones of Qwen."""
    if settings["model_type"] == "gemma2":
        return ([SLIDING, FULL] * n_layer)[:n_layer]
    first = min(n_layer, settings.get("max_window_layers", 28))
    return [FULL] * first + [SLIDING] * (n_layer - first)


def check_said(config: LlamaConfig) -> None:
    """Raises ValueError naming a setting that the family's config.json cannot say, so that readers would take another
    model from it."""
    family, fixed = config.family, FIXED[config.family]
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name} must be {value!r} in family {family}, whose {CONFIG} cannot say otherwise: got "
                             f"{getattr(config, name)!r}")
    if config.qkv_bias != config.o_bias and "qkv_bias" not in fixed:
        raise ValueError(f"qkv_bias and o_bias must be alike in family {family}, whose {CONFIG} has attention_bias for "
                         f"both: got {config.qkv_bias} and {config.o_bias}")


def settings_of(config: LlamaConfig, dtype: DTypeLike, eot_token: EndOfText) -> dict[str, Any]:
    """The dict that transformers' configuration is read from."""
    family = config.family
    rope = {"rope_type": "default"} | dict(config.rope_scaling) | {"rope_theta": config.rope_theta}
    settings: dict[str, Any] = {key: getattr(config, name) for name, key in NAMES.items()}
    settings |= {"model_type": family, "architectures": [ARCHITECTURES[family]],
                 "attention_dropout": 0.0, "rope_theta": config.rope_theta, "rope_parameters": rope,
                 "pad_token_id": config.pad_token if config.pad_token >= 0 else None,
                 "dtype": np.dtype(dtype).name, **token_ids(eot_token)}
    settings |= {"hidden_act": TANH, "hidden_activation": TANH} if family in GEMMAS else {"hidden_act": "silu"}
    if family in ("llama", "qwen3", "olmo2", *GEMMAS):
        settings["attention_bias"] = config.o_bias
    if family == "llama":
        settings["mlp_bias"] = config.mlp_bias
    if family == "gemma2":
        settings |= {key: float(getattr(config, name)) or None for name, key in OF_GEMMA2.items()}
        size = config.query_size or config.head_dim
        settings["query_pre_attn_scalar"] = int(size) if size == int(size) else size    # transformers 5 wants integers
    return settings | window_settings(config)


def window_settings(config: LlamaConfig) -> dict[str, Any]:
    """Which layers have a window, as the files of the family say it."""
    kinds = [SLIDING if config.window_of(i) else FULL for i in range(config.n_layer)]
    if config.family == "mistral":
        return {"sliding_window": config.window or None, "use_sliding_window": bool(config.window)}
    if config.family == "gemma2":                                       # wants a number, though no layer may use it
        return {"sliding_window": config.window or config.block_size, "layer_types": kinds}
    return {"sliding_window": config.window, "use_sliding_window": True, "layer_types": kinds,
            "max_window_layers": kinds.count(FULL)} if config.window else {}


def write_llama(directory: AnyPath, config: LlamaConfig, params: Params, eot_token: EndOfText = None) -> None:
    """Write config.json and model.safetensors, which transformers reads. Raises ValueError if they do not belong
    together, or naming a setting that the family's files cannot say, OSError as the file system does."""
    check_said(config)
    if params.shapes != llama_shapes(config):
        raise ValueError("params do not have the names and shapes that config asks for:\n"
                         + differences(llama_shapes(config), params.shapes))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / MODEL, {name: params[name] for name in params}, {"format": "pt"})
    write_json(directory / CONFIG, settings_of(config, params.flat.dtype, eot_token), **LAYOUT)
    write_ends(directory, eot_token)


def deviation(name: str, config: LlamaConfig) -> float:
    """Of the normal distribution that a matrix starts from: 0.02, less for what is added to the residual stream."""
    return 0.02 / math.sqrt(2 * config.n_layer) if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
