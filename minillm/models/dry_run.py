"""A dry run: the model's own forward and backward on arrays that have shapes but no memory, to know a step beforehand.

A `Shape` is a NumPy array of any size whose numbers are all one and the same zero. The ops of `dry_ops` check nothing
and compute nothing; they return Shapes, as the C signatures of the op table say, and remember what the backward reads.
So FLOPs and bytes come from gpt2.py or llama.py itself, line by line, as its variables come and go: there is no second
description of the model to keep in step with it. `metered` counts the FLOPs of any namespace, of real ops too.
"""
import inspect
import math
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..kernels.arrays import SMALL
from ..kernels.select import OPS, Dims, Ops, Spec, functions
from ..ops.table import REFERENCE
from .kv_cache import KVCache
from .load import model_class
from .params import Shapes, block_matrices

ARRAYS = "arrays"                                       # Meter.most: of all that ops make, activations and logits
HALF = np.dtype(np.uint16)                              # of numbers that are kept as bfloat16
ROUNDED = {"linear": {"x"}, "attention": {"qkv", "out"}, "mlp": {"x", "h"},            # what cpu/bf16 keeps so
           "projection": {"x"}, "grouped_attention": {"q", "k", "v", "out"}, "linear_cross_entropy": {"x"}}
KEPT_LOGITS = 1 << 26                                   # at most, of all rows or of some times ROWS
ROWS = 1024                                             # of a block of the kernels' GEMM


class Meter:
    """What a run takes: FLOPs by (op, phase); bytes alive by category, now, at most, and when their sum was most."""

    def __init__(self) -> None:
        self.flops: Counter = Counter()
        self.bytes: Counter = Counter()
        self.most: Counter = Counter()
        self.at_peak: Counter = Counter()
        self.going_back = False

    def take(self, category: str, size: int) -> None:
        self.bytes[category] += size
        now = {category: self.bytes[category], ARRAYS: self.bytes.total() - self.bytes["gradients"]}
        self.most |= {name: max(count, self.most[name]) for name, count in now.items()}
        if self.bytes.total() > self.at_peak.total():
            self.at_peak = self.bytes.copy()

    def give(self, category: str, size: int) -> None:
        self.bytes[category] -= size

    def times(self, factor: float) -> "Meter":
        """As if everything were so many times as much."""
        other = Meter()
        for name in ("flops", "bytes", "most", "at_peak"):
            setattr(other, name, Counter({key: int(factor * n) for key, n in getattr(self, name).items()}))
        return other

    def phase(self, name: str) -> str:
        """forward, backward, update; recomputation for a forward between two backwards."""
        if name in ("embedding_forward", "token_embedding_forward"):
            self.going_back = False
        if name.endswith("_backward"):
            self.going_back = True
            return "backward"
        return "update" if name in UPDATES else "recomputation" if self.going_back else "forward"


UPDATES = {name for spec in OPS.values() if spec.kind in ("update", "reduce") for name in functions(spec)}


class Memory:
    """So many bytes of the meter's, until nobody refers to them any more."""

    def __init__(self, meter: Meter, category: str, size: int):
        self.meter, self.category, self.size = meter, category, size
        meter.take(category, size)
        weakref.finalize(self, meter.give, category, size).atexit = False


class Shape(np.ndarray):
    """An array of zeros that takes no memory, and the `memory` that it would take: views share it."""

    memory: Memory | None

    def __array_finalize__(self, source: Any) -> None:
        self.memory = getattr(source, "memory", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        if method != "__call__":
            return 0.0                                                  # the sum of zeros
        if "out" in settings:
            return settings["out"][0]
        meter = next((x.memory.meter for x in inputs if isinstance(x, Shape) and x.memory), None)
        return shape_of(np.broadcast_shapes(*(np.shape(x) for x in inputs)), self.dtype, meter)


def shape_of(shape: tuple, dtype: Any = np.float32, meter: Meter | None = None, category: str = "activations") -> Shape:
    """A Shape, whose bytes the meter counts while it lives."""
    dtype = np.dtype(dtype)
    made = np.ndarray.__new__(Shape, shape, dtype, np.zeros(1, dtype), strides=(0,) * len(shape))
    if meter:
        made.memory = Memory(meter, category, math.prod(shape) * dtype.itemsize)
    return made


class DryGradients(Mapping):
    """Gradients that are claimed when they are asked for, as those of params.py; a small buffer is there at once."""

    def __init__(self, shapes: Shapes, meter: Meter):
        self.shapes, self.meter, self.claimed = shapes, meter, set()
        if 4 * sum(map(math.prod, self.shapes.values())) < SMALL:
            list(self.values())

    def __getitem__(self, name: str) -> Shape:
        if name not in self.claimed:
            self.claimed.add(name)
            self.meter.take("gradients", 4 * math.prod(self.shapes[name]))
        return shape_of(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


# ---- sizes of a call, by the letters of the C signature ----

def sizes_of(spec: Spec, arguments: Mapping) -> dict[str, int]:
    """{"B": 4, "T": 256, ...} of the arrays in a call."""
    sizes = {}
    for argument in spec.signatures()[0].inputs:
        shape = np.shape(arguments.get(argument.name, ()))
        if (more := len(shape) - len(argument.shape)) > 0:              # a flat op, such as dropout; heads as rows
            shape = (math.prod(shape[:more + 1]), *shape[more + 1:])
        for letter, size in zip(argument.shape, shape):
            factor, name = factor_of(letter)
            sizes.setdefault(name, size // factor)
    if "n_head" in arguments:
        sizes["NH"] = int(arguments["n_head"])
    return sizes


def dims_of(sizes: Mapping) -> Dims:
    """The sizes as Spec.flops reads them. Rows that are not cut into sequences are one long one."""
    given = {letter: sizes[letter] for letter in Dims._fields if letter in sizes}
    given |= {"C": sizes["NH"] * sizes["HS"]} if "HS" in sizes else {}
    rows = {} if "T" in sizes else {"B": 1, "T": sizes.get("N", 1)}
    return Dims(**{"B": 1, "C": 1, "NH": 1, "V": 1} | rows | given)


def size_by(letters: tuple, sizes: Mapping) -> tuple[int, ...]:
    """("B", "T", "3C") -> a shape."""
    return tuple(factor * sizes[name] for factor, name in map(factor_of, letters))


def factor_of(letter: str) -> tuple[int, str]:
    """"3C" -> (3, "C")"""
    name = letter.lstrip("0123456789")
    return int(letter.removesuffix(name) or 1), name


# ---- namespaces ----

def metered(ops: Ops, meter: Meter) -> Ops:
    """The same namespace, in which every call adds the FLOPs of the op table at the shapes it is called with."""
    return ops._replace(**{name: counted(getattr(ops, name), spec, name, meter)
                           for spec in OPS.values() for name in functions(spec)})


def counted(function: Callable, spec: Spec, name: str, meter: Meter) -> Callable:
    names = list(inspect.signature(REFERENCE[name]).parameters)

    def forward(*args: Any, **more: Any) -> Any:
        for call in each_call(args):
            dims = dims_of(sizes_of(spec, dict(zip(names, call)) | more))
            meter.flops[spec.name, meter.phase(name)] += spec.flops(dims)[0]
        found = function(*args, **more)
        return (found[0], (dims, found[1])) if spec.kind == "pair" else found

    def backward(dout: Any, cache: tuple, **into: Any) -> Any:
        meter.flops[spec.name, meter.phase(name)] += spec.flops(cache[0])[1]
        return function(dout, cache[1], **into)
    return backward if name.endswith("_backward") else forward


def each_call(args: tuple) -> list[tuple]:
    """The arguments; of an update of a list of matrices, those of each."""
    if not isinstance(args[0], list):
        return [args]
    return [tuple(arg[i] if isinstance(arg, list) else arg for arg in args) for i in range(len(args[0]))]


def dry_ops(ops: Ops, meter: Meter) -> Ops:
    """A namespace of the same names that computes nothing; it keeps what the kernels of `ops` would keep."""
    dry: dict[str, Callable] = {}
    for spec in OPS.values():
        if spec.kind == "pair" and len(spec.c) == 2:
            dry |= zip(functions(spec), (dry_forward(spec, ops.backends[spec.name], meter), dry_backward(spec, meter)))
        elif spec.kind == "decode":
            dry[spec.name] = dry_decode(spec, meter)
    return ops._replace(**dry)


def dry_forward(spec: Spec, backend: str, meter: Meter) -> Callable:
    names = list(inspect.signature(REFERENCE[functions(spec)[0]]).parameters)
    first, last = spec.signatures()
    outputs = [argument for argument in last.inputs if re.match("d(out|sum)", argument.name)]
    wanted = [argument.name for argument in last.inputs[len(outputs):]]

    def forward(*args: Any, **more: Any) -> Any:
        arguments = dict(zip(names, args)) | more
        sizes = sizes_of(spec, arguments)
        for place, result in enumerate(first.results):
            flat = result.shape == first.inputs[0].shape == ("N",)                          # number by number
            like = arguments[first.inputs[0].name].shape if flat else None
            half = place >= len(outputs) and rounds(spec, result.name, backend)         # never there in float32
            arguments[result.name] = shape_of(like or size_by(result.shape, sizes), HALF if half else np.float32, meter)
        out = tuple(arguments[result.name] for result in first.results[:len(outputs)])
        cache = {name: kept(spec, name, arguments[name], backend, meter) for name in wanted
                 if isinstance(arguments.get(name), np.ndarray)}
        cache |= more_kept(spec, sizes, backend, meter)
        return out if len(out) > 1 else out[0], (sizes, arguments.get("x", out[0]).shape, cache)
    return forward


def kept(spec: Spec, name: str, array: np.ndarray, backend: str, meter: Meter) -> np.ndarray:
    """An array as the cache has it: itself, or a rounded copy."""
    return shape_of(array.shape, HALF, meter) if rounds(spec, name, backend) and array.dtype != HALF else array


def rounds(spec: Spec, name: str, backend: str) -> bool:
    return backend == "cpu/bf16" and name in ROUNDED.get(spec.name, ())


def more_kept(spec: Spec, sizes: Mapping, backend: str, meter: Meter) -> dict[str, Shape]:
    """What caches hold beyond the inputs of the C signature: logits as long as they are few; NumPy's probabilities."""
    if spec.name == "linear_cross_entropy" and backend in ("cpu", "cpu/bf16"):
        rows, fitting = sizes["N"], KEPT_LOGITS // sizes["V"]
        rows = rows if rows <= fitting else fitting // ROWS * ROWS
        return {"logits": shape_of((rows, sizes["V"]), HALF if backend == "cpu/bf16" else np.float32, meter, "logits")}
    if backend == "numpy" and spec.name in ("attention", "grouped_attention"):
        return {"P": shape_of((sizes["B"], sizes["NH"], sizes["T"], sizes["T"]), meter=meter)}
    if backend == "numpy" and spec.name == "mlp":
        return {"a": shape_of((sizes["B"], sizes["T"], sizes["OC"]), meter=meter)}
    return {}


def dry_backward(spec: Spec, meter: Meter) -> Callable:
    last = spec.signatures()[1]
    fresh = {argument.name: argument.shape for argument in last.results if not argument.added}

    def backward(dout: Any, cache: tuple, into: Any = None) -> Any:
        sizes, like, _ = cache
        made = {name: shape_of(like if shape == ("N",) else size_by(shape, sizes), meter=meter)
                for name, shape in fresh.items()}
        grads = tuple(made.get("dx" if name in spec.shared_gradient else f"d{name}") for name in spec.differentiable)
        return grads if len(grads) > 1 else grads[0]
    return backward


def dry_decode(spec: Spec, meter: Meter) -> Callable:
    names, (first,) = list(inspect.signature(REFERENCE[spec.name]).parameters), spec.signatures()

    def decode(*args: Any) -> Shape:
        sizes = sizes_of(spec, dict(zip(names, args)))
        sizes["C"] = sizes.get("C", sizes.get("NH", 1) * sizes.get("HS", 1))
        return shape_of(size_by(first.results[0].shape, sizes), meter=meter)
    return decode


class DryCache(KVCache):
    """A KV cache of `lengths` tokens a row and no memory."""

    def __init__(self, config: ModelConfig, batch_size: int, length: int = 0):
        self.n_head, self.batch_size = config.n_head, batch_size
        self.lengths = np.full(batch_size, length)
        self.keys = self.values = shape_of((batch_size, config.n_kv_head, config.block_size, config.head_dim))

    def attend(self, ops: Ops, layer: int, rows: np.ndarray, qkv: np.ndarray) -> np.ndarray:
        B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        q = shape_of((B, self.n_head, T, C // self.n_head))
        return self.append_and_attend(ops, layer, rows, q, q, q)

    def append_and_attend(self, ops: Ops, layer: int, rows: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray,
                          window: int = 0, *others: Any) -> np.ndarray:
        B, n_kv_head, T, size = k.shape
        S = int(self.lengths[0]) + T
        seen = shape_of((B, n_kv_head, min(S, T + window - 1) if window else S, size))
        return ops.attention_decode(q, seen, seen)


# ---- runs ----

def dry_model(config: ModelConfig, ops: Ops, meter: Meter, recompute: bool = False) -> Any:
    """A GPT or Llama on a dry namespace, its parameters Shapes that the meter does not count."""
    kind = model_class(config)
    params = {name: shape_of(shape) for name, shape in kind.shapes(config).items()}
    model = kind(config, ops=metered(dry_ops(ops, meter), meter), params=params)
    model.recompute = recompute
    return model


def dry_step(config: ModelConfig, ops: Ops, batch: int, recompute: bool = False,
             optimizer: str = "adamw") -> Meter:
    """The Meter of one training step of one micro-batch: forward and backward, the norm and the update."""
    meter, shapes = Meter(), model_class(config).shapes(config)
    model, grads = dry_model(config, ops, meter, recompute), DryGradients(shapes, meter)
    learn: Any = model.loss_and_grads                                   # of other Params than it says
    tokens = np.zeros((batch, config.block_size), np.int64)
    learn(tokens, tokens, key=(0, 0, 0), grads=grads, count=tokens.size)
    numbers = sum(map(math.prod, shapes.values()))
    meter.flops["sum_squares", "update"] += OPS["sum_squares"].flops(Dims(N=numbers))[0]
    for name, parts in (block_matrices(shapes) if optimizer == "muon" else {}).items():
        rows, columns = shapes[name]
        meter.flops["muon", "update"] += parts * OPS["muon"].flops(Dims(C=rows, OC=columns // parts))[0]
        numbers -= rows * columns
    meter.flops["adamw", "update"] += OPS["adamw"].flops(Dims(N=numbers))[0]
    return meter
