"""Gradient checking: a hand-written backward against numerical derivatives, which need no derivation.

The output is an array, so pick a random r of its shape and check the scalar L = sum(out * r); `backward(r, cache)`
claims to give dL/dinput, a vector-Jacobian product. For one element x_i of an input, two ways to measure it:

    central:   (L(x_i + h) - L(x_i - h)) / 2h        truncation error h^2, rounding error eps/h; h = 1e-6
    complex:   Im L(x_i + ih) / h                    no subtraction, so h = 1e-30 and an error of rounding alone;
                                                     the forward must accept complex128 (Squire & Trapp 1998)

A float32 pair is measured by central differences with h = 1/128 and 1/64, and each measurement has an error bar, which
widens its tolerance: the difference of the two (truncation), and the rounding of the outputs that changed, over 2h.
Checking each element costs two forwards; a big tensor is checked on a sample of elements plus along random directions:
dL/d(direction) = sum(gradient * direction) sees every element at once. Works on any pair of functions; NumPy only.
"""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass
class Row:
    """The worst element of one input: where, what the backward says, what was measured."""

    name: str
    index: tuple[int, ...]  # () for a check along a random direction
    analytic: float
    numeric: float
    error: float            # |analytic - numeric|
    relative: float         # error / max(|analytic|, |numeric|)
    passed: bool
    checked: int            # number of elements (or directions) compared
    bar: float = 0.0        # of a measurement in float32: its own error, added to the tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        place = f"{self.name}{list(self.index) if self.index else ''}"
        return (f"{verdict} {place:<36} analytic {self.analytic:+.9e}  numeric {self.numeric:+.9e}  "
                f"error {self.error:.1e}  relative {self.relative:.1e}  ({self.checked} checked)")


class GradcheckError(AssertionError):
    """A gradient is wrong; the message holds every input's worst element. `.rows` has them as data."""

    def __init__(self, rows: list[Row]):
        self.rows = rows
        super().__init__("gradient check failed\n" + "\n".join(map(str, rows)))


def gradcheck(forward: Callable, backward: Callable, inputs: Mapping[str, Any] | Sequence[Any], eps: float = 1e-6,
              atol: float = 1e-5, rtol: float = 1e-3, method: str = "central", raise_exception: bool = True,
              samples: int | None = None, seed: int = 0, wrt: Sequence[str] | None = None,
              verbose: bool = True) -> list[Row]:
    """Check `backward` against numeric derivatives of `forward`; returns a list of Row, one per gradient.

    forward(*inputs) -> (out, cache); backward(dout, cache) -> the gradient of each floating input, in their order
    (one array, or a tuple with None to leave an input out); an op with several outputs has tuples for out and dout.
    inputs: dict {name: value} or a sequence of values; float64 arrays are differentiated, or float32 ones if all are;
    everything else is passed through. samples: elements per input to check, None for all.
    wrt: the names of the inputs that have a gradient, where some floating ones are constants (None: all have).
    An element passes when |analytic - numeric| <= atol + rtol * |numeric| (+ the error bar of float32); NaN never does.
    verbose: print the rows of a check that passes; without raise_exception they are the caller's to show.

    Raises GradcheckError (an AssertionError) on a wrong gradient unless raise_exception is false; ValueError for
    inputs that are neither float64 nor all float32, a wrong number or shape of gradients, an unknown method, or a
    backward that writes into its inputs.
    """
    inputs = dict(inputs) if isinstance(inputs, Mapping) else {f"input{i}": value for i, value in enumerate(inputs)}
    names = floating(inputs, wrt)
    if method not in STEPS:
        raise ValueError(f"method must be one of {', '.join(STEPS)}: got {method!r}")
    before = {name: inputs[name].copy() for name in names}
    rng = np.random.default_rng(seed)
    out, cache = forward(*inputs.values())
    dout = random_like(out, rng)
    grads = backward(dout, cache)
    grads = dict(zip(names, matched(grads, names, inputs)))
    for name in names:
        if not np.array_equal(before[name], inputs[name], equal_nan=True):
            raise ValueError(f"{name} was written by forward or backward: an op must leave its inputs alone")

    single = method == "central" and inputs[names[0]].dtype == np.float32
    base = {name: prepared(value, method) for name, value in inputs.items()}

    def weighted(**changed: np.ndarray) -> Any:
        return (products if single else dot)(forward(*{**base, **changed}.values())[0], dout)

    rows = [check_elements(name, lambda x, name=name: weighted(**{name: x}),
                           inputs[name] if single else inputs[name].astype(np.float64), grad, eps, atol, rtol, method,
                           samples, rng) for name, grad in grads.items() if grad is not None]
    if raise_exception and not all(row.passed for row in rows):
        raise GradcheckError(rows)
    if raise_exception and verbose:
        print(*rows, sep="\n")
    return rows


def check_elements(name: str, function: Callable, x: np.ndarray, grad: np.ndarray, eps: float, atol: float, rtol: float,
                   method: str, samples: int | None, rng: np.random.Generator) -> Row:
    """Compare grad with the numeric derivative of function(x) element by element; returns the worst as a Row.

    function: a scalar, or for x of float32 the summands of one.
    """
    chosen = np.arange(x.size)
    if samples and samples < x.size:
        chosen = rng.choice(x.size, samples, replace=False)
    rows = []
    for flat in chosen:
        index = np.unravel_index(flat, x.shape)
        direction = np.zeros_like(x)
        direction[index] = 1
        numeric, bar = (float32_difference(function, x, direction) if x.dtype == np.float32 else
                        (STEPS[method](function, x, direction, eps), 0.0))
        rows.append(compare(name, index, grad[index], numeric, atol, rtol, bar))
    return worst(rows, atol, rtol)


def check_direction(name: str, function: Callable, x: np.ndarray, grad: np.ndarray, eps: float, atol: float,
                    rtol: float, method: str, count: int, rng: np.random.Generator) -> Row:
    """Compare sum(grad * direction) with the derivative along `count` random unit directions; the worst as a Row."""
    rows = []
    for _ in range(count):
        direction = rng.standard_normal(x.shape)
        direction /= np.linalg.norm(direction)
        numeric = STEPS[method](function, x, direction, eps)
        rows.append(compare(f"{name} (direction)", (), (grad * direction).sum(), numeric, atol, rtol))
    return worst(rows, atol, rtol)


def check_model(loss: Callable, grads: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray], eps: float = 1e-6,
                atol: float = 1e-7, rtol: float = 1e-5, method: str = "central", samples: int = 8, directions: int = 2,
                seed: int = 0) -> list[Row]:
    """Check every tensor of a whole model: `samples` random elements and `directions` random directions of each.

    loss(params) -> scalar, where params is a dict of float64 (or complex128) arrays; grads {name: array}. Returns rows.
    """
    rng = np.random.default_rng(seed)
    base = {name: prepared(x, method) for name, x in params.items()}
    rows = []
    for name, x in params.items():
        def function(changed: np.ndarray, name: str = name) -> Any:
            return loss({**base, name: changed})
        settings = eps, atol, rtol, method
        rows.append(check_elements(name, function, x, grads[name], *settings, samples, rng))
        rows.append(check_direction(name, function, x, grads[name], *settings, directions, rng))
    return rows


def random_like(out: Any, rng: np.random.Generator) -> Any:
    """Normal numbers in the shape of out, float32 where it is: one array, or a tuple of them."""
    if isinstance(out, tuple):
        return tuple(random_like(x, rng) for x in out)
    return rng.standard_normal(np.shape(out)).astype(np.float32 if np.asarray(out).dtype == np.float32 else np.float64)


def dot(out: Any, r: Any) -> Any:
    """sum(out * r), over all arrays of a tuple."""
    return sum(map(dot, out, r)) if isinstance(out, tuple) else (out * r).sum()


def products(out: Any, r: Any) -> np.ndarray:
    """The summands of dot(out, r), in float64."""
    if isinstance(out, tuple):
        return np.concatenate(list(map(products, out, r)))
    return (np.asarray(out, np.float64) * r).ravel()


def float32_difference(function: Callable, x: np.ndarray, direction: np.ndarray) -> tuple[float, float]:
    """(the derivative of function(x).sum() along an axis, its error bar), for x of float32."""
    size, slopes, rounding = max(1.0, float(np.abs(x * direction).max())), [], 0.0
    for step in (1 / 64, 1 / 128):
        up, down = (np.asarray(x + sign * size * step * direction, np.float32) for sign in (1, -1))
        width = ((up.astype(np.float64) - down) * direction).sum()                  # as rounded
        above, below = function(up), function(down)
        slopes.append((above - below).sum() / width)
        changed = np.maximum(np.abs(above), np.abs(below))[above != below]
        rounding = ROUNDINGS * np.finfo(np.float32).eps * float(np.linalg.norm(changed)) / width
    return float(slopes[1]), float(abs(slopes[1] - slopes[0]) + rounding)


def central_difference(function: Callable, x: np.ndarray, direction: np.ndarray, eps: float) -> Any:
    return (function(x + eps * direction) - function(x - eps * direction)) / (2 * eps)


def complex_step(function: Callable, x: np.ndarray, direction: np.ndarray, eps: float = 1e-30) -> Any:
    return function(x + 1e-30j * direction).imag / 1e-30


ROUNDINGS = 8           # in float32, of an output: what its own sums have lost, typically
STEPS = {"central": central_difference, "complex": complex_step}


def prepared(value: Any, method: str) -> Any:
    """The complex step needs every float array of a call to be complex, since ops refuse mixed dtypes."""
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.complex128) if is_float and method == "complex" else value


def compare(name: str, index: tuple, analytic: Any, numeric: Any, atol: float, rtol: float, bar: float = 0.0) -> Row:
    """One element or direction as a Row."""
    error = abs(analytic - numeric)
    allowed = atol + rtol * abs(numeric) + bar
    passed = bool(np.isfinite(error) and np.isfinite(allowed) and error <= allowed)  # error <= inf would pass anything
    relative = error / max(abs(analytic), abs(numeric)) if error and np.isfinite(error) else error
    return Row(name, tuple(map(int, index)), float(analytic), float(numeric), float(error), float(relative), passed, 1,
               bar)


def worst(rows: list[Row], atol: float, rtol: float) -> Row:
    """The row furthest beyond, or nearest to, its tolerance; what fails comes before what passes."""
    def distance(row: Row) -> tuple[bool, float]:
        allowed = atol + rtol * abs(row.numeric) + row.bar
        ratio = row.error / allowed if allowed and np.isfinite(row.error) else np.inf if row.error else 0
        return not row.passed, ratio
    row = max(rows, key=distance)
    row.checked = len(rows)
    return row


def floating(inputs: Mapping[str, Any], wrt: Sequence[str] | None = None) -> list[str]:
    """Names of the inputs to differentiate."""
    names = [name for name, value in inputs.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    if wrt is not None:
        if unknown := [name for name in wrt if name not in names]:
            raise ValueError(f"wrt must name arrays of floats among the inputs ({', '.join(names)}): "
                             f"got {unknown[0]!r}")
        names = [name for name in names if name in wrt]
    single = all(inputs[name].dtype == np.float32 for name in names)
    for name in names:
        if inputs[name].dtype != np.float64 and not single:
            raise ValueError(f"{name} must be float64 (or all of them float32) for a gradient check: "
                             f"got {inputs[name].dtype}")
        if not inputs[name].size:
            raise ValueError(f"{name} must not be empty: got shape {inputs[name].shape}")
    if not names:
        raise ValueError("inputs must hold at least one float64 array")
    return names


def matched(grads: Any, names: list[str], inputs: Mapping[str, Any]) -> Sequence:
    """The gradients as a tuple, after checking their number and shapes."""
    grads = grads if isinstance(grads, (tuple, list)) else (grads,)
    if len(grads) != len(names):
        raise ValueError(f"backward must return {len(names)} gradients ({', '.join(names)}): got {len(grads)}")
    for name, grad in zip(names, grads):
        if grad is not None and np.shape(grad) != inputs[name].shape:
            raise ValueError(f"the gradient of {name} must have shape {inputs[name].shape}: got {np.shape(grad)}")
    return grads


def as_dict(row: Row) -> dict[str, Any]:
    """A Row for JSON."""
    return asdict(row)
