"""How exact low precision is: each kernel's gradients against the float64 pair, beside a bound derived from its sums.

A computed number is off by rounding: fl(a op b) = (a op b)(1 + d), |d| <= u, where u is 2^-24 in float32. In a sum of n
terms, in whatever order, such factors meet at most n - 1 times, so (Higham 2002, "Accuracy and Stability of Numerical
Algorithms", sections 3.1 and 4.2)

    |fl(sum) - sum| <= gamma(n - 1) * sum of |terms|,        gamma(n) = n u / (1 - n u)

and an element of a matmul with sums of n terms has gamma(n). The error e that a number already has is carried on by the
derivative: e_x + e_y through x + y, |x| e_y + |y| e_x through x * y, |f'(x)| e_x through f(x). Adding that up operation
by operation is Wilkinson's running error analysis (Higham, section 3.3). `Rounded` does so while a reference op runs:
reference ops let complex128 arrays pass, so the real part is the number and the imaginary part the bound of its error.

A kernel may use another formula for the same number, such as a softmax from its logsumexp, and then differs by a few
roundings. The bound is of the worst case, n roundings in one direction, where sqrt(n) is typical, so it has room.
`likely` puts sqrt(n) u for gamma(n): what is typical, for rounding errors that are independent and of mean zero (Higham
and Mary 2019, SIAM J. Sci. Comput. 41); a kernel may be above that.

Kernels that multiply in bfloat16 (u = 2^-8) round both operands of a matmul, and the result where it is kept; sums are
float32.
"""
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np

from ..kernels.select import OPS, Dims, Spec, check_ops, choices, functions, select
from ..ops.table import REFERENCE

UNIT = {"float32": 2.0 ** -24, "bfloat16": 2.0 ** -8}
ELEMENTARY = 4              # units by which exp, log, tanh, powers and Phi of a kernel may be off
WITH_PHI = ("gelu_exact",)  # the reference makes the normal CDF of a series, the kernel of a polynomial; |Phi| <= 1
MEASURED = Dims(B=2, T=33, C=48, NH=3, V=97)


class Rounded(np.ndarray):
    """Numbers, as real parts, with bounds of their rounding errors, as imaginary ones."""

    product = 0.0           # unit roundoff of a matmul's operands and result, where they are narrower than float32
    likely = False

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> Any:
        (out,), where = options.pop("out", (None,)), options.pop("where", True)
        if method == "at":
            return add_at(*args)
        if ufunc is np.add and method == "reduce":
            found = total(split(args[0]), options["axis"], options.get("keepdims", False))
        elif ufunc in RULES:
            found = RULES[ufunc](*map(split, args))
        else:                                           # comparisons and maxima: of the numbers alone
            return getattr(ufunc, method)(*(split(arg)[0] for arg in args), **options)
        if out is None:
            return found
        np.copyto(np.asarray(out), np.asarray(found), where=where)
        return out

    def __array_function__(self, function: Callable, types: Any, args: Any, options: Any) -> Any:
        found = super().__array_function__(function, types, args, options)
        return found.view(Rounded) if isinstance(found, np.ndarray) and found.dtype == complex else found


Pair = tuple[Any, Any]      # numbers, bounds of their errors


def split(x: Any) -> Pair:
    """A Pair from an operand; a constant is rounded when the program is written."""
    if not isinstance(x, np.ndarray):
        return x, abs(x - float(np.float32(x)))
    x = np.asarray(x)
    return (x.real, x.imag) if x.dtype == complex else (x, 0.0)


def joined(x: Any, error: Any) -> Rounded:
    found = np.empty(np.shape(x), complex)
    found.real, found.imag = x, error
    return found.view(Rounded)


def rounded(x: Any, error: Any, units: float = 1) -> Rounded:
    """The result of one operation, which rounds once more."""
    return joined(x, error + np.where(np.isfinite(x), units * UNIT["float32"] * np.abs(x), 0))


def gamma(n: int) -> float:
    """What n roundings in a row amount to, at most (or, with `likely`, as a rule)."""
    u = UNIT["float32"]
    return sqrt(n) * u if Rounded.likely else n * u / (1 - n * u)


def added(sign: int) -> Callable:
    return lambda x, y: rounded(x[0] + sign * y[0], x[1] + y[1])


def multiplied(x: Pair, y: Pair) -> Rounded:
    return rounded(x[0] * y[0], np.abs(x[0]) * y[1] + np.abs(y[0]) * x[1] + x[1] * y[1])


def divided(x: Pair, y: Pair) -> Rounded:
    ratio = x[0] / y[0]
    return rounded(ratio, (x[1] + np.abs(ratio) * y[1]) / np.abs(y[0]))


def matmul(x: Pair, y: Pair) -> Rounded:
    (a, a_error), (b, b_error) = ((np.ascontiguousarray(v), e + Rounded.product * np.abs(v)) for v, e in (x, y))
    error = np.abs(a) @ b_error + a_error @ np.abs(b) + gamma(a.shape[-1]) * (np.abs(a) @ np.abs(b))
    return joined(a @ b, error + Rounded.product * np.abs(a @ b))


def total(x: Pair, axis: Any, keepdims: bool) -> Rounded:
    """A sum along axes: gamma(n - 1) of its terms' sizes."""
    value, error, size = (np.sum(np.broadcast_to(a, x[0].shape), axis=axis, keepdims=keepdims)
                          for a in (x[0], x[1], np.abs(x[0])))
    return joined(value, error + gamma(max(0, x[0].size // max(1, value.size) - 1)) * size)


def add_at(array: np.ndarray, indices: np.ndarray, terms: Rounded) -> None:
    """A scatter-add: each place sums as many terms as name it."""
    value, error = split(terms)
    count = np.zeros(len(array))
    np.add.at(count, indices, 1)
    np.add.at(np.asarray(array), indices, value + 1j * (error + gamma(int(count.max(initial=0))) * np.abs(value)))


def function(f: Callable, slope: Callable, units: float = ELEMENTARY) -> Callable:
    """The rule of a function of one number, from its derivative."""
    def rule(x: Pair) -> Rounded:
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(slope(x[0])) * x[1]
        return rounded(f(x[0]), np.where(np.isfinite(x[0]), error, 0), units)
    return rule


def power(x: Pair, k: Pair) -> Rounded:
    return function(lambda v: v ** k[0], lambda v: k[0] * v ** (k[0] - 1))(x)


RULES: dict[np.ufunc, Callable] = {
    np.add: added(1), np.subtract: added(-1), np.multiply: multiplied, np.true_divide: divided, np.matmul: matmul,
    np.power: power, np.negative: lambda x: joined(-x[0], x[1]), np.positive: lambda x: joined(*x),
    np.square: lambda x: multiplied(x, x), np.sqrt: function(np.sqrt, lambda v: 0.5 * v ** -0.5, 1),
    np.exp: function(np.exp, np.exp), np.expm1: function(np.expm1, np.exp),
    np.log: function(np.log, lambda v: 1 / v), np.log1p: function(np.log1p, lambda v: 1 / (1 + v)),
    np.tanh: function(np.tanh, lambda v: 1 - np.tanh(v) ** 2),
}


def exact_with_bounds(op: str, inputs: dict, dout: Any, product: float = 0.0, likely: bool = False) -> dict:
    """{argument: (its gradient in float64, the bound of a float32 backward's error)}, for exact inputs and dout."""
    def given(x: Any) -> Any:
        return joined(x, 0) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x

    forward, backward = (REFERENCE[name] for name in functions(OPS[op]))
    Rounded.product, Rounded.likely = product, likely
    try:
        _, cache = forward(*map(given, inputs.values()))
        grads = backward(each(given, dout), cache)
    finally:
        Rounded.product, Rounded.likely = 0.0, False
    of_phi = ELEMENTARY * UNIT["float32"] * np.abs(dout) if op in WITH_PHI else 0.0
    return {name: (value, bound + of_phi) for name, (value, bound)
            in zip(OPS[op].differentiable, map(split, as_tuple(grads)))}


def as_tuple(grads: Any) -> tuple:
    return grads if isinstance(grads, tuple) else (grads,)


def each(change: Callable, arrays: Any) -> Any:
    return tuple(map(change, arrays)) if isinstance(arrays, tuple) else change(arrays)


def in_bfloat16(choice: str) -> bool:
    """Are the matmuls of this implementation in bfloat16, whatever its arrays are?"""
    return choice.endswith(("/bf16", "amx", "mma"))


def precision_table(ops: Sequence[str] | None = None, backend: str | None = None, dims: Dims = MEASURED,
                    seed: int = 0) -> list[dict]:
    """Compare every op's gradients (default: all) on the backends (default: all that are built) with float64; dicts.

    Raises ValueError for an op that has no gradient.
    """
    check_ops(ops or [])
    for op in ops or []:
        if OPS[op].kind != "pair":
            raise ValueError(f"--op {op}: it has no backward, so there is no gradient to compare")
    found = []
    for spec in OPS.values():
        if spec.kind == "pair" and spec.name in (ops or OPS):
            built = [choice for choice in choices(spec.name, "float32") if not choice.startswith("cuda")]
            found += precision_rows(spec, [backend] if backend else built, dims, seed)
    return found


def precision_rows(spec: Spec, backends: Sequence[str], dims: Dims, seed: int) -> list[dict]:
    """One op: a dict for each backend and gradient."""
    rng = np.random.default_rng(seed)
    inputs = spec.sample(rng, "float32", dims)
    out, _ = REFERENCE[functions(spec)[0]](*inputs.values())
    dout = each(lambda part: rng.standard_normal(part.shape).astype(part.dtype), out)
    found: list[dict] = []
    bounds: dict[str, list] = {}
    for choice in backends:
        source, grads = gradients(spec, choice, inputs, dout)
        kind = "bfloat16" if in_bfloat16(source) else "float32"
        if kind not in bounds:
            product = UNIT[kind] if kind == "bfloat16" else 0.0
            bounds[kind] = [exact_with_bounds(spec.name, inputs, dout, product, likely) for likely in (False, True)]
        certain, likely = bounds[kind]
        found += [{"op": spec.name, "backend": source, "type": kind, "gradient": name,
                   **compared(grads[name], certain[name], likely[name], UNIT[kind])} for name in grads]
    return found


def gradients(spec: Spec, choice: str, inputs: dict, dout: Any) -> tuple[str, dict]:
    """Where an op's functions come from, and {argument: its gradient}."""
    namespace = select(dict.fromkeys(OPS, "numpy") | {spec.name: choice})
    forward, backward = (getattr(namespace, name) for name in functions(spec))
    grads = backward(dout, forward(*inputs.values())[1])
    return namespace.backends[spec.name], dict(zip(spec.differentiable, as_tuple(grads)))


def compared(grad: np.ndarray, certain: Pair, likely: Pair, unit: float) -> dict[str, Any]:
    """The errors of a gradient in units in the last place of each number, median and largest; the largest error, and
    bound, as a share of the tensor's largest number; the largest share of its bounds that an error is. passed: no
    element is beyond its bound."""
    exact, bound = certain
    error, largest = np.abs(grad - exact), np.abs(exact).max(initial=0) or 1.0
    ulp = 2 * unit * 2.0 ** np.floor(np.log2(np.abs(exact), where=exact != 0, out=np.zeros(exact.shape)))
    ulps = (error / ulp)[exact != 0]
    share = shares(error, bound)
    worst = np.unravel_index(share.argmax(), share.shape)
    return {"index": tuple(map(int, worst)), "ulps_median": float(np.median(ulps)) if ulps.size else 0.0,
            "ulps": float(ulps.max(initial=0)), "relative": float(error.max() / largest),
            "bound": float(bound.max() / largest), "ratio": float(share[worst]),
            "likely_ratio": float(shares(error, likely[1]).max()), "passed": bool(share[worst] <= 1)}


def shares(error: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """error / bound; infinite where there is an error and no bound, or no number."""
    share = np.divide(error, bound, out=np.where(error > 0, np.inf, 0), where=bound > 0)
    return np.where(np.isfinite(error), share, np.inf)


def precision_page(rows: list[dict]) -> str:
    """The rows as a table."""
    lines = [f"{'':<59}{'ulps of each number':>22}{'of the largest number':>23}{'worst element':>18}",
             f"{'op':<21}{'backend':<15}{'type':<10}{'gradient':<13}{'median':>8}{'largest':>14}{'error':>12}{'bound':>11}"
             f"{'/bound':>9}{'/likely':>9}"]
    lines += [f"{row['op']:<21}{row['backend']:<15}{row['type']:<10}{row['gradient']:<13}{row['ulps_median']:>8.2f}"
              f"{row['ulps']:>14,.0f}{row['relative']:>12.1e}{row['bound']:>11.1e}{row['ratio']:>9.4f}"
              f"{row['likely_ratio']:>9.4f}  {'ok' if row['passed'] else 'FAIL'}" for row in rows]
    beyond = [row for row in rows if not row["passed"]]
    lines.append(f"{len(rows) - len(beyond)} of {len(rows)} gradients within their bounds; likely: with sqrt(n) for n")
    lines += [f"BEYOND ITS BOUND: {row['op']} on {row['backend']}: gradient of {row['gradient']} at {row['index']}"
              for row in beyond]
    return "\n".join(lines)
