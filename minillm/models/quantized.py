"""Weights in fewer bytes: generating a token reads all of them once, so half the bytes are twice the tokens a second.

    bfloat16   the upper half of a float32: 8 bits of precision, its range
    int8       round(w / scale) in [-127, 127], with one scale for each output channel of a matrix, or for each `group`
               of a channel's inputs: scale = largest |w| / 127

Rounding is to nearest. Matrices are stored so, position embeddings, LayerNorms and biases stay float32, and so do
activations and the cache: a stored weight counts as the float that `dense` makes of it, and everything that is said of
float32 decoding (bitwise the same by every road) holds. A stored matrix is (K, N), inputs by outputs; the token
embedding, (V, C) as a parameter, is turned to (C, V), since it is the head that reads all of it.

On disk: safetensors with I8 tensors and their scales (G, N) as F32 beside them, name + ".scales", or BF16 tensors,
which every reader of GPT-2 takes. Source of the scheme by channels: Dettmers et al. 2022 (arXiv 2208.07339), section 2.
"""
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .pretrained import (CONFIG, LAYOUT, MODEL, PREFIX, check_layers, differences, hugging_face_config, parse_config,
                         read_json, read_tensors, strip_names)
from ..storage.atomic import write_json
from .gpt2 import GPT
from ..ops.bfloat16 import bfloat16_bits
from .params import Params, gpt_shapes
from ..storage.safetensors import write_safetensors

WEIGHTS = ("float32", "bfloat16", "int8")
STEP = 8                       # groups are a multiple of this: the kernels take that many rows at a time
WTE, SCALES, METHOD = "wte.weight", ".scales", "quantization_config"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
TEXT = 300_000                 # bytes of text, at most, on which the change in bits per byte is measured


class Stored(NamedTuple):
    """A matrix (K, N): int8 values with scales (G, N) float32, or the bits of bfloat16 as uint16, and None."""

    values: np.ndarray
    scales: np.ndarray | None


def quantize(model, weights="int8", group=0):
    """The same GPT with its matrices stored as "int8" or "bfloat16" ("float32": as they were), to generate with.

    group: inputs of a channel that share a scale, for int8; 0 is all of them. Raises ValueError unless it is a multiple
    of 8 that divides every matrix's inputs. Backward has no meaning for such a model.
    """
    check(weights, group, model.config)
    model = dense_model(model)
    if weights == "float32":
        return model
    store = partial(to_int8, group=group) if weights == "int8" else to_bfloat16
    params = {name: store(as_product(name, array)) if is_stored(name, array) else array
              for name, array in model.params.items()}
    return stored_model(model.config, model.ops, params)


def stored_model(config, ops, params):
    """The GPT with these Stored parameters. Unless its ops multiply in bfloat16 as stored, it makes no floats of whole
    matrices to read a prompt, which would cost more than the prompt: the compiled step reads it in pieces."""
    model = GPT(config, ops=ops, params=params)
    backend, model.ops = model.ops.backends["linear"], stored_ops(model.ops)
    model.prompts_in_pieces = not taken_as_bits(backend, params[WTE])
    return model


def default_ops(weights):
    """What a model loaded in this form runs on: for bfloat16, prompts may be read in bfloat16 products, too."""
    from ..kernels.select import choices, select
    return select("cpu/bf16" if weights == "bfloat16" and "cpu/bf16" in choices("linear") else "auto")


def is_stored(name, array):
    """Matrices of products; position embeddings are added, a row at a time."""
    return array.ndim == 2 and name != "wpe.weight"


def as_product(name, array):
    """As the product reads it, (K, N): the embedding (V, C) is turned. And back."""
    return np.ascontiguousarray(array.T) if name == WTE else array


def to_int8(matrix, group=0):
    """matrix (K, N) float32 -> Stored int8, by groups of `group` rows (0: all K)."""
    K, N = matrix.shape
    groups = matrix.reshape(-1, group or K, N)                          # (G, group, N)
    scales = np.abs(groups).max(axis=1) / np.float32(127)               # (G, N)
    safe = np.where(scales > 0, scales, 1)                              # a channel of zeros stays zeros
    return Stored(np.clip(np.rint(groups / safe[:, None]), -127, 127).astype(np.int8).reshape(K, N), scales)


def to_bfloat16(matrix):
    """matrix (K, N) float32 -> Stored bfloat16."""
    return Stored(bfloat16_bits(matrix), None)


def dense(matrix, columns=slice(None)):
    """The float32 matrix (K, N), or some columns of it, that a Stored one counts as; a plain array is itself."""
    if not isinstance(matrix, Stored):
        return matrix
    values = matrix.values[:, columns]
    if matrix.scales is None:
        return (values.astype(np.uint32) << 16).view(np.float32)
    scales = matrix.scales[:, columns]
    return (values.reshape(len(scales), -1, values.shape[1]) * scales[:, None]).reshape(values.shape)


def dense_model(model):
    """A plain GPT with exactly the weights that a quantized one counts with; a plain one is itself."""
    if isinstance(model.params, Params):
        return model
    params = Params(gpt_shapes(model.config))
    for name, array in params.items():
        array[:] = as_product(name, dense(model.params[name]))
    return GPT(model.config, ops=model.ops, params=params)


# ---- the ops on stored matrices: what reads prompts, evaluates, and defines what the compiled step must give ----

def stored_ops(ops):
    """The namespace `ops`, whose products make floats of a Stored matrix first. The compiled step reads it as it is."""
    def embedding_forward(tokens, wte, wpe, start=0):
        if not isinstance(wte, Stored):
            return ops.embedding_forward(tokens, wte, wpe, start)
        rows, places = looked_up(tokens, wte)
        return ops.embedding_forward(places, rows, wpe, start)

    def linear_forward(x, weight, bias):
        return ops.linear_forward(x, taken(ops.backends["linear"], weight), bias)

    def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias):
        fc_weight, proj_weight = (taken(ops.backends["mlp"], weight) for weight in (fc_weight, proj_weight))
        return ops.mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias)

    def linear_cross_entropy_forward(x, wte, targets, ignore_index=-1):
        return ops.linear_cross_entropy_forward(x, turned(wte), targets, ignore_index)

    def head(x, wte):
        if not isinstance(wte, Stored):
            return ops.head(x, wte)
        return linear_forward(x, wte, np.zeros(wte.values.shape[1], np.float32))[0]       # (K, V): as it is stored

    return ops._replace(embedding_forward=embedding_forward, linear_forward=linear_forward, mlp_forward=mlp_forward,
                        linear_cross_entropy_forward=linear_cross_entropy_forward, head=head,
                        decode_step=ops.decode_step)


def taken(backend, weight):
    """A weight as the op of this backend takes it: kernels that multiply in bfloat16 take its bits, others floats."""
    return weight.values if taken_as_bits(backend, weight) else dense(weight)


def taken_as_bits(backend, weight):
    return backend == "cpu/bf16" and isinstance(weight, Stored) and weight.scales is None


def turned(wte):
    """The token embedding (V, C) as float32."""
    return np.ascontiguousarray(dense(wte).T) if isinstance(wte, Stored) else wte


def looked_up(tokens, wte):
    """The rows (U, C) of the embedding that tokens name, and tokens as places among them."""
    V = wte.values.shape[1]
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens must be an array of integers: got {tokens.dtype}")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < V:
        raise ValueError(f"tokens must be in [0, {V}): got {tokens.min()} to {tokens.max()}")
    used, places = np.unique(tokens, return_inverse=True)
    return np.ascontiguousarray(dense(wte, used).T), places.reshape(tokens.shape)


# ---- what rounding costs ------------------------------------------------------------------------------------------

def errors(model, quantized):
    """{tensor: {"error": relative, "worst": relative error of the worst channel, "channel": which}} of each stored one.

    Relative: root of the summed squares of what changed, over that of the weights.
    """
    found = {}
    for name, stored in quantized.params.items():
        if isinstance(stored, Stored):
            weight = as_product(name, dense_model(model).params[name]).astype(np.float64)
            squares, size = np.square(dense(stored) - weight).sum(axis=0), np.square(weight).sum(axis=0)
            channels = np.sqrt(squares / np.where(size > 0, size, 1))
            found[name] = {"error": float(np.sqrt(squares.sum() / (size.sum() or 1))),
                           "worst": float(channels.max()), "channel": int(channels.argmax())}
    return found


def size_of(model):
    """Bytes of all parameters as they are stored."""
    parts = [part for _, value in model.params.items() for part in (value if isinstance(value, Stored) else [value])]
    return sum(part.nbytes for part in parts if part is not None)


# ---- files --------------------------------------------------------------------------------------------------------

def save_quantized(directory, model, eot_token=None):
    """Write config.json and model.safetensors of a quantized GPT, for `GPT.from_pretrained`. Makes the directory."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors, groups = {}, {}
    for name, value in model.params.items():
        tensors[PREFIX + name] = as_product(name, value.values) if isinstance(value, Stored) else value
        if isinstance(value, Stored) and value.scales is not None:
            tensors[PREFIX + name + SCALES] = value.scales
            groups[name] = len(value.scales)
    write_safetensors(directory / MODEL, tensors, {"format": "pt"})
    settings = hugging_face_config(model.config, np.float32, eot_token)
    method = {METHOD: {"quant_method": "minillm", "bits": 8}} if groups else {"dtype": "bfloat16"}
    write_json(directory / CONFIG, settings | method, **LAYOUT)


def is_quantized(directory):
    """Did `save_quantized` write int8 here?"""
    return (read_json(Path(directory) / CONFIG).get(METHOD) or {}) == {"quant_method": "minillm", "bits": 8}


def load_quantized(directory, ops=None):
    """The GPT of a directory with int8 weights; `ops` defaults to select("auto").

    Raises FileNotFoundError, and ValueError naming the tensor that is wrong.
    """
    directory = Path(directory)
    settings = read_json(directory / CONFIG)
    config = parse_config({key: value for key, value in settings.items() if key != METHOD}, directory / CONFIG)
    tensors = strip_names(read_tensors(directory), directory)
    check_layers(tensors, config, directory)
    shapes = gpt_shapes(config)
    found = {name: array.shape for name, array in tensors.items() if not name.endswith(SCALES)}
    if found != shapes:
        raise ValueError(f"{directory}: the tensors are not those of {CONFIG}:\n" + differences(shapes, found))
    params = {name: load_stored(directory, name, tensors) if is_stored(name, tensors[name]) else
              checked(directory, name, tensors[name], np.float32) for name in shapes}
    return stored_model(config, ops, params)


def load_stored(directory, name, tensors):
    """One matrix and its scales."""
    values = as_product(name, checked(directory, name, tensors[name], np.int8))
    K, N = values.shape
    scales = tensors.get(name + SCALES)
    if scales is None:
        raise ValueError(f"{directory}: tensor {name + SCALES!r} is missing")
    scales = checked(directory, name + SCALES, scales, np.float32)
    groups = len(scales) if scales.ndim == 2 and scales.shape[1] == N else 0
    if groups < 1 or K % groups or (groups > 1 and K // groups % STEP):
        raise ValueError(f"{directory}: tensor {name + SCALES!r} has shape {scales.shape}: expected (G, {N}), a scale "
                         f"for each of G groups of a multiple of {STEP} of the {K} inputs")
    return Stored(values, scales)


def checked(directory, name, array, dtype):
    """A copy of the array in memory. Raises ValueError for another dtype, and for NaN or infinity."""
    if array.dtype != dtype:
        raise ValueError(f"{directory}: tensor {name!r} has dtype {array.dtype}: expected {np.dtype(dtype)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{directory}: tensor {name!r} holds NaN or infinity")
    return np.array(array)


# ---- `minillm quantize` -------------------------------------------------------------------------------------------

def quantize_directory(directory, out, weights="int8", group=0, data=None, backend="auto", progress=None):
    """Store a model's matrices in `weights` in the directory `out`, with its tokenizer; returns the costs as a dict.

    data: files and folders with text to measure bits per byte on (default: the run's own validation split, if it has
    one; at most TEXT bytes). Raises ValueError, FileNotFoundError.
    """
    from ..kernels.select import select
    directory, out = Path(directory), Path(out)
    if out.exists() and out.samefile(directory):
        raise ValueError(f"-o {out}: expected another directory than the model's own")
    model = GPT.from_pretrained(directory, select(backend))
    quantized = quantize(model, weights, group)
    save_quantized(out, quantized, read_json(directory / CONFIG).get("eos_token_id"))
    for name in TOKENIZER:
        if (directory / name).exists():
            shutil.copy(directory / name, out / name)
    return {"model": str(directory), "out": str(out), "weights": weights, "group": group,
            "bytes_before": size_of(model), "bytes_after": size_of(quantized), "tensors": errors(model, quantized),
            "bits_per_byte": change_in_bits(directory, data, model, quantized, progress)}


def change_in_bits(directory, data, model, quantized, progress=None):
    """{"before", "after", "change": relative, "bytes": of text}, or None where there is no text."""
    from ..evaluate.perplexity import bits_per_byte, surprises
    from ..tokenizer import Tokenizer
    if not data and not (directory / "data").is_dir():
        return None
    tokenizer = Tokenizer.from_pretrained(directory)
    texts = some_of(texts_of(directory, data, tokenizer), TEXT)
    before, after = (surprises(each, tokenizer, texts, progress) for each in (model, dense_model(quantized)))
    before_bits, after_bits = bits_per_byte(before), bits_per_byte(after)
    return {"before": before_bits, "after": after_bits, "change": after_bits / before_bits - 1,
            "bytes": sum(found.bytes for found in before)}


def texts_of(directory, data, tokenizer):
    """Documents of the files, or of the run's validation split."""
    if data:
        from ..data.sources.files import read_documents
        return (text for _, text in read_documents(data) if text.strip())
    from ..data.shards.format import open_shards, split_documents
    documents = split_documents(open_shards(directory / "data").val, tokenizer)
    return (text for text in (document.decode(errors="replace") for document in documents) if text.strip())


def some_of(texts, limit):
    """The first texts, until they have `limit` bytes; a single long one is cut."""
    found, size = [], 0
    for text in texts:
        text = text.encode()[:limit - size].decode(errors="ignore")
        if text:
            found.append(text)
        size += len(text.encode())
        if size >= limit - 4:
            break
    return found


def page(results):
    """The results for a terminal."""
    rows = [f"{'tensor':<28}{'error':>9}{'worst channel':>16}"]
    rows += [f"{name:<28}{row['error']:>9.4%}{row['worst']:>9.4%} ({row['channel']})"
             for name, row in results["tensors"].items()]
    saved = results["bytes_before"] / results["bytes_after"]
    rows.append(f"\n{results['out']}: {results['weights']}, {results['bytes_after'] / 1e6:,.1f} MB "
                f"(before: {results['bytes_before'] / 1e6:,.1f} MB, {saved:.2f} times as much)")
    bits = results["bits_per_byte"]
    rows.append(f"bits per byte on {bits['bytes']:,} bytes: {bits['before']:.4f} before, {bits['after']:.4f} after "
                f"({bits['change']:+.3%})" if bits else "bits per byte: not measured; give a text with --data")
    return "\n".join(rows)


def check(weights, group, config):
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}: got {weights!r}")
    if group and weights != "int8":
        raise ValueError(f"group is for int8 weights: got group {group} with {weights}")
    if group < 0 or group % STEP or (group and config.n_embd % group):
        raise ValueError(f"group must be 0, or a multiple of {STEP} that divides n_embd {config.n_embd}: got {group}")
