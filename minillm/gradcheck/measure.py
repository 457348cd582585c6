"""A numeric derivative along a line, with its error bar: steps from large to small, extrapolation, and what is left.

Along x + t d the check is of the scalar L = sum(dout * out). `backward` predicts its slope, sum(gradient * d); what is
measured is the residual, the slope of L minus the predicted one, which is zero for a right gradient:

    plus(h)    = (L(h) - L(0) - predicted(h)) / h         the two one-sided slopes
    minus(h)   = (L(-h) - L(0) - predicted(-h)) / -h
    centre(h)  = (plus(h) + minus(h)) / 2                 error a h^2 + b h^4 + ...

Outputs are subtracted one by one before they are summed, so that what did not change adds no rounding, and `predicted`,
the slope times the step, uses the displacement as rounded, x(h) - x(0), so that rounding of x adds none either. For
steps h and h/4 Richardson's extrapolation removes the leading errors:

    R  = (16 centre(h / 4) - centre(h)) / 15              error h^4
    S_plus = (4 plus(h / 4) - plus(h)) / 3                error h^2, and the same h^2 as S_minus has; they differ by h^3

Three things are left, and the error bar is the largest of them (each times a safety factor):

    truncation   R of this pair of steps minus R of the pair before; and S_plus - S_minus, which also sees kinks and
                 steps beyond the scale on which the function varies
    rounding     eps * |dout * out| / h in the 2-norm over outputs: half a unit for outputs that did not change
    noise        what rounding inside the function really does: R's scatter at smaller steps, times their h, over this h

Steps fall by factors of 4 from far above |x| (a function may be smooth on a larger scale than its argument) to 1e-13 of
it, or until rounding is all there is. The smallest bar counts, but only where the estimates from all smaller steps
agree within theirs: a function that saturates looks flat from afar. A **kink** is where S_plus and S_minus each settle,
on different values: any slope between the two is a valid subgradient.

The complex step, Im L(x + i h d) / h with h = 1e-30, subtracts nothing and has no error but rounding; it needs an
analytic forward that takes complex128 (Squire and Trapp 1998), and it never decides alone that a gradient is wrong.
"""
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

ROUNDINGS = 4                   # in units of eps, of an output that changed: what its own sums have lost, typically
COMPLEX_STEP = 1e-30
TINY = 2.0 ** -17               # of the first step
ROUNDED = 2.0 ** 20             # of the noise of a step: what rounding inside a function may make of it
LATER = 4                       # levels below one that show its noise
FLOAT32, FLOAT64 = (2.0 ** -6, 2.0 ** -22, 1e-4), (2.0 ** -13, 2.0 ** -44, 1e-8)     # first step, last step, agreement


def flat(out: Any) -> np.ndarray:
    """All numbers of an output, or a tuple of them, as one float64 (or complex128) vector."""
    if isinstance(out, tuple):
        return np.concatenate([flat(part) for part in out])
    out = np.asarray(out)
    return out.astype(np.complex128 if out.dtype.kind == "c" else np.float64).ravel()


@dataclass
class Scalar:
    """L = sum(dout * out) as a function of one input, all others held; it counts its calls."""

    forward: Callable
    inputs: Mapping[str, Any]
    dout: np.ndarray                # flat, float64
    eps: float
    calls: int = 0

    def __post_init__(self) -> None:
        self.out = self.outputs()
        self.finite = np.isfinite(self.out)
        self.size = np.abs(self.dout * np.where(self.finite, self.out, 0))          # of each summand of L
        self.complex_inputs = {name: as_complex(value) for name, value in self.inputs.items()}

    def outputs(self, **changed: np.ndarray) -> np.ndarray:
        self.calls += 1
        with np.errstate(all="ignore"):
            return flat(self.forward(*{**self.inputs, **changed}.values())[0])

    def complex_outputs(self, **changed: np.ndarray) -> np.ndarray:
        self.calls += 1
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
            return flat(self.forward(*{**self.complex_inputs, **changed}.values())[0])

    def change(self, out: np.ndarray) -> np.ndarray:
        """Outputs minus those at the inputs themselves; none where both are the same infinity."""
        return out - self.out if self.finite.all() else np.where(self.out == out, 0, out - self.out)


def as_complex(value: Any) -> Any:
    """The complex step needs every float array of a call to be complex, since ops refuse mixed dtypes."""
    return value.astype(np.complex128) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


class Side(NamedTuple):
    """One step along a line."""

    residual: float                 # slope of L minus the predicted slope
    noise: float                    # its rounding
    slopes: np.ndarray              # of each summand of L, the prediction not taken off


@dataclass
class Line:
    """L along x + t * direction, and the slope that the gradient predicts."""

    scalar: Scalar
    name: str
    places: Any                     # flat indices of the elements that move
    direction: np.ndarray           # how far, in float64
    grad: np.ndarray                # the gradient at them

    @property
    def slope(self) -> float:
        return float(self.grad @ self.direction)

    def at(self, t: float) -> Side:
        x, scalar = self.scalar.inputs[self.name], self.scalar
        moved, before = x.flatten(), x.ravel()[self.places].astype(np.float64)
        with np.errstate(all="ignore"):
            moved[self.places] = before + t * self.direction
            predicted = self.grad * (moved[self.places] - before)
            change = scalar.dout * scalar.change(scalar.outputs(**{self.name: moved.reshape(x.shape)}))
            noise = norm(scalar.size) / 2 + ROUNDINGS * (norm(scalar.size[change != 0]) + norm(change))
            noise = scalar.eps * noise + 4 * EPS * norm(predicted)
            return Side(float((change.sum() - predicted.sum()) / t), float(noise / abs(t)), change / t)

    def level(self, h: float) -> "Level":
        plus, minus = self.at(h), self.at(-h)
        return Level(h, plus.residual, minus.residual, max(plus.noise, minus.noise),
                     not plus.slopes.any() and not minus.slopes.any())

    def complex_residual(self) -> float:
        """The same by the complex step: the derivative minus the predicted slope."""
        x = self.scalar.complex_inputs[self.name]
        moved = x.flatten()
        moved[self.places] += 1j * COMPLEX_STEP * self.direction
        out = self.scalar.complex_outputs(**{self.name: moved.reshape(x.shape)})
        with np.errstate(all="ignore"):
            return float(self.scalar.dout @ (out.imag / COMPLEX_STEP) - self.slope)


class Level(NamedTuple):
    """Both one-sided residuals at one step."""

    h: float
    plus: float
    minus: float
    noise: float
    still: bool = False             # nothing changed

    @property
    def centre(self) -> float:
        return (self.plus + self.minus) / 2


class Measured(NamedTuple):
    """A residual with its error bar. At a kink it is an interval from `low` to `high`."""

    residual: float
    bar: float
    low: float
    high: float
    h: float

    @property
    def kink(self) -> bool:
        return self.high > self.low

    @property
    def outside(self) -> float:
        """How far a residual of zero lies outside the bar: above 0, the gradient is wrong."""
        return max(self.low, -self.high) - self.bar


def measure(line: Line, scale: float, limits: tuple[float, float, float], smallest: float) -> Measured:
    """The residual along a line by steps from large to small; NaN where too few of them are finite.

    scale: a typical size of x along the line. limits: FLOAT32 or FLOAT64. smallest: the size of what moves, where that
    is less: sqrt and log end at zero.
    """
    levels: list[Level] = []
    h = max(16 * scale, 1.0)
    with np.errstate(all="ignore"):
        while h > min(scale, smallest) * limits[1]:
            level = line.level(h)
            h /= 4
            if np.isfinite(level.centre):
                levels.append(level)
            if len(levels) > 6 and drowned(levels, line):
                break
        return best_of(levels, line)


def drowned(levels: list[Level], line: Line) -> bool:
    """Whether rounding has grown far beyond the derivative, as it does with each further step. A function that is flat
    from afar has slopes that grow as fast, up to its own scale, but far above any rounding."""
    recent = [abs(levels[k].centre - levels[k - 1].centre) for k in range(len(levels) - 3, len(levels))]
    largest = max(abs(line.slope), *(abs(level.centre + line.slope) for level in levels[:3]))
    return 10 * largest < min(recent) < ROUNDED * levels[-1].noise


def best_of(levels: list[Level], line: Line) -> Measured:
    """The level with the smallest bar of those that smaller steps confirm, or the kink that all of them see."""
    found = [(k, bar_of(levels, k)) for k in range(2, len(levels) - LATER) if not stuck(levels, k)]
    if not found:
        return Measured(np.nan, np.nan, np.nan, np.nan, np.nan)
    residuals = {k: richardson(levels, k) for k, _ in found}
    confirmed = [(bar, k) for k, bar in found
                 if all(abs(residuals[j] - residuals[k]) <= bar + other for j, other in found if j > k)]
    bar, k = min(confirmed)
    kink = kink_of(levels)
    if kink is not None and kink.high - kink.low < 2 * bar:
        return by_outputs(line, kink)
    return Measured(residuals[k], bar, residuals[k], residuals[k], levels[k].h)


def bar_of(levels: list[Level], k: int) -> float:
    """The error bar of level k: truncation, rounding, and the noise that the levels after it show."""
    later = range(k + 1, min(k + 1 + LATER, len(levels)))
    noise = max(abs(richardson(levels, j) - richardson(levels, j - 1)) * levels[j].h for j in later)
    return max(4 * truncation(levels, k), levels[k].noise, 4 * noise / levels[k].h)


def stuck(levels: list[Level], k: int) -> bool:
    """Whether a step is too small to change anything, by rounding inside the function: where larger ones do, and where
    no step near the size of x has found a flat place."""
    first = next((j for j, level in enumerate(levels) if level.still), 0)
    return levels[k].still and first > 0 and levels[first].h < TINY * levels[0].h


def truncation(levels: list[Level], k: int) -> float:
    """How much the extrapolation of level k may still be off."""
    plus, minus = sides(levels, k)
    return max(abs(richardson(levels, k) - richardson(levels, k - 1)), abs(plus - minus))


def richardson(levels: list[Level], k: int) -> float:
    return (16 * levels[k].centre - levels[k - 1].centre) / 15


def sides(levels: list[Level], k: int) -> tuple[float, float]:
    return (4 * levels[k].plus - levels[k - 1].plus) / 3, (4 * levels[k].minus - levels[k - 1].minus) / 3


def kink_of(levels: list[Level]) -> Measured | None:
    """One-sided slopes that settle on two values, or None."""
    found = None
    for k in range(2, len(levels)):
        plus, minus = sides(levels, k)
        before = sides(levels, k - 1)
        bar = 2 * max(abs(plus - before[0]), abs(minus - before[1]), levels[k].noise)
        if abs(plus - minus) > 10 * bar and (found is None or bar < found.bar):
            found = Measured((plus + minus) / 2, bar, min(plus, minus), max(plus, minus), levels[k].h)
    return found


def by_outputs(line: Line, kink: Measured) -> Measured:
    """The same kink seen output by output: many that lie on one line may point in opposite directions and hide each
    other in the sum, but each of them allows any slope between its own two sides."""
    plus, minus = ((4 * line.at(t).slopes - line.at(4 * t).slopes) / 3 for t in (kink.h, -kink.h))
    apart = np.abs(plus - minus)
    kinked = apart > 1e-3 * apart.max(initial=0)
    slack = (apart[kinked].sum() - (kink.high - kink.low)) / 2              # zero where all point the same way
    return kink._replace(low=kink.low - max(0.0, slack), high=kink.high + max(0.0, slack))


def norm(x: np.ndarray) -> float:
    largest = float(np.abs(x).max(initial=0))
    return largest * float(np.sqrt(np.square(x / largest).sum())) if 0 < largest < np.inf else largest


EPS = float(np.finfo(np.float64).eps)
