"""Arrays in, arrays out: what a bound C function is called with, and a pair of functions in the manner of ours.

`arguments` lays out one call; who makes it (this process, or a child that may crash) is another's affair.
"""
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...ops.spec import Signature
from ...ops.table import OPS, REFERENCE, functions
from .binding import Function, Slot
from .prototype import TYPES

Values = dict[str, Any]


class Memory(NamedTuple):
    """What one argument points to: an array (0-d for a number) that the function reads, or may write, too."""

    name: str
    array: np.ndarray
    written: bool


def named_values(op: str, args: Mapping[str, Any]) -> Values:
    """The op's arguments by the names of its C signature: positions from `start` on, keys as an array, NH."""
    values = dict(args)
    if "start" in values:
        start, T = values.pop("start"), values["tokens"].shape[1]
        values["wpe"] = values["wpe"][start:start + T]
    if "n_head" in values:
        values["NH"] = values.pop("n_head")
    return {name: np.array(value, np.uint64) if isinstance(value, tuple) else value for name, value in values.items()}


def sizes_of(op: str, values: Values) -> dict[str, int]:
    """The sizes that the letters of the signature stand for: x[B,T,3C] of shape (2, 5, 24) is B=2, T=5, C=8."""
    found: dict[str, int] = {name: value for name, value in values.items() if name == "NH"}
    signature = OPS[op].signatures()[0]
    for argument in (*signature.inputs, *signature.results):
        if not isinstance(values.get(argument.name), np.ndarray):
            continue
        shape = values[argument.name].shape
        if shape and len(argument.shape) == 1:
            found.setdefault(argument.shape[0], int(np.prod(shape)))
        else:                                                    # (..., C) of any number of axes is (B, T, C)
            shape = shape if len(shape) == len(argument.shape) else (1, int(np.prod(shape[:-1])), shape[-1])
            for size, letters in zip(shape, argument.shape):
                found.setdefault(letters.lstrip("0123456789"), size // int(letters.rstrip("BTSCKNHORV") or 1))
    if "N" in found:
        x = values[signature.inputs[0].name if signature.inputs else signature.results[0].name]
        found = {"B": 1, "T": found["N"]} | dict(zip("BTC", x.shape if x.ndim == 3 else ())) | found
    if "C" in found and "NH" in found:
        found.setdefault("HS", found["C"] // found["NH"])
    elif "HS" in found and "NH" in found:
        found["C"] = found["HS"] * found["NH"]
    return found


def shape_of(letters: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """("B", "T", "3C") -> (2, 5, 24)."""
    def size(text: str) -> int:
        letter = text.lstrip("0123456789")
        if letter and letter not in sizes:
            raise ValueError(f"a size must be one of {', '.join(sizes)}: got {letter}")
        return int(text[:len(text) - len(letter)] or 1) * (sizes[letter] if letter else 1)
    return tuple(map(size, letters))


def scalar(slot: Slot, values: Values, sizes: Mapping[str, int]) -> Any:
    """The value of a number that they take."""
    if slot.value is not None:
        return slot.value
    if slot.ours in values:
        return values[slot.ours]
    return int(np.prod(shape_of(slot.ours.split("*"), sizes)))


def arguments(function: Function, values: Values, sizes: Mapping[str, int], before: Mapping[str, np.ndarray],
              own: Mapping[str, np.ndarray] | None = None) -> list[Memory]:
    """The memory of each argument of one call. `before`: what lies in the results' memory before it, by our names;
    `own`: what their forward left in memory of their own."""
    results = {argument.name: argument for argument in function.signature.results}
    found = []
    for slot in function.slots:
        dtype = np.dtype(TYPES[slot.theirs.type])
        if slot.kind == "scalar":
            array = np.array(scalar(slot, values, sizes), dtype)
        elif slot.kind == "own":
            array = np.zeros(shape_of(slot.shape, sizes), dtype)
            if own and slot.theirs.name in own:
                array = own[slot.theirs.name].copy()
        else:
            array = before[slot.ours] if slot.ours in results and not slot.through else values[slot.ours]
            if slot.through:
                array = REFERENCE[functions(OPS[slot.through])[0]](array)[0]
            array = np.swapaxes(array, -1, -2) if slot.transposed else array
            array = np.array(array, dtype, order="C") if slot.ours in results else np.ascontiguousarray(array, dtype)
        found.append(Memory(slot.theirs.name, array, slot.kind == "own" or (slot.ours in results and not slot.through)))
    if function.returns:
        found.append(Memory("the returned number", np.array(np.nan), True))
    return found


def results_of(function: Function, memory: Sequence[Memory], shapes: Mapping[str, tuple]) -> dict[str, np.ndarray]:
    """{our name: what a call left there}, transposed back, in the shapes given."""
    found = {}
    for slot, place in zip(function.slots, memory):
        if place.written and slot.kind == "array":
            array = np.swapaxes(place.array, -1, -2) if slot.transposed else place.array
            found[slot.ours] = array.reshape(shapes[slot.ours])
    if function.returns:
        found[function.returns] = memory[-1].array.reshape(shapes[function.returns])
    return found


def own_of(function: Function, memory: Sequence[Memory]) -> dict[str, np.ndarray]:
    """{their name: what a call left in memory of their own}."""
    return {place.name: place.array for slot, place in zip(function.slots, memory) if slot.kind == "own"}


def shapes_of(signature: Signature, sizes: Mapping[str, int]) -> dict[str, tuple]:
    """{our name: shape} of the results."""
    return {argument.name: shape_of(argument.shape, sizes) for argument in signature.results}


def caller(library: Path, count: int) -> list[Callable[[Sequence[Memory]], None]]:
    """The library's functions, to be called in this process with the memory of their arguments."""
    try:
        from cffi import FFI
    except ImportError:
        raise ImportError("kernels of one's own need cffi: pip install 'minillm[playground]'") from None
    ffi = FFI()
    ffi.cdef("\n".join(f"void minillm_call_{i}(void **);" for i in range(count)))
    loaded = ffi.dlopen(str(library))

    def call(function: Callable, memory: Sequence[Memory]) -> None:
        function([ffi.cast("void *", place.array.ctypes.data) for place in memory])

    return [partial(call, getattr(loaded, f"minillm_call_{i}")) for i in range(count)]


def pair(op: str, calls: Mapping[str, tuple[Function, Callable]]) -> list[Callable]:
    """forward and backward in the manner of ours, on their functions: {"forward": (function, how to call it), ...}."""
    def run(direction: str, values: Values, sizes: dict, into: dict, own: dict) -> tuple[dict, dict]:
        function, call = calls[direction]
        check_dtypes(function, values)
        shapes = shapes_of(function.signature, sizes)
        before = {name: into.get(name, np.zeros(shape, function.dtype)) for name, shape in shapes.items()}
        memory = arguments(function, values, sizes, before, own)
        call(memory)
        return results_of(function, memory, shapes), own_of(function, memory)

    def forward(*args: Any, **more: Any) -> Any:
        given = given_by_name(op, args, more)
        check_heeded(op, given)
        values = named_values(op, given)
        sizes = sizes_of(op, values)
        found, own = run("forward", values, sizes, {}, {})
        out = tuple(in_shape(op, name, found[name], values) for name in outputs(op))
        return out if len(out) > 1 else out[0], (given, values, sizes, found, own)

    def backward(dout: Any, cache: tuple, into: Any = None) -> Any:
        given, values, sizes, found, own = cache
        douts = {"dsum": dout[0], "dout": dout[1]} if isinstance(dout, tuple) else {"dout": dout}
        grads, _ = run("backward", values | found | douts, sizes, {}, own)
        return gradients(op, grads, given, into)

    return [forward, backward]


def given_by_name(op: str, args: Sequence[Any], more: Mapping[str, Any] = {}) -> Values:
    """{argument of the op: value}, defaults included."""
    parameters = {name: p for name, p in signature(REFERENCE[functions(OPS[op])[0]]).parameters.items()
                  if name not in ("ops", "bits")}
    found: Values = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return found | dict(zip(parameters, args)) | dict(more)


def check_heeded(op: str, given: Values) -> None:
    """Raise for an array that no C signature of the op has a place for, such as attention's sinks."""
    inputs = {argument.name for argument in OPS[op].signatures()[0].inputs}
    for name, value in given.items():
        if isinstance(value, np.ndarray) and name not in inputs:
            raise ValueError(f"{name} must be None: a {op} kernel of one's own is not called with it")


def check_dtypes(function: Function, values: Values) -> None:
    """Raise for arrays of another dtype than the function's own: they would be converted in silence."""
    for slot in function.slots:
        value = values.get(slot.ours)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype != function.dtype:
            raise ValueError(f"{slot.ours} must be {function.dtype}, which {function.name} takes: got {value.dtype}")


def outputs(op: str) -> list[str]:
    """The names of what the op returns: "out", after the sum of residual_layernorm."""
    return [a.name for a in OPS[op].signatures()[0].results if a.name in ("s", "out")]


def in_shape(op: str, name: str, array: np.ndarray, values: Values) -> np.ndarray:
    """A result with the leading axes of the first input, whatever their number: (..., C) is (B, T, C) in C."""
    signature = OPS[op].signatures()[0]
    (letters,) = (a.shape for a in signature.results if a.name == name)
    first = signature.inputs[0]
    shape = np.shape(values[first.name])
    if len(shape) == len(first.shape):
        return array
    common = len([1 for ours, theirs in zip(letters, first.shape) if ours == theirs])
    leading = shape[:len(shape) - (len(first.shape) - common)]
    return array.reshape(leading if common == len(letters) else (*leading, -1))


def gradients(op: str, grads: Mapping[str, np.ndarray], given: Values, into: Any) -> Any:
    """The gradients in the order of the pair, added to `into` where it is given."""
    spec, found = OPS[op], []
    for name in spec.differentiable:
        grad = found[0] if name in spec.shared_gradient else grads[f"d{name}"]
        if grad.shape != given[name].shape and grad.size < given[name].size:         # wpe from row `start` on
            start, rows = given.get("start", 0), grad
            grad = np.zeros(given[name].shape, rows.dtype)
            grad[start:start + len(rows)] = rows
        found.append(grad.reshape(given[name].shape))
    for place, array in zip(range(len(found) - len(into or ()), len(found)), into or ()):
        if array is not None:
            array += found[place]
            found[place] = array
    return tuple(found) if len(found) > 1 else found[0]
