"""Quantization: decoding is memory-bandwidth bound, so half the bytes are twice the tokens a second.

    bfloat16   the upper half of a float32: 8 bits of precision, its range
    int8       scale = max(|w|) / 127      q = round(w / scale)       in [-127, 127], with one scale for each output
               channel of a matrix, or for each `group` of a channel's inputs
    int4       the same with 7 in place of 127: two inputs to a byte, by default one scale for each 32 of them

Rounding is to nearest. Matrices are stored so; position embeddings, LayerNorms and biases stay float32, and so does the
KV cache unless int8 is asked for (kv_cache.py). What multiplies is told by the type: `Quantized` int8 and int4 matrices
meet activations that are rounded to int8 on the way, in integer arithmetic (integer.py); `WeightOnly` ones, and
bfloat16, stand for the float32 that `dequantized` makes of them and meet float32 activations. Both are bitwise the same
on every code path, as float32 decoding is. A quantized matrix is (K, N), inputs by outputs; what is outputs by inputs
as a parameter is transposed: a Llama's matrices, and GPT-2's token embedding (V, C), since it is the head that reads
all of it.

On disk: BF16 tensors, which every reader of these families takes; or I8 tensors with their scales (G, N) as F32 beside
them, named NAME.scales, in a file and under a model_type of our own: others refuse it rather than take it for plain
weights. So do they with int4, U8 tensors of half as many inputs: of a byte the low half is the first of the two.
Source of the scheme by channels: Dettmers et al. 2022 (arXiv 2208.07339), section 2.
"""
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import GPTConfig, LlamaConfig
from ..kernels.select import Ops, choices, select
from ..ops.bfloat16 import bfloat16_bits
from ..storage.atomic import AnyPath
from ..storage.free_memory import free_bytes
from ..tokenizer.roles import EndOfText
from . import llama_files
from . import pretrained as files
from .integer import unpacked
from .panels import Matrix, Panels, aligned_pieces, all_in_panels, columns_of
from .params import Params, Shapes, gpt_shapes

WEIGHTS = ("float32", "bfloat16", "int8", "int4")
GROUPS4 = (32, 16, 8)          # inputs of a channel that share a scale, in int4, unless one says otherwise: what fits
STEP = 8                       # groups are a multiple of this: the kernels take that many rows at a time
OUT_FIRST = ("wte.", "model.", "lm_head.")      # beginnings of names of matrices that are outputs by inputs
SCALES, METHOD = ".scales", "quantization_config"
TYPES = {"minillm-int8": 8, "minillm-int4": 4}                  # model_type in config.json: bits


class Quantized(NamedTuple):
    """A matrix (K, N): int8 values with scales (G, N) float32; int4 ones, two of a column in a uint8, (K / 2, N); or
    the bits of bfloat16 as uint16, and None."""

    values: np.ndarray
    scales: np.ndarray | None
    panels: np.ndarray | None = None        # the values once more, as the compiled kernels read them at full speed


class WeightOnly(Quantized):
    """The same, to be multiplied in float32 as the matrix that it stands for."""


ARITHMETIC = {"integer": Quantized, "float": WeightOnly}            # of int8 and int4 matrices


def quantize(model: Any, weights: str = "int8", group: int = 0, arithmetic: str = "integer") -> Any:
    """The same model with its matrices stored as "int8", "int4" or "bfloat16" ("float32": as they were), to generate
    with.

    group: inputs of a channel that share a scale; 0 is all of them for int8, for int4 the first of GROUPS4 that
    fits. arithmetic: "integer" rounds activations to int8, too, for matmuls of int8 and int4 matrices; "float" does
    not. Raises ValueError unless group is a multiple of 8 that divides every matrix's inputs. Backward has no meaning
    for such a model.
    """
    if arithmetic not in ARITHMETIC:
        raise ValueError(f"arithmetic must be one of {', '.join(ARITHMETIC)}: got {arithmetic!r}")
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}: got {weights!r}")
    if group and weights not in ("int8", "int4"):
        raise ValueError(f"group is for int8 and int4 weights: got group {group} with {weights}")
    model = dequantized_model(model)
    inputs = {len(gemm_layout(name, array)) for name, array in model.params.items() if is_quantized_matrix(name, array)}
    if weights == "int4" and not group:
        group = next((size for size in GROUPS4 if not any(K % size for K in inputs)), GROUPS4[0])
    if group < 0 or group % STEP or (group and any(K % group for K in inputs)):
        raise ValueError(f"group must be 0, or a multiple of {STEP} that divides the inputs of each matrix, "
                         f"{', '.join(map(str, sorted(inputs)))}: got {group}")
    if weights == "float32":
        return model
    stores: dict[str, Any] = {"int8": partial(to_int8, group=group), "int4": partial(to_int4, group=group),
                              "bfloat16": to_bfloat16}
    kind = ARITHMETIC[arithmetic]
    params = {name: kind(*stores[weights](gemm_layout(name, array))) if is_quantized_matrix(name, array) else array
              for name, array in model.params.items()}
    return model.on(model.ops, with_panels(params, model.ops))


def with_panels(params: dict[str, Any], ops: Ops) -> dict[str, Any]:
    """The same parameters; those for integer arithmetic with their panels, where kernels read them."""
    integers = {name: value for name, value in params.items() if multiplies_integers(value)}
    if not ops.integer_panels or not integers:
        return params
    pieces = aligned_pieces([ops.integer_panel_bytes(value) for value in integers.values()], np.uint8)
    for value, piece in zip(integers.values(), pieces):
        ops.integer_panels(value, piece)
    return params | {name: value._replace(panels=piece) for (name, value), piece in zip(integers.items(), pieces)}


def in_panels(model: Any) -> Any:
    """The same model to generate with, its float32 and bfloat16 matrices in panels (panels.py), by which memory is read
    at full speed; the model itself where the kernels that decode it have no use for them. Same bits.

    Matrices of float32 that are all bfloat16, as most models' files have them, take half the memory and time, then.
    """
    ops, params = model.ops, {name: model.params[name] for name in model.names}
    kinds = {type(value) for value in params.values()}
    if not ops.panel_linear or not (ops.decode_step or ops.llama_step) or kinds - {np.ndarray, Quantized, WeightOnly}:
        return model
    matrices = {name: Matrix(value.values, False) for name, value in params.items() if isinstance(value, Quantized)
                and value.scales is None} or (float_matrices(params) if ops.backends["linear"] == "cpu" else {})
    halves = all(is_bfloat16(matrix.numbers) for matrix in matrices.values())
    needed, free = sum(matrix.numbers.size for matrix in matrices.values()) * (2 if halves else 4), free_bytes()
    if not matrices or free is not None and needed > free:
        return model
    return model.on(ops, params | all_in_panels(matrices, "bfloat16" if halves else "float32", ops))


def float_matrices(params: dict[str, Any]) -> dict[str, Matrix]:
    """The matrices of a plain float32 model."""
    return {name: Matrix(value, name.startswith(OUT_FIRST)) for name, value in params.items()
            if type(value) is np.ndarray and value.dtype == np.float32 and is_quantized_matrix(name, value)}


def is_bfloat16(matrix: np.ndarray) -> bool:
    """Is every number of it, float32 or bits, one of bfloat16?"""
    return matrix.dtype == np.uint16 or not any((row.view(np.uint32) & 0xFFFF).any() for row in matrix)


def out_of_panels(model: Any) -> Any:
    """The model that `in_panels` was given."""
    def plain(name: str, value: Any) -> Any:
        if not isinstance(value, Panels):
            return value
        matrix = columns_of(value)
        return gemm_layout(name, matrix) if value.form == "float32" else to_bfloat16(matrix)
    return model.on(model.ops, {name: plain(name, model.params[name]) for name in model.names})


def multiplies_integers(weight: Any) -> bool:
    """Does this weight meet activations that are rounded, too?"""
    return type(weight) is Quantized and weight.scales is not None


def told_of_arithmetic(weights: str, integers: bool) -> str:
    """A line on what multiplies int8 or int4 weights."""
    return f"{weights} weights, " + ("integer arithmetic: activations are rounded to int8, too" if integers else
                                     "float arithmetic: activations are not rounded")


def arithmetic_in_use(model: Any) -> str:
    """That line of a model whose weights are so; else ""."""
    weight = model.params[model.head]
    if getattr(weight, "scales", None) is None:
        return ""
    return told_of_arithmetic("int4" if weight.values.dtype == np.uint8 else "int8", multiplies_integers(weight))


def arithmetic_of(directory: AnyPath) -> str:
    """The same of a directory, by its config.json."""
    if not (bits := bits_of(directory)):
        return ""
    method = files.read_json(Path(directory) / files.CONFIG).get(METHOD)
    return told_of_arithmetic(f"int{bits}", not (isinstance(method, dict) and method.get("arithmetic") == "float"))


def default_ops(weights: str | None) -> Ops:
    """What a model loaded in this form runs on: for bfloat16, the prefill's GEMMs may be in bfloat16, too."""
    return select("cpu/bf16" if weights == "bfloat16" and "cpu/bf16" in choices("linear") else "auto")


def is_quantized_matrix(name: str, array: np.ndarray) -> bool:
    """Matrices of GEMMs are; position embeddings are added, a row at a time."""
    return array.ndim == 2 and name != "wpe.weight"


def gemm_layout(name: str, array: np.ndarray) -> np.ndarray:
    """A matrix as decoding's GEMMs read it, (K, N), inputs by outputs. And back."""
    return np.ascontiguousarray(array.T) if name.startswith(OUT_FIRST) else array


def to_int8(matrix: np.ndarray, group: int = 0) -> Quantized:
    """matrix (K, N) float32 -> Quantized int8, by groups of `group` rows (0: all K)."""
    return Quantized(*rounded(matrix, group, 127))


def to_int4(matrix: np.ndarray, group: int = 0) -> Quantized:
    """The same to int4: K must be even."""
    values, scales = rounded(matrix, group, 7)
    return Quantized((values[::2] & 15 | values[1::2] << 4).view(np.uint8), scales)


def rounded(matrix: np.ndarray, group: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """matrix (K, N) -> whole numbers in [-most, most] (K, N) int8, and scales (G, N)."""
    K, N = matrix.shape
    groups = matrix.reshape(-1, group or K, N)                          # (G, group, N)
    scales = np.abs(groups).max(axis=1) / np.float32(most)              # (G, N)
    safe = np.where(scales > 0, scales, 1)                              # a channel of zeros stays zeros
    return np.clip(np.rint(groups / safe[:, None]), -most, most).astype(np.int8).reshape(K, N), scales


def to_bfloat16(matrix: np.ndarray) -> Quantized:
    """matrix (K, N) float32 -> Quantized bfloat16."""
    return Quantized(bfloat16_bits(matrix), None)


def dequantized(matrix: Any, columns: slice | np.ndarray = slice(None)) -> np.ndarray:
    """The float32 matrix (K, N), or some columns of it, that a Quantized one stands for, or one in panels; a plain
    array is itself."""
    if isinstance(matrix, Panels):
        return columns_of(matrix, columns)
    if not isinstance(matrix, Quantized):
        return matrix
    values = matrix.values[:, columns]
    if matrix.scales is None:
        return (values.astype(np.uint32) << 16).view(np.float32)
    if values.dtype == np.uint8:                                        # (K / 2, N) -> (K, N), with their signs
        values = unpacked(values)
    scales = matrix.scales[:, columns]
    return (values.reshape(len(scales), -1, values.shape[1]) * scales[:, None]).reshape(values.shape)


def dequantized_model(model: Any) -> Any:
    """A plain model with exactly the weights that a quantized one stands for; a plain one is itself."""
    if isinstance(model.params, Params):
        return model
    params = Params(model.shapes(model.config))
    for name, array in params.items():
        array[:] = gemm_layout(name, dequantized(model.params[name]))
    return model.on(model.ops, params)


def outputs_of(matrix: Quantized | Panels) -> int:
    return matrix.outputs if isinstance(matrix, Panels) else matrix.values.shape[1]


def gathered(wte: Quantized | Panels, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows (U, C) of the embedding that tokens name, and tokens as places among them."""
    V = outputs_of(wte)
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens must be an array of integers: got {tokens.dtype}")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < V:
        raise ValueError(f"tokens must be in [0, {V}): got {tokens.min()} to {tokens.max()}")
    used, places = np.unique(tokens, return_inverse=True)
    return np.ascontiguousarray(dequantized(wte, used).T), places.reshape(tokens.shape)


# ---- files --------------------------------------------------------------------------------------------------------

def save_quantized(directory: AnyPath, model: Any, eot_token: EndOfText = None) -> None:
    """Write config.json and model.safetensors of a quantized model, for `load_model`. Makes the directory."""
    model, llama = out_of_panels(model), isinstance(model.config, LlamaConfig)
    if llama:
        llama_files.check_said(model.config)
    tensors, bits, arithmetic = {}, 0, "integer"
    for name, value in model.params.items():
        tensors[name] = gemm_layout(name, value.values) if isinstance(value, Quantized) else value
        if isinstance(value, Quantized) and value.scales is not None:
            tensors[name + SCALES], bits = value.scales, 4 if value.values.dtype == np.uint8 else 8
            arithmetic = "float" if isinstance(value, WeightOnly) else arithmetic
    settings = (llama_files if llama else files).settings_of(model.config, np.float32, eot_token)
    if bits:
        method = {"quant_method": "minillm", "bits": bits, "arithmetic": arithmetic,
                  "model_type": settings["model_type"]}
        settings |= {METHOD: method, "model_type": f"minillm-int{bits}", "architectures": [f"MinillmInt{bits}"]}
    files.write_directory(directory, tensors, settings if bits else settings | {"dtype": "bfloat16"},
                          file_of(bits) if bits else files.MODEL, "" if llama else files.PREFIX)
    files.write_ends(directory, eot_token)


def file_of(bits: int) -> str:
    return f"model.int{bits}.safetensors"


def load_weights_as(cls: Any, read: Callable, directory: AnyPath, ops: Ops | None, dtype: Any,
                    weights: str | None) -> Any:
    """from_pretrained of a family: read(directory, dtype) -> (its configuration, Params) of a plain directory."""
    if is_quantized(directory):
        config, matrices = read_quantized(directory)
        model = cls(config, ops=ops, params=with_panels(matrices, ops or select("auto")))
        return model if weights in (None, f"int{bits_of(directory)}") else quantize(model, weights)
    config, params = read(directory, dtype if weights is None else np.float32)
    model = cls(config, ops=ops or default_ops(weights), params=params)
    return model if weights is None else quantize(model, weights)


def is_quantized(directory: AnyPath) -> bool:
    """Did `save_quantized` write int8 or int4 here?"""
    return bits_of(directory) > 0


def bits_of(directory: AnyPath) -> int:
    """8 or 4, or 0 for plain weights, by config.json."""
    model_type = files.read_json(Path(directory) / files.CONFIG).get("model_type")
    return TYPES.get(model_type, 0) if isinstance(model_type, str) else 0


def stored_type(directory: AnyPath) -> str:
    """model_type of a directory's config.json; of the model that was quantized, where `save_quantized` wrote it."""
    settings = files.read_json(Path(directory) / files.CONFIG)
    method = settings.get(METHOD) if bits_of(directory) else settings
    return str((method if isinstance(method, dict) else settings).get("model_type"))


def read_quantized(directory: AnyPath) -> tuple[GPTConfig | LlamaConfig, dict]:
    """(configuration, {name: Quantized or array}) of a directory with int8 or int4 weights.

    Raises FileNotFoundError, and ValueError naming the tensor that is wrong.
    """
    directory = Path(directory)
    path = directory / files.CONFIG
    settings = files.read_json(path)
    method, bits = settings.pop(METHOD, None), bits_of(directory)
    if not isinstance(method, dict) or (method.get("quant_method"), method.get("bits")) != ("minillm", bits):
        raise ValueError(f"{path}: {METHOD} = {method!r} is not supported: expected minillm's {bits} bits")
    arithmetic = method.get("arithmetic", "integer")                    # files from before it was written
    if not isinstance(arithmetic, str) or arithmetic not in ARITHMETIC:
        raise ValueError(f"{path}: {METHOD} has arithmetic {arithmetic!r}: expected one of {', '.join(ARITHMETIC)}")
    kind, tensors = ARITHMETIC[arithmetic], {}
    config, shapes, tensors = of_family(settings | {"model_type": stored_type(directory)}, path, file_of(bits))
    if bits == 4:
        shapes = {name: halved(name, shape) if len(shape) == 2 and name != "wpe.weight" else shape
                  for name, shape in shapes.items()}
    plain = {name: array.shape for name, array in tensors.items() if not name.endswith(SCALES)}
    if plain != shapes:
        raise ValueError(f"{directory}: the tensors are not those of {files.CONFIG}:\n"
                         + files.differences(shapes, plain))
    return config, {name: kind(*read_matrix(directory, name, tensors)) if is_quantized_matrix(name, tensors[name]) else
                    checked(directory, name, tensors[name], np.float32) for name in shapes}


def halved(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an int4 matrix in its file: half of the inputs."""
    return (shape[0], shape[1] // 2) if name.startswith(OUT_FIRST) else (shape[0] // 2, shape[1])


def of_family(settings: dict, path: Path,
              model: str) -> tuple[GPTConfig | LlamaConfig, Shapes, dict[str, np.ndarray]]:
    """(configuration, shapes of its parameters, the tensors of its file) by the settings of a config.json."""
    llama = settings["model_type"] in llama_files.ARCHITECTURES
    config: Any = (llama_files.parse_llama if llama else files.parse_config)(settings, path)
    tensors = files.read_tensors(path.parent, model, "" if llama else files.PREFIX)
    if config.n_layer > len(tensors):                       # before a list is made of a mistyped billion of names
        raise ValueError(f"{path}: {config.n_layer} layers, but only {len(tensors)} tensors in {model}")
    return config, llama_files.llama_shapes(config) if llama else gpt_shapes(config), tensors


def read_matrix(directory: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """One matrix and its scales."""
    four = tensors[name].dtype == np.uint8
    values = gemm_layout(name, checked(directory, name, tensors[name], np.uint8 if four else np.int8))
    K, N = values.shape[0] * (2 if four else 1), values.shape[1]
    scales = tensors.get(name + SCALES)
    if scales is None:
        raise ValueError(f"{directory}: tensor {name + SCALES!r} is missing")
    scales = checked(directory, name + SCALES, scales, np.float32)
    groups = len(scales) if scales.ndim == 2 and scales.shape[1] == N else 0
    if groups < 1 or K % groups or (groups > 1 and K // groups % STEP):
        raise ValueError(f"{directory}: tensor {name + SCALES!r} has shape {scales.shape}: expected (G, {N}), a scale "
                         f"for each of G groups of a multiple of {STEP} of the {K} inputs")
    return Quantized(values, scales)


def checked(directory: Any, name: str, array: Any, dtype: Any) -> np.ndarray:
    """A copy of the array in memory. Raises ValueError for another dtype, and for NaN or infinity."""
    if array.dtype != dtype:
        raise ValueError(f"{directory}: tensor {name!r} has dtype {array.dtype}: expected {np.dtype(dtype)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{directory}: tensor {name!r} holds NaN or infinity")
    return np.array(array)
