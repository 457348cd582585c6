"""GGUF, llama.cpp's one file of weights, configuration and tokenizer; matrices whole or in blocks of 4 or 8 bits.

The `gguf` package reads and writes the container and rounds to its types; here stand the names. Vectors, and GPT-2's
positions, stay float32, since they are added and not multiplied. In q8_0 and q4_0 a block of 32 numbers shares one
scale, so a row that is no multiple of 32 stays float16. With q4_0 the token embedding and the head are q8_0: the head
reads every row of it for every token, and is the matrix that suffers most.

llama.cpp rotates neighbours in a head where Hugging Face's Llama rotates its two halves: the rows of q and k are
reordered for the architecture "llama", and not for the others, which llama.cpp computes by halves, too. Gemma's norms
count from 1 in Hugging Face's files, and from 0 in these. llama.cpp divides Gemma 2's scores by a root that it takes
from the sizes: where the model has another (query_size), the rest of it is multiplied into q.
Source: ggml's specification of the format, docs/gguf.md of ggml-org/ggml.
"""
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig, LlamaConfig
from ..storage.atomic import AnyPath, atomic_write
from ..tokenizer import Tokenizer
from .gguf_tokenizer import read_vocabulary, write_vocabulary
from .llama_files import EMBEDDING, GEMMAS, NORMS, USUAL_NORMS, llama_shapes
from .params import Params, Shapes, gpt_shapes
from .pretrained import HEAD
from .rope import scaled_frequencies

FORMS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}     # ours -> gguf's names
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2}                     # general.file_type
BLOCK = 32                                          # numbers that share a scale
GPT2_NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output",
              "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
              "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
LLAMA_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
               "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
               "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
               "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
               "mlp.down_proj": "ffn_down"}
BLOCK_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")     # in the order of llama_files.NORMS
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "olmo2": "olmo2",
                 "gemma": "gemma", "gemma2": "gemma2"}                      # ours -> llama.cpp's
SIZES = {"n_layer": "block_count", "n_head": "attention.head_count", "n_embd": "embedding_length",
         "block_size": "context_length"}
ROPE_FACTORS = "rope_freqs.weight"                  # what llama3's scaling divides each pair's frequency by
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}     # of every Llama 3 of Meta's; `factor` differs
LAYERS_27B = 46                                     # of Gemma 2's largest
YARN = {"rope_type", "factor", "original_max_position_embeddings"}


def gguf_package() -> Any:
    """The package gguf, or a clear ImportError."""
    try:
        import gguf
    except ImportError:
        raise ImportError("GGUF files need the package gguf: pip install 'minillm[gguf]'") from None
    return gguf


# ---- names

def their_name(name: str, config: GPTConfig | LlamaConfig) -> str:
    """Of one of our parameters: h.0.attn.c_attn.weight and model.layers.0.... -> blk.0.attn_qkv.weight."""
    stem, kind = name.rsplit(".", 1)
    block = re.fullmatch(r"(?:h|model\.layers)\.(\d+)\.(.+)", stem)
    names = GPT2_NAMES if isinstance(config, GPTConfig) else LLAMA_NAMES | dict(
        zip(NORMS.get(config.family, USUAL_NORMS), BLOCK_NORMS))
    return f"blk.{block[1]}.{names[block[2]]}.{kind}" if block else f"{names[stem]}.{kind}"


def stored(name: str, array: np.ndarray, config: GPTConfig | LlamaConfig, back: bool = False) -> np.ndarray:
    """A tensor of ours in their layout, or back: GPT-2's matrices are transposed, Llama's q and k reordered, Gemma's
    norms counted from 0, Gemma 2's q multiplied (what is read back has its scale in it)."""
    if isinstance(config, GPTConfig):
        return array.T if array.ndim == 2 and name.startswith("h.") else array
    if config.family in GEMMAS and name.endswith("norm.weight"):
        return array - 1 if back else 1 + array
    part = re.search(r"self_attn\.([qk])_proj\.", name)
    if part and part[1] == "q" and config.query_size and not back:
        return array * math.sqrt(their_query_size(config) / config.query_size)
    if not part or ARCHITECTURES[config.family] != "llama":
        return array
    heads, half = {"q": config.n_head, "k": config.n_kv_head}[part[1]], config.head_dim // 2
    split = (heads, half, 2) if back else (heads, 2, half)
    return array.reshape(*split, -1).swapaxes(1, 2).reshape(array.shape)


def their_query_size(config: LlamaConfig) -> float:
    """By whose root llama.cpp divides Gemma 2's scores: head_dim, but in the model of 27B, known by its depth."""
    return float(config.n_embd // config.n_head if config.n_layer == LAYERS_27B else config.head_dim)


def form_of(name: str, array: np.ndarray, form: str) -> str:
    """In which of gguf's types a tensor is stored."""
    if array.ndim < 2 or name == "wpe.weight":
        return "F32"
    if form == "q4_0" and name in ("wte.weight", EMBEDDING, HEAD):
        form = "q8_0"
    return "F16" if form.startswith("q") and array.shape[-1] % BLOCK else FORMS[form]


# ---- writing

def write_gguf(path: AnyPath, model: Any, tokenizer: Tokenizer, form: str = "f16", name: str = "minillm",
               chat_template: str | None = None) -> dict[str, int]:
    """Write a model and its tokenizer as one file; returns how many tensors have which type. model: plain weights.

    Raises ImportError without the package gguf; ValueError for another form, and naming what llama.cpp cannot compute.
    """
    if form not in FORMS:
        raise ValueError(f"gguf must be one of {', '.join(FORMS)}: got {form!r}")
    gguf, config = gguf_package(), model.config
    counts: dict[str, int] = {}
    metadata = settings_of(config, form, name)
    with atomic_write(path, "wb") as file:
        writer = gguf.GGUFWriter(f"/dev/fd/{file.fileno()}", metadata.pop("general.architecture"))
        for key, value in metadata.items():
            add(writer, key, value)
        write_vocabulary(writer, tokenizer, config.vocab_size, chat_template)
        for theirs, array, kind in tensors_of(model, form):
            counts[kind] = counts.get(kind, 0) + 1
            type = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(theirs, gguf.quants.quantize(array, type), raw_dtype=type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return counts


def add(writer: Any, key: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
             list: writer.add_array}
    kinds[type(value)](key, value)


def tensors_of(model: Any, form: str) -> Iterator[tuple[str, np.ndarray, str]]:
    """(their name, array, gguf's type) of every tensor."""
    config, names = model.config, list(model.params)
    if isinstance(config, LlamaConfig) and config.family == "olmo2" and config.tied:
        names.append(HEAD)                              # llama.cpp wants one of its own there
    for name in names:
        source = name if name in model.params else EMBEDDING
        array = np.ascontiguousarray(stored(name, model.params[source], config), np.float32)
        kind = form_of(name, array, form)
        if kind == "F16" and np.abs(array).max() > np.finfo(np.float16).max:
            raise ValueError(f"{name} has weights beyond float16: use --gguf bf16 or f32")
        yield their_name(name, config), array, kind
    if isinstance(config, LlamaConfig) and dict(config.rope_scaling).get("rope_type") == "llama3":
        yield ROPE_FACTORS, rope_factors(config), "F32"


def rope_factors(config: LlamaConfig) -> np.ndarray:
    """(HS / 2,) float32: what the frequency of each pair is divided by."""
    half = config.head_dim // 2
    return (config.rope_theta ** (-np.arange(half) / half) / scaled_frequencies(config)[0]).astype(np.float32)


def settings_of(config: GPTConfig | LlamaConfig, form: str, name: str) -> dict[str, Any]:
    """The metadata of a model. Raises ValueError naming what this format cannot say, or llama.cpp not compute."""
    arch, own = ("gpt2", gpt_settings(config)) if isinstance(config, GPTConfig) else llama_settings(config)
    sizes = {key: getattr(config, field) for field, key in SIZES.items()}
    return {f"{arch}.{key}": value for key, value in (sizes | own).items()} | {
        "general.architecture": arch, "general.name": name, "general.file_type": FILE_TYPES[form],
        "general.quantization_version": 2}


def gpt_settings(config: GPTConfig) -> dict[str, Any]:
    """The keys of a GPT-2. Raises ValueError for what llama.cpp does not compute in one."""
    usual = GPTConfig()
    for name in ("activation", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
        if getattr(config, name) != getattr(usual, name):
            raise ValueError(f"{name} = {getattr(config, name)} is not computed by llama.cpp in a GPT-2: only "
                             f"{getattr(usual, name)}")
    return {"feed_forward_length": config.mlp_width, "attention.layer_norm_epsilon": config.layer_norm_epsilon}


def llama_settings(config: LlamaConfig) -> tuple[str, dict[str, Any]]:
    """(llama.cpp's name of the architecture, its keys). Raises ValueError for what it does not compute in that."""
    check_computed(config)
    return ARCHITECTURES[config.family], rope_of(config) | {
        "vocab_size": config.vocab_size, "feed_forward_length": config.n_inner,
        "attention.head_count_kv": config.n_kv_head, "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim, "rope.dimension_count": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps} | (gemma2_settings(config) if config.family == "gemma2"
                                                                else {})


def check_computed(c: LlamaConfig) -> None:
    """Raises ValueError naming the first trait that llama.cpp does not compute in the model's architecture."""
    arch, gemma2 = ARCHITECTURES[c.family], c.family == "gemma2"
    whole, cap = c.n_head * c.head_dim == c.n_embd, "it always divides by it" if gemma2 else "only 0.0"
    lacking = {
        "window": (not gemma2 and 0 < c.window < c.block_size,
                   f"a sliding window is gemma2's alone; up to {c.window} tokens the model is the same without it "
                   f"(max_position_embeddings = {c.window} in config.json)"),
        "head_dim": (arch in ("qwen2", "olmo2") and not whole, f"only n_embd / n_head = {c.n_embd / c.n_head:g}"),
        "tied": (c.family in GEMMAS and not c.tied, "its head is always the token embedding"),
        "qk_norm": (c.qk_norm != (arch in ("qwen3", "olmo2")), f"only {not c.qk_norm}"),
        "o_bias": (c.o_bias and arch != "llama", "only False"),
        "mlp_bias": (c.mlp_bias and arch != "llama", "only False"),
        "attention_cap": (gemma2 != (c.attention_cap > 0), cap), "logit_cap": (gemma2 != (c.logit_cap > 0), cap),
        "query_size": (c.query_size > 0 and c.family not in GEMMAS, "only 0.0"),
        "rope_scaling": (dict(c.rope_scaling).get("rope_type") == "llama3" and arch != "llama", "only linear or yarn")}
    for name, (found, reason) in lacking.items():
        if found:
            raise ValueError(f"{name} = {getattr(c, name)} is not computed by llama.cpp in its architecture {arch}: "
                             f"{reason}")


def gemma2_settings(config: LlamaConfig) -> dict[str, Any]:
    """The keys of caps and windows; which layers have one is said where it is not every other, from the first on."""
    usual, windows = every_other(config.n_layer), [config.window_of(i) > 0 for i in range(config.n_layer)]
    window = config.window if any(windows) else config.block_size      # so long that it is none
    return {"attention.sliding_window": window, "attn_logit_softcapping": float(config.attention_cap),
            "final_logit_softcapping": float(config.logit_cap)} | (
        {} if not any(windows) or windows == usual else {"attention.sliding_window_pattern": windows})


def every_other(n_layer: int) -> list[bool]:
    return [i % 2 == 0 for i in range(n_layer)]


def rope_of(config: LlamaConfig) -> dict[str, Any]:
    """The keys of rotary positions; llama3's scaling goes into the tensor rope_freqs.weight, and for the way back into
    keys that llama.cpp does not read."""
    scaling: dict[str, Any] = dict(config.rope_scaling)
    settings: dict[str, Any] = {"rope.freq_base": config.rope_theta}
    kind = scaling.get("rope_type", "default")
    if kind == "llama3":
        return settings | {f"rope.scaling.llama3.{key}": scaling[key] for key in LLAMA3 if key != "rope_type"}
    if kind == "default":
        return settings
    if kind == "yarn" and set(scaling) - YARN:
        raise ValueError(f"rope_scaling of type yarn with {', '.join(sorted(set(scaling) - YARN))} cannot be exported")
    settings |= {"rope.scaling.type": kind, "rope.scaling.factor": float(scaling["factor"])}
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings") or config.block_size
        settings["rope.scaling.original_context_length"] = original
    return settings


# ---- reading

def read_gguf(path: AnyPath, dtype: DTypeLike = np.float32) -> tuple[GPTConfig | LlamaConfig, Params]:
    """(configuration, parameters) of a GGUF file of GPT-2 or a kin of Llama, in whatever types its tensors are.

    Raises FileNotFoundError, ImportError without the package gguf, and ValueError naming what is wrong or not known.
    """
    reader = open_gguf(path)
    try:
        config = config_of(reader)
        shapes = gpt_shapes(config) if isinstance(config, GPTConfig) else llama_shapes(config)
        return config, read_params(reader, config, shapes, dtype)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: not a usable GGUF file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_config(path: AnyPath) -> GPTConfig | LlamaConfig:
    """The configuration alone, without its weights; raises as `read_gguf`."""
    try:
        return config_of(open_gguf(path))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: not a usable GGUF file: {error}") from None


def read_tokenizer(path: AnyPath) -> Tokenizer:
    """The tokenizer of a GGUF file, as `Tokenizer.from_pretrained` of a directory."""
    reader = open_gguf(path)
    try:
        return read_vocabulary(lambda key: value(reader, key))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def open_gguf(path: AnyPath) -> Any:
    """gguf's reader of one whole file."""
    gguf, path = gguf_package(), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:                      # of a damaged file it raises whatever its parsing meets
        raise ValueError(f"{path}: not a GGUF file, or a damaged one: {error}") from None
    if (value(reader, "split.count") or 1) > 1:
        raise ValueError(f"{path}: one part of several: join them first (llama-gguf-split --merge)")
    return reader


def value(reader: Any, key: str, default: Any = None) -> Any:
    """The value of a metadata key; of a float32 the shortest decimal that it stands for."""
    field = reader.get_field(key)
    found = default if field is None else field.contents()
    return float(str(np.float32(found))) if isinstance(found, float) else found


def config_of(reader: Any) -> GPTConfig | LlamaConfig:
    """The configuration. Raises ValueError naming what is missing or not computed here."""
    arch = value(reader, "general.architecture")
    if arch != "gpt2" and arch not in ARCHITECTURES.values():
        raise ValueError(f"general.architecture = {arch!r} is not supported: expected gpt2 or one of "
                         f"{', '.join(dict.fromkeys(ARCHITECTURES.values()))}")

    def get(key: str, default: Any = None) -> Any:
        found = value(reader, f"{arch}.{key}", default)
        if found is None:
            raise ValueError(f"missing {arch}.{key}")
        return found
    sizes = {field: get(key) for field, key in SIZES.items()}
    shapes = {tensor.name: tuple(int(n) for n in tensor.shape[::-1]) for tensor in reader.tensors}
    sizes["vocab_size"] = shapes["token_embd.weight"][0]
    if arch == "gpt2":
        width, usual = get("feed_forward_length", 0), 4 * sizes["n_embd"]
        return GPTConfig(**sizes, layer_norm_epsilon=get("attention.layer_norm_epsilon"),
                         n_inner=0 if width == usual else width, tied=not separate_head(reader))
    bias: dict[str, Any] = {f"{ours}_bias": f"blk.0.{theirs}.bias" in shapes
            for ours, theirs in (("qkv", "attn_q"), ("o", "attn_output"), ("mlp", "ffn_up"))}
    if arch == "olmo2" and value(reader, "olmo2.attention.sliding_window"):
        raise ValueError("olmo2.attention.sliding_window is OLMo 3's, which is not supported")
    kv_heads, head_dim = get("attention.head_count_kv", sizes["n_head"]), sizes["n_embd"] // sizes["n_head"]
    config = LlamaConfig(**sizes, **bias, family=arch, n_kv_head=kv_heads, n_inner=get("feed_forward_length"),
                         head_dim=get("attention.key_length", head_dim),
                         norm_eps=get("attention.layer_norm_rms_epsilon"), rope_theta=get("rope.freq_base", 10000.0),
                         rope_scaling=scaling_of(reader, arch), qk_norm="blk.0.attn_q_norm.weight" in shapes,
                         tied=not separate_head(reader))
    return replace(config, **gemma2_traits(config, get)) if arch == "gemma2" else config


def gemma2_traits(config: LlamaConfig, get: Callable) -> dict[str, Any]:
    """Caps, windows and the size of queries, by llama.cpp's rules where the file does not say them."""
    pattern = get("attention.sliding_window_pattern", 2)
    if isinstance(pattern, int):                        # every so many layers, the last of them sees all
        pattern = [pattern == 0 or i % pattern < pattern - 1 for i in range(config.n_layer)]
    return {"attention_cap": get("attn_logit_softcapping", 50.0), "logit_cap": get("final_logit_softcapping", 30.0),
            "query_size": their_query_size(config), "window": get("attention.sliding_window", 4096),
            "full_layers": tuple(i for i, windowed in enumerate(pattern) if not windowed)}


def separate_head(reader: Any) -> bool:
    """Is there an output.weight other than the token embedding? Many files hold a tied one twice."""
    found = {tensor.name: tensor for tensor in reader.tensors}
    head, wte = found.get("output.weight"), found["token_embd.weight"]
    return head is not None and not (head.tensor_type == wte.tensor_type and np.array_equal(head.data, wte.data))


def scaling_of(reader: Any, arch: str) -> tuple:
    """LlamaConfig.rope_scaling. Raises ValueError for factors that are not those of a known Llama 3."""
    kind = value(reader, f"{arch}.rope.scaling.type", "none")
    found: dict[str, Any] = {}
    if kind in ("linear", "yarn"):
        found = {"rope_type": kind, "factor": value(reader, f"{arch}.rope.scaling.factor")}
        if kind == "yarn" and (original := value(reader, f"{arch}.rope.scaling.original_context_length")):
            found["original_max_position_embeddings"] = original
    elif kind != "none":
        raise ValueError(f"{arch}.rope.scaling.type = {kind!r} is not supported: expected linear or yarn")
    factors = [tensor for tensor in reader.tensors if tensor.name == ROPE_FACTORS]
    if factors:
        usual = LLAMA3 | {"factor": float(np.max(factors[0].data))}
        found = {key: value(reader, f"{arch}.rope.scaling.llama3.{key}", usual[key]) for key in usual}
    return tuple(sorted(found.items()))


def read_params(reader: Any, config: GPTConfig | LlamaConfig, shapes: Shapes, dtype: DTypeLike) -> Params:
    """Every parameter, made whole from blocks where it was stored so. Raises ValueError naming the tensor."""
    quants = gguf_package().quants
    found = {tensor.name: tensor for tensor in reader.tensors}
    wanted = {their_name(name, config): name for name in shapes}
    if difference := set(found) - {ROPE_FACTORS, "output.weight"} ^ set(wanted) - {"output.weight"}:
        raise ValueError(f"the tensors are not those of its metadata: {', '.join(sorted(difference)[:4])}")
    params = Params(shapes, dtype)
    for theirs, name in wanted.items():
        tensor = found[theirs]
        try:
            array = quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ValueError(f"{theirs} is of type {kind}, which the package gguf cannot read") from None
        params[name][...] = stored(name, array.reshape(stored(name, params[name], config).shape), config, back=True)
        if not np.isfinite(params[name]).all():
            raise ValueError(f"{theirs} holds NaN or infinity")
    if ROPE_FACTORS in found and isinstance(config, LlamaConfig):
        check_factors(rope_factors(config), found[ROPE_FACTORS].data)
    return params


def check_factors(ours: np.ndarray, theirs: np.ndarray) -> None:
    if not np.allclose(ours, theirs, rtol=1e-4):
        raise ValueError(f"the factors of {ROPE_FACTORS} are not those of a Llama 3: not supported")
