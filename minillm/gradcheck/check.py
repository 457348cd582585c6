"""The check of a pair, of a model, and as one line of a test."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .contract import Pair, results
from .diagnosis import Evidence, diagnose, diagnose_some
from .measure import Scalar, flat
from .rows import ContractError, GradcheckError, Row
from .search import Search, Settings, rounding
from .second_order import check_symmetry

METHODS = ("central", "complex")
STREAM = b"gradcheck"           # a dout equal to an x of default_rng(0) would make x.T @ dout symmetric, and hide bugs


def gradcheck(forward: Callable, backward: Callable, inputs: Mapping[str, Any] | Sequence[Any],
              eps: float | None = None, atol: float | None = None, rtol: float | None = None, method: str | None = None,
              raise_exception: bool = True, samples: int | None = None, seed: int = 0,
              wrt: Sequence[str] | None = None, verbose: bool = True, second_order: bool = False) -> list[Row]:
    """Check `backward` against numeric derivatives of `forward`; returns a list of Row, one per gradient.

    forward(*inputs) -> (out, cache); backward(dout, cache) -> the gradient of each floating input, in their order
    (one array, or a tuple with None to leave an input out); an op with several outputs has tuples for out and dout.
    inputs: dict {name: value} or a sequence of values; float64 arrays are differentiated, or float32 ones if all are;
    everything else is passed through. samples: elements per input to check; by default all, or 32 and random directions
    where there are more than 256.
    wrt: the names of the inputs that have a gradient, where some floating ones are constants (None: all have).
    An element passes when the gradient lies within the error bar of the measurement, widened by
    atol + rtol * |numeric| where they are given; NaN never does. eps: the first step (default: from the size of x).
    method: None is the complex step where the forward takes it and central differences where it does not.
    verbose: print the rows of a check that passes; without raise_exception they are the caller's to show.
    second_order: also whether the derivative of backward is symmetric (second_order.py), in a Row of that name.

    Raises GradcheckError (an AssertionError) on a wrong gradient and ContractError, one of these and a ValueError, for
    a pair that writes into what it was given or is not a function, unless raise_exception is false; ValueError for
    inputs that are neither float64 nor all float32, results of the wrong number, type or shape, an unknown method.
    """
    inputs = dict(inputs) if isinstance(inputs, Mapping) else {f"input{i}": value for i, value in enumerate(inputs)}
    names = floating(inputs, wrt)
    if method is not None and method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}: got {method!r}")
    rng = np.random.default_rng([seed, *STREAM])
    original = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    pair = Pair(forward, backward, inputs, names, rng)
    breaches = [Row(what, (), 0.0, 0.0, 0.0, 0.0, False, 0, note=sentence) for what, sentence in pair.breaches]
    rows = []
    if not any(row.name in ("noise", *inputs) and "must be" not in row.note for row in breaches):
        rows = check_pair(pair, original, Settings(eps, atol, rtol, method, samples))
        if second_order:
            rows.append(check_symmetry(lambda values: gradients(pair, values, pair.dout), original, list(pair.grads),
                                       rng))
    rows += breaches
    if raise_exception and not all(row.passed for row in rows):
        raise (ContractError if breaches else GradcheckError)(rows)
    if raise_exception and verbose:
        print(*rows, sep="\n")
    return rows


def assert_gradients(forward: Callable, backward: Callable, inputs: Mapping[str, Any] | Sequence[Any],
                     **settings: Any) -> None:
    """gradcheck as one line of a test: raises GradcheckError (an AssertionError), prints nothing, returns nothing."""
    gradcheck(forward, backward, inputs, **{"verbose": False} | settings)


def check_pair(pair: Pair, inputs: dict[str, Any], settings: Settings) -> list[Row]:
    """A Row for each gradient of a pair."""
    rows = []
    for search in searches(pair, inputs, pair.dout, pair.grads, settings):
        row = search.check()
        if row.passed and search.name in pair.nonlinear:
            row = linear(pair, inputs, search.name, settings) or row
        rows.append(row)
    return rows


def linear(pair: Pair, inputs: dict[str, Any], name: str, settings: Settings) -> Row | None:
    """Where a gradient seems not to be linear in dout: the check with a dout that shows it. None if that was
    rounding."""
    words, dout, grad = pair.nonlinear[name]
    row = next(searches(pair, inputs, dout, {name: grad}, settings)).check()
    row.note = "; ".join(filter(None, [f"not linear in dout: the gradient {words}", row.note]))
    return None if row.passed else row


def searches(pair: Pair, inputs: dict[str, Any], dout: Any, grads: dict[str, np.ndarray],
             settings: Settings) -> Iterator[Search]:
    """The check of each input, at these inputs, dout and gradients."""
    single = all(inputs[name].dtype == np.float32 for name in pair.names)
    if single and settings.method == "complex":
        inputs = {name: value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else
                  value for name, value in inputs.items()}
    scalar = Scalar(pair.forward, inputs, flat(dout), float(np.finfo(np.float32 if single else np.float64).eps))
    takes_complex = settings.method == "complex" or (settings.method is None and not single and analytic(scalar))
    kept: list[tuple[str, dict[str, np.ndarray]]] = []

    def noise(name: str) -> np.ndarray:
        if not kept:
            kept.extend(other_gradients(pair, inputs, dout))
        jittered, shaken = ([other[name].ravel() for what, other in kept if what == kind and other]
                            for kind in ("inputs", "dout"))
        return rounding(grads[name].ravel(), jittered, shaken, scalar.eps)

    def beside(name: str, size: float) -> Search | None:
        moved = inputs[name] + size / 128 * pair.rng.standard_normal(inputs[name].shape).astype(inputs[name].dtype)
        there = {**inputs, name: moved}
        grad = gradients(pair, there, dout).get(name)
        return grad if grad is None else next(searches(pair, there, dout, {name: grad}, settings))

    def explain(name: str, numeric: np.ndarray, wrong: np.ndarray, terms: Callable, measured: np.ndarray) -> str:
        x, others = inputs[name], {other: grad for other, grad in grads.items() if other != name}
        if numeric.size < x.size:
            return diagnose_some(grads[name].ravel()[measured], numeric, wrong, x.ravel()[measured], x.size)
        outs, douts = ([np.asarray(a) for a in (part if isinstance(part, tuple) else (part,))]
                       for part in (pair.out, dout))
        integers = any(np.asarray(value).dtype.kind in "iu" and np.ndim(value) for value in inputs.values())
        return diagnose(Evidence(grads[name], numeric.reshape(x.shape), wrong.reshape(x.shape), x, outs, douts, terms,
                                 others, integers))

    for name, grad in grads.items():
        yield Search(scalar, name, grad.ravel(), partial(noise, name), settings, takes_complex, pair.rng, single,
                     partial(explain, name), partial(beside, name))


def other_gradients(pair: Pair, inputs: dict[str, Any], dout: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Gradients whose last digits differ, since those of the inputs do or those of dout."""
    signs = {name: pair.rng.choice([-1.0, 1.0], inputs[name].shape) for name in pair.names}
    for ulps in range(1, 5):
        moved = {name: changed(inputs[name], ulps * sign) for name, sign in signs.items()}
        yield "inputs", gradients(pair, {**inputs, **moved}, dout)
    for _ in range(4):
        yield "dout", gradients(pair, inputs, shaken(dout, pair.rng))


def gradients(pair: Pair, inputs: dict[str, Any], dout: Any) -> dict[str, np.ndarray]:
    """The gradients for other inputs or another dout, {} where the pair does not take those."""
    with np.errstate(all="ignore"):
        try:
            _, cache = results(pair.forward(*inputs.values()))
            return {name: grad.astype(np.float64) for name, grad in pair.again(dout, cache).items()}
        except Exception:           # noqa: BLE001  inputs at the edge of what the function takes
            return {}


def changed(x: np.ndarray, ulps: np.ndarray) -> np.ndarray:
    return np.asarray(x * (1 + np.finfo(x.dtype).eps * ulps), x.dtype)


def shaken(dout: Any, rng: np.random.Generator) -> Any:
    """dout with its last digits changed at random."""
    return (tuple(shaken(part, rng) for part in dout) if isinstance(dout, tuple) else
            changed(dout, rng.choice([-1.0, 1.0], dout.shape)))


def analytic(scalar: Scalar) -> bool:
    """Whether the forward takes complex128 and gives the same numbers there."""
    try:
        out = scalar.complex_outputs()
    except Exception:               # noqa: BLE001  compiled kernels raise what they like
        return False
    return out.dtype.kind == "c" and out.shape == scalar.out.shape and np.allclose(out.real, scalar.out, 1e-9, 0,
                                                                                   equal_nan=True)


def check_model(loss: Callable, grads: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
                eps: float | None = None, atol: float | None = None, rtol: float | None = None,
                method: str = "central", samples: int = 8, directions: int = 2, seed: int = 0) -> list[Row]:
    """Check every tensor of a whole model: `samples` random elements and `directions` random directions of each.

    loss(params) -> scalar, where params is a dict of float64 (or complex128) arrays; grads {name: array}. Returns rows.
    """
    rng = np.random.default_rng([seed, *STREAM])
    names = list(params)
    scalar = Scalar(lambda *values: (loss(dict(zip(names, values))), None), dict(params), np.ones(1),
                    np.finfo(np.float64).eps)
    rows = []
    for name in names:
        grad = np.asarray(grads[name], np.float64).ravel()
        search = Search(scalar, name, grad, lambda grad=grad: rounding(grad, [], [], scalar.eps),
                        Settings(eps, atol, rtol, method, samples), method == "complex", rng)
        rows += search.tensor(samples, directions)
    return rows


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
