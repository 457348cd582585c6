"""Inputs for a kernel, and what is right for them: the float64 reference, and how far off float32 may be.

Each result has its own allowance. The reference is run again in the kernel's dtype, and in both on inputs moved by
one rounding; how far its results move, in each row, is what rounding costs there, however ill-conditioned. A sum of n
terms in another order loses up to n roundings more, typically sqrt(n) (Higham 2002, section 4.2), so

    allowed(row) = 2 (4 + sqrt n) (largest move in the row + u * largest |value| of the row) + a denormal

which is wide enough for any order of summation in the same dtype, and 50 times too narrow for half precision. A NaN
among the inputs must reach every result that depends on it, and none that its absence would leave alone.
"""
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.own.call import named_values, sizes_of
from ...ops.table import OPS, REFERENCE, Dims, functions
from .sizes import ARRAYS, Precision

WIDTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130)
SHAPES = ([Dims(B=1, T=1, C=2 * width, NH=2, V=width) for width in WIDTHS]
          + [Dims(B=2, T=T, C=6, NH=3, V=5) for T in (1, 2, 9, 33)]
          + [Dims(B=3, T=5, C=7, NH=1, V=3), Dims(B=1, T=67, C=12, NH=4, V=130), Dims(B=2, T=64, C=192, NH=3, V=1000)])
LARGE = (Dims(B=1, T=64, C=4104, NH=3, V=50257), Dims(B=1, T=3, C=4104, NH=3, V=4099),
         Dims(B=1, T=3, C=1032, NH=3, V=4099), Dims(B=1, T=9, C=312, NH=3, V=12289))
MOST_BYTES = 32 * 2 ** 20
TRIES, FEW, TRIES_OF_FEW = 1, 1000, 10          # in the kernel's dtype; of a few numbers one may happen to be exact
VALUES = ("normal", "spread", "denormal", "negative zero", "ties", "constant rows", "large mean", "one-hot", "NaN")


@dataclass
class Result:
    """One array that a kernel must give: what is right, and how far off each element may be."""

    before: np.ndarray | None           # what lies there before: the numbers to add to, or None for poison
    expected: np.ndarray                # float64
    allowed: np.ndarray                 # float64, of the shape of expected
    without_nan: np.ndarray | None = None       # where the NaN of the inputs makes no difference: the result, too


@dataclass
class Workload:
    """One call of one direction of an op."""

    op: str
    direction: str
    dims: Dims
    values_kind: str                    # one of VALUES
    args: dict[str, Any]                # of the op, in the kernel's dtype
    values: dict[str, Any]              # by the names of the C signature: args, the forward's results, dout
    cache: Any                          # of the NumPy forward
    results: dict[str, Result]

    @property
    def sizes(self) -> dict[str, int]:
        sizes = sizes_of(self.op, self.values)
        B, T = self.dims.B, self.dims.T
        return sizes | ({"B": B, "T": T} if sizes.get("N") == B * T else {})

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={size}" for name, size in self.dims.sampled().items())
        return sizes + (f", {self.values_kind}" if self.values_kind != "normal" else "")


def workload(op: str, direction: str, dims: Dims, dtype: str = "float32", seed: int = 0, kind: str = "normal",
             added: tuple[str, ...] = (), ignored: bool = True, precision: Precision = ARRAYS) -> Workload:
    """A call of an op with inputs that no other seed gives. added: results that are added to what is there; ignored:
    some targets are ignore_index, which a kernel must know of; precision: of the type that it computes in, if narrower
    than its arrays'."""
    eps = max(precision.eps, float(np.finfo(dtype).eps))
    rng = np.random.default_rng(seed)
    plain = canonical(OPS[op].sample(rng, dtype, dims))
    if not ignored and "targets" in plain:
        plain["targets"] = rng.integers(0, dims.V, plain["targets"].shape)
    args = shaped(plain, kind, rng)
    wide = evaluate(op, args, np.float64, np.random.default_rng(seed + 1), direction)
    narrow = evaluate(op, args, np.dtype(dtype), None, direction, dout=wide["dout"])
    tries = TRIES_OF_FEW if sum(map(np.size, args.values())) < FEW else TRIES
    moved = [narrow] + [evaluate(op, nudged(args, eps, rng), wider, None, direction,
                                 dout=nudged(wide["dout"], eps, rng))
                        for wider in tries * [np.dtype(dtype)] + 3 * [np.float64]]
    if np.dtype(dtype) == np.float64:
        moved.append({"results": scaled_down(wide, evaluate(op, args, np.float32, None, direction, dout=wide["dout"]))})
    if kind == "NaN":
        ours = evaluate(op, plain, np.float64, None, direction, dout=wide["dout"])["results"]
        theirs = evaluate(op, moved_where_nan(args, plain), np.float64, None, direction, dout=wide["dout"])["results"]
        same = {name: np.where(ours[name] == theirs[name], ours[name], np.nan) for name in ours}
        moved.append({"results": same})
    terms = max(max(np.shape(value), default=1) for value in args.values())
    results = {}
    for name in wide["results"]:
        exact = wide["results"][name]
        before = first_of(op, args, name, added, rng, exact, dtype)
        start = before if before is not None and OPS[op].kind != "update" else 0
        results[name] = Result(before, within(exact + start, dtype), allowance(exact if kind != "NaN" else ours[name], [
            m["results"][name] for m in moved], terms, dtype, start, Precision(eps, precision.tiny)))
        results[name].without_nan = moved[-1]["results"][name] + start if kind == "NaN" else None
    with np.errstate(over="ignore"):
        values = named_values(op, args) | {
            name: np.asarray(value, dtype if np.asarray(value).dtype.kind == "f" else None)
            for name, value in (wide["forward"] | wide["dout"]).items()}
    return Workload(op, direction, dims, kind, args, values, narrow["cache"], results)


def workload_at(op: str, direction: str, args: dict[str, Any], dtype: str, douts: dict[str, Any],
                added: tuple[str, ...]) -> Workload:
    """A call on given arguments whose answer nobody has worked out: for finite differences."""
    exact = evaluate(op, args, np.dtype(dtype), None, "forward", dout=douts)
    shapes = ({f"d{name}": np.shape(args[name]) for name in OPS[op].differentiable} if direction == "backward" else
              {name: np.shape(value) for name, value in exact["forward"].items()})
    results = {name: Result(np.zeros(shape, dtype) if name in added else None, np.zeros(shape), np.zeros(shape))
               for name, shape in shapes.items()}
    values = named_values(op, args) | {name: np.asarray(value, dtype) for name,
                                       value in (exact["forward"] | douts).items()}
    return Workload(op, direction, dims_of(args), "normal", args, values, exact["cache"], results)


def dims_of(args: dict[str, Any]) -> Dims:
    """B and T from the first array; the rest is not asked for."""
    shape = next(np.shape(value) for value in args.values())
    return Dims(B=shape[0], T=shape[1]) if len(shape) > 1 else Dims(B=1, T=shape[0])


def canonical(args: dict[str, Any]) -> dict[str, Any]:
    """Positions begin at 0: a C kernel is given wpe from its first row on."""
    if "start" in args:
        T = args["tokens"].shape[1]
        args = args | {"wpe": args["wpe"][args["start"]:args["start"] + T].copy(), "start": 0}
    return args


def evaluate(op: str, args: dict[str, Any], dtype: Any, rng: Any, direction: str, dout: Any = None) -> dict[str, Any]:
    """The reference's results in one dtype: {"forward": by name, "dout": by name, "results": of the direction}."""
    spec, cache = OPS[op], None
    args = {name: value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
            for name, value in args.items()}
    args = {name: value.copy() if spec.kind == "update" and isinstance(value, np.ndarray) else value
            for name, value in args.items()}
    with np.errstate(all="ignore"):
        found = REFERENCE[functions(spec)[0]](*args.values())
        if spec.kind == "pair":
            found, cache = found
        forward = named_outputs(op, found, args) | (spec.kept(args, cache) if cache is not None else {})
        dout = dout if dout is not None else {name: rng.standard_normal(np.shape(forward[of])).astype(np.float32)
                                              .astype(np.float64) for name, of in gradients_of_outputs(op).items()}
        results = forward if direction == "forward" else backward(op, [part.astype(dtype) for part in dout.values()],
                                                                  cache)
    wanted = [argument.name for argument in spec.signatures()[direction == "backward"].results]
    return {"forward": forward, "dout": dout, "cache": cache,
            "results": {name: np.asarray(results[name], np.float64) for name in wanted}}


def named_outputs(op: str, found: Any, args: dict[str, Any]) -> dict[str, Any]:
    """{name of the C signature: array}: "out", after the sum of residual_layernorm; an update's are its arguments."""
    if OPS[op].kind == "update":
        return {name: args[name] for name in ("w", "m", "v") if name in args}
    if OPS[op].kind == "reduce":
        return {"out": np.array([found])}
    return dict(zip(("s", "out"), found)) if isinstance(found, tuple) else {"out": found}


def gradients_of_outputs(op: str) -> dict[str, str]:
    """{"dout": "out"}, and the sum's where there is one, of an op with a backward."""
    outputs = {"dsum": "s", "dout": "out"} if op == "residual_layernorm" else {"dout": "out"}
    return outputs if OPS[op].kind == "pair" else {}


def backward(op: str, douts: list[np.ndarray], cache: Any) -> dict[str, np.ndarray]:
    grads = REFERENCE[f"{op}_backward"](tuple(douts) if len(douts) > 1 else douts[0], cache)
    return {f"d{name}": grad for name, grad in
            zip(OPS[op].differentiable, grads if isinstance(grads, tuple) else (grads,))}


def first_of(op: str, args: dict, name: str, added: tuple[str, ...], rng: Any, exact: np.ndarray, dtype: str) -> Any:
    """What lies in a result's memory before the call."""
    if OPS[op].kind == "update":
        return args[name]
    return rng.standard_normal(exact.shape).astype(dtype) if name in added else None


def allowance(exact: np.ndarray, moved: list[np.ndarray], terms: int, dtype: str, start: Any,
              precision: Precision) -> np.ndarray:
    """How far off each element may be: see above. Rows are along the last axis."""
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        move = np.max([np.abs(m - exact) for m in moved], axis=0) + (
            precision.eps / 2 * (np.abs(exact) + np.abs(start)) + precision.tiny)
    move = np.nan_to_num(move, nan=0, posinf=0)
    row = move.max(axis=-1, keepdims=True) if move.ndim > 1 else move.max(initial=0) if move.size else move
    return np.broadcast_to(2 * (4 + np.sqrt(terms)) * row + 2 * float(info.smallest_subnormal), exact.shape)


def within(exact: np.ndarray, dtype: str) -> np.ndarray:
    """The float64 results, infinite where the kernel's dtype has no such number."""
    return np.where(np.abs(exact) > np.finfo(dtype).max, np.copysign(np.inf, exact), exact)


def scaled_down(wide: dict[str, Any], single: dict[str, Any]) -> dict[str, np.ndarray]:
    """The float64 results moved by their own rounding, of which nothing wider tells: float32's error, 2^-29 of it."""
    with np.errstate(all="ignore"):
        return {name: exact + 2.0 ** -29 * (single["results"][name] - exact)
                for name, exact in wide["results"].items()}


def moved_where_nan(args: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """The plain inputs, with another number where the NaN is."""
    return {name: np.where(np.isnan(value), plain[name] - 2, plain[name]).astype(value.dtype)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value for name, value in args.items()}


def nudged(args: dict[str, Any], eps: float, rng: Any) -> dict[str, Any]:
    """The floating arrays moved by up to one rounding of this size."""
    def move(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64) * (1 + eps * rng.uniform(-1, 1, x.shape))
    return {name: move(value) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
            for name, value in args.items()}


def shaped(args: dict[str, Any], kind: str, rng: Any) -> dict[str, Any]:
    """The op's first floating input given values that are hard for kernels; the others stay normal."""
    name = next(name for name, value in args.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f")
    x = args[name].copy()
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)
    HARD[kind](rows, rng)
    if kind == "large mean" and "qkv" in args:
        rows -= 96                      # 100 would leave each softmax one-hot, and of its gradient only cancellation
    return args | {name: rows.reshape(x.shape)}


def spread(rows: np.ndarray, rng: Any) -> None:
    """Rows of sizes from 1e-7 to 10: scores and logits stay where exp has something to tell. No two numbers are more
    than 80 apart: beyond 103 a probability is 0 in float32, and its logarithm, which many kernels take, infinite."""
    rows *= 10 ** rng.uniform(-7, 1, (len(rows), 1)).astype(rows.dtype)
    np.clip(rows, -40, 40, out=rows)


def denormal(rows: np.ndarray, rng: Any) -> None:
    rows[::2] *= np.finfo(rows.dtype).smallest_normal / 8


def negative_zero(rows: np.ndarray, rng: Any) -> None:
    rows[rng.random(rows.shape) < 0.5] = -0.0


def ties(rows: np.ndarray, rng: Any) -> None:
    rows[:] = np.round(rows)


def constant_rows(rows: np.ndarray, rng: Any) -> None:
    rows[:] = rng.integers(-4, 5, (len(rows), 1))


def large_mean(rows: np.ndarray, rng: Any) -> None:
    rows += 100


def one_hot(rows: np.ndarray, rng: Any) -> None:
    rows[:] = 0
    rows[np.arange(len(rows)), rng.integers(0, rows.shape[1], len(rows))] = 30


def not_a_number(rows: np.ndarray, rng: Any) -> None:
    rows[rng.integers(0, len(rows)), rng.integers(0, rows.shape[1])] = np.nan


HARD = dict(zip(VALUES, (lambda rows, rng: None, spread, denormal, negative_zero, ties, constant_rows, large_mean,
                         one_hot, not_a_number)))
