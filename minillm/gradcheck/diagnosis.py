"""What is wrong with a gradient: candidate explanations, each tried against the measured gradient, in one sentence.

A is what the backward gave, N what was measured, at every element where that is affordable. An explanation predicts A
from N (and from x, out, and the single terms of the sum over outputs that N is); it is told only if nothing of the
error is left, to within a thousandth, at more elements than it has free numbers. No explanation
fits most mistakes: then the sentence says only where the wrong elements are.
"""
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

LEFT = {4: 2e-2, 8: 1e-3}               # of the error, when it counts as explained, by the size of the dtype
CLOSE = {4: 1e-2, 8: 1e-5}              # of a sum's largest term: equal
TERMS = 48                              # elements whose sums are taken apart


@dataclass
class Evidence:
    """Everything known about one wrong gradient, in the shape of its input."""

    analytic: np.ndarray
    numeric: np.ndarray
    wrong: np.ndarray                   # bool: where they differ by more than the error bar
    x: np.ndarray
    outs: Sequence[np.ndarray]
    douts: Sequence[np.ndarray]
    terms: Callable                     # flat index -> (outputs,): the summands of the numeric gradient, flat
    others: dict[str, np.ndarray]       # what the backward gave for the other inputs
    integers: bool                      # whether there are indices among the inputs

    def close(self, got: Any, want: Any, where: Any = None) -> bool:
        """Whether an explanation leaves nothing of the error at the places where something is wrong."""
        where = self.wrong if where is None else where
        got, want = np.broadcast_to(got, self.x.shape)[where], np.broadcast_to(want, self.x.shape)[where]
        error = (self.analytic - self.numeric)[self.wrong]
        size = LEFT[self.x.dtype.itemsize] * math.sqrt(np.mean(np.square(error))) if error.size else 0.0
        return bool(got.size and np.any(want) and (np.abs(got - want) <= size).all())


def diagnose(seen: Evidence) -> str:
    """One sentence: the first explanation that fits, and where."""
    with np.errstate(all="ignore"):
        for explain in (zero, factor, transposed, moved, of_another, summed, terms_missing):
            if words := explain(seen):
                return words + place(seen)
    return "wrong" + (place(seen) or " everywhere")


def diagnose_some(analytic: np.ndarray, numeric: np.ndarray, wrong: np.ndarray, x: np.ndarray, size: int) -> str:
    """The same from a few elements of many: what can be seen without their neighbours."""
    seen = Evidence(analytic, numeric, wrong, x, [], [], lambda i: np.zeros(0), {}, False)
    with np.errstate(all="ignore"):
        words = next(filter(None, (explain(seen) for explain in (zero, factor))), "wrong")
    return f"{words}, at {int(wrong.sum())} of the {len(x)} elements measured ({size:,} in all)"


def zero(seen: Evidence) -> str | None:
    if (seen.analytic[seen.wrong] == 0).all():
        return "zero instead of the gradient: it is missing"
    return None


def factor(seen: Evidence) -> str | None:
    """A = c N: the sign, a simple number, a size of an axis."""
    numeric, analytic = seen.numeric[seen.wrong], seen.analytic[seen.wrong]
    largest = np.argmax(np.abs(numeric))
    c = analytic[largest] / numeric[largest]
    if not np.isfinite(c) or not c or not seen.close(seen.analytic, c * seen.numeric):
        return None
    if abs(c + 1) < 1e-4:
        return "the sign is wrong"
    for value, name in factors(seen) if numeric.size > 1 else [(2.0, "2"), (0.5, "1/2")]:
        if abs(abs(c) - value) <= 1e-4 * value:
            return f"{'-' if c < 0 else ''}{name} times the right gradient"
    return f"{c:.8g} times the right gradient" if numeric.size >= 3 else None


def factors(seen: Evidence) -> Iterator[tuple[float, str]]:
    """Numbers by which gradients are often off, with names: sizes, their products and roots, small fractions."""
    sizes = {f"{size} (the size of axis {axis} of the input)": size for axis, size in enumerate(seen.x.shape)}
    for part in seen.outs:
        sizes |= {f"{size} (the size of axis {axis} of out)": size for axis, size in enumerate(part.shape)
                  if size not in sizes.values()}
        sizes |= {f"{part.size} (the number of outputs)": part.size}
    sizes |= {f"{seen.x.size} (the number of elements)": seen.x.size}
    whole = [(2.0, "2"), *((size, name) for name, size in sizes.items() if size > 2)]
    whole += [(a * b, f"{a * b} ({a} * {b}, sizes of axes)") for a, b in combinations(sizes.values(), 2)]
    whole += [(math.sqrt(n), f"sqrt({n})") for n in range(2, 257) if math.isqrt(n) ** 2 != n]
    for value, name in whole:
        yield value, name
        yield 1 / value, f"1/{name}"
    for bottom in range(1, 13):
        for top in range(1, 13 * bottom):
            if math.gcd(top, bottom) == 1 and top != bottom:
                yield top / bottom, f"{top}/{bottom}" if bottom > 1 else f"{top}"


def transposed(seen: Evidence) -> str | None:
    shape, everywhere = seen.x.shape, np.ones(seen.x.shape, bool)
    for a, b in combinations(range(len(shape)), 2):
        if min(shape[a], shape[b]) > 1:
            other = np.swapaxes(seen.numeric, a, b)
            if seen.close(seen.analytic, other.reshape(shape), everywhere):
                same = other.shape == shape
                return f"transposed: axes {a} and {b} are exchanged" if same else (
                    f"in the order of axes {a} and {b} exchanged, then reshaped")
    return None


def moved(seen: Evidence) -> str | None:
    """Rolled, shifted or reversed along an axis."""
    for axis, size in enumerate(seen.x.shape):
        inner = np.ones(seen.x.shape, bool)
        for step in (1, -1):
            np.moveaxis(inner, axis, 0)[...] = True
            np.moveaxis(inner, axis, 0)[0 if step == 1 else -1] = False
            if size > 2 and seen.close(seen.analytic, np.roll(seen.numeric, step, axis), inner):
                return f"off by one position along axis {axis}: element i holds the gradient of element i{-step:+d}"
        if size > 2 and seen.close(seen.analytic, np.flip(seen.numeric, axis), np.ones(seen.x.shape, bool)):
            return f"in reverse order along axis {axis}"
    return None


def of_another(seen: Evidence) -> str | None:
    for name, grad in seen.others.items():
        if grad.shape == seen.x.shape and grad.size > 1 and seen.close(grad, seen.numeric,
                                                                       np.ones(grad.shape, bool)):
            return f"exchanged with another: what is given as the gradient of {name} is this one's"
    if len(seen.douts) == 1 and seen.douts[0].shape == seen.x.shape and seen.close(seen.analytic, seen.douts[0]):
        return "dout itself: the slope of the function is missing"
    return None


def summed(seen: Evidence) -> str | None:
    """Sums over outputs with terms left out: only the last or first of them, one index of an axis, dout ignored."""
    places = np.flatnonzero(seen.wrong)
    places = places[np.linspace(0, len(places) - 1, min(TERMS, len(places))).astype(int)]
    analytic, dout = seen.analytic.ravel()[places], np.concatenate([part.ravel() for part in seen.douts])
    terms = np.array([seen.terms(i) for i in places])                                    # (places, outputs)
    size = np.abs(terms).max(axis=1, keepdims=True)
    used = np.abs(terms) > CLOSE[seen.x.dtype.itemsize] * size
    counts = used.sum(axis=1)

    def fits(want: np.ndarray) -> bool:
        bound = CLOSE[seen.x.dtype.itemsize] * np.maximum(size[:, 0], np.abs(want))
        return bool((np.abs(analytic - want) <= bound).all()) and bool(np.any(want))

    if fits((terms / dout).sum(axis=1)):
        return "the gradient of a dout of ones: dout is ignored"
    if (counts > 1).all():
        last = terms[np.arange(len(places)), terms.shape[1] - 1 - used[:, ::-1].argmax(axis=1)]
        for want, which in ((last, "last"), (terms[np.arange(len(places)), used.argmax(axis=1)], "first")):
            if fits(want):
                return (f"only the {which} of duplicate indices counts (np.add.at adds them all)" if seen.integers else
                        f"only the {which} of {counts.max()} outputs counts: the sum over a broadcast axis is missing")
    start = 0
    for part in seen.outs:
        blocks = terms[:, start:start + part.size].reshape(len(places), *part.shape)
        start += part.size
        for axis in range(part.ndim):
            sums = np.moveaxis(blocks, axis + 1, 1).reshape(len(places), part.shape[axis], -1).sum(axis=2)
            for index in range(part.shape[axis]):
                if part.shape[axis] > 1 and len(places) > 1 and fits(terms.sum(axis=1) - sums[:, index]):
                    return f"index {index} of axis {axis} of out is left out of the sum"
                if part.shape[axis] > 2 and len(places) > 1 and fits(sums[:, index]):
                    return f"only index {index} of axis {axis} of out counts: the sum over that axis is missing"
    return None


def terms_missing(seen: Evidence) -> str | None:
    """The corrections of a normalisation: the error lies, row by row, along 1, along x, or along out."""
    error = seen.analytic - seen.numeric
    for axis in reversed(range(seen.x.ndim)):
        if seen.x.shape[axis] < 4 or not seen.wrong.any():
            continue
        rows = np.moveaxis(error, axis, -1).reshape(-1, seen.x.shape[axis])
        one = np.ones_like(rows)
        if spanned(rows, [one], seen):
            flat = np.abs(seen.numeric.sum(axis)) <= 1e-3 * np.abs(seen.numeric).sum(axis)
            return f"the mean over axis {axis} is not taken off" if flat.all() else (
                f"off by a constant along axis {axis}: a term that is the same for all of it is missing")
        for name, array in [("x", seen.x), *((f"out{'' if len(seen.outs) == 1 else i}", out)
                                             for i, out in enumerate(seen.outs))]:
            if array.shape != seen.x.shape:
                continue
            column = np.moveaxis(array, axis, -1).reshape(rows.shape)
            if spanned(rows, [column], seen):
                return (f"a term along {name} is missing (of a softmax or norm over axis {axis}): the error is a "
                        f"multiple of {name}")
            if seen.x.shape[axis] > 4 and spanned(rows, [one, column], seen):
                return (f"the variance term over axis {axis} is missing or wrong: the error lies along 1 and {name}")
    return None


def spanned(rows: np.ndarray, basis: Sequence[np.ndarray], seen: Evidence) -> bool:
    """Whether each row of the error is a combination of the rows of the basis."""
    for i, row in enumerate(rows):
        columns = np.stack([part[i] for part in basis], axis=1).astype(np.float64)
        left = row - columns @ np.linalg.lstsq(columns, row, rcond=None)[0]
        if not (np.abs(left) <= 10 * CLOSE[seen.x.dtype.itemsize] * np.abs(row).max()).all():
            return False
    return True


def place(seen: Evidence) -> str:
    """Where the wrong elements are, "" for everywhere."""
    wrong, count = seen.wrong, int(seen.wrong.sum())
    if count >= 0.9 * wrong.size:
        return ""
    if count == 1:
        return f", at one element of {wrong.size:,}"
    for axis in range(wrong.ndim):
        hit = np.flatnonzero(np.moveaxis(wrong, axis, 0).reshape(wrong.shape[axis], -1).any(axis=1))
        if len(hit) < wrong.shape[axis]:
            return f", only {named(hit, wrong.shape[axis])} of axis {axis} ({count:,} of {wrong.size:,} elements)"
    return f", at {count:,} of {wrong.size:,} elements"


def named(hit: np.ndarray, size: int) -> str:
    first, last = int(hit[0]), int(hit[-1])
    if len(hit) == 1:
        edge = " (the last)" if first == size - 1 else " (the first)" if not first else ""
        return f"at index {first}{edge}"
    if last - first + 1 == len(hit):
        return f"at indices {first} to {last}" + (" (the tail)" if last == size - 1 else "")
    return f"at {len(hit)} of {size} indices"
