"""Numbers as JSON: every digit is the package's.

A float is written as the shortest decimal that gives the same float32 back, the one that NumPy prints: 0.1, not
0.10000000149011612. As a Python float it has the same digits, in JSON, too. Large arrays are cut: some rows and
columns, and for all of it the norm, the range and a histogram.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...ops.optimizer.sum_squares import sum_squares

Array = np.ndarray
BINS = 16
SIDE = 8                    # rows and columns of a cut


def shortest(values: Array) -> list:
    """The numbers of an array, flat: integers, or floats of as few digits as tell them from all others of the type."""
    values = np.asarray(values).ravel()
    return values.tolist() if values.dtype.kind in "iub" else values.astype("U32").astype(np.float64).tolist()


def rounded(value: float, digits: int = 9) -> float:
    """A statistic, of so many digits."""
    return float(f"{float(value):.{digits - 1}e}")


class Cut(NamedTuple):
    """Rows and columns of an array seen as a matrix; `whole` where that is all of it."""

    rows: list[int]
    cols: list[int]
    width: int
    whole: bool

    @property
    def places(self) -> Array:
        """The flat indices."""
        return (np.array(self.rows)[:, None] * self.width + np.array(self.cols)).ravel()

    @property
    def size(self) -> int:
        return len(self.rows) * len(self.cols)


def cut_of(shape: tuple[int, ...], most: float, rows: Sequence[int] = (), cols: Sequence[int] = ()) -> Cut:
    """All of an array of at most `most` numbers; else a few rows and columns, those that are asked for first."""
    width = shape[-1] if shape else 1
    height = math.prod(shape) // max(1, width)
    if height * width <= most:
        return Cut(list(range(height)), list(range(width)), width, True)
    side = max(1, min(SIDE, math.isqrt(int(most))))
    return Cut(some(rows, height, side), some(cols, width, side * side if height == 1 else side), width, False)


def some(wanted: Sequence[int], size: int, count: int) -> list[int]:
    found = dict.fromkeys([*wanted][:count])
    return sorted([*found, *(i for i in range(min(size, 2 * count)) if i not in found)][:min(count, size)])


def statistics(array: Array, histogram: bool) -> dict:
    """Norm, mean and range, in float64; with the histogram where asked for."""
    floats = array.ravel() if array.dtype.kind == "f" else array.ravel().astype(np.float64)
    found = {"norm": rounded(math.sqrt(sum_squares(floats))), "mean": rounded(floats.mean(dtype=np.float64)),
             "min": shortest(array.min())[0], "max": shortest(array.max())[0]}
    if histogram:
        counts, edges = np.histogram(floats, BINS)
        found["histogram"] = {"low": rounded(edges[0]), "high": rounded(edges[-1]), "counts": counts.tolist()}
    return found
