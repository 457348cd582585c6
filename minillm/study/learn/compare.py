"""Comparing results with the reference's: shapes and kinds first, then values, and what a difference looks like."""
from collections.abc import Mapping
from typing import Any

import numpy as np

from .exercise import Wrong

EXACT = 1e-9            # of the largest number, in float64


def check_kind(name: str, mine: Any, right: Any) -> None:
    """Raise Wrong unless a result has the type and, for an array, the shape and dtype of the reference's."""
    if isinstance(right, (tuple, list)):
        if not isinstance(mine, (tuple, list)) or len(mine) != len(right):
            raise Wrong(f"{name} must be {kind(right)}: got {kind(mine)}")
        for i, (a, b) in enumerate(zip(mine, right)):
            check_kind(f"{name}[{i}]", a, b)
    elif isinstance(right, np.ndarray) and right.ndim:
        check_array(name, mine, right)
    elif isinstance(right, (float, np.floating, np.ndarray)):
        if not isinstance(mine, (float, int, np.number, np.ndarray)) or np.ndim(mine) or isinstance(mine, bool):
            raise Wrong(f"{name} must be a number: got {kind(mine)}")
    elif isinstance(right, (bool, np.bool_, int, np.integer)):
        numbers = (bool, np.bool_, int, np.integer)
        if not isinstance(mine, numbers) and not (isinstance(mine, np.ndarray) and not mine.ndim):
            raise Wrong(f"{name} must be {kind(right)}: got {kind(mine)}")
    elif not isinstance(mine, type(right)):
        raise Wrong(f"{name} must be {kind(right)}: got {kind(mine)}")


def check_array(name: str, mine: Any, right: np.ndarray) -> None:
    if not isinstance(mine, np.ndarray):
        raise Wrong(f"{name} must be an array of shape {right.shape}: got {kind(mine)}"
                    + (": is a `return` missing?" if mine is None else ""))
    if mine.shape != right.shape:
        raise Wrong(f"{name} must have shape {right.shape}: got {mine.shape}")
    if mine.dtype.kind == right.dtype.kind == "i" or mine.dtype == right.dtype:
        return
    promoted = ": a float64 array or scalar, such as np.sqrt(2), promotes it; x.dtype decides, and Python's own " \
               "numbers leave it as it is" if mine.dtype == np.float64 and right.dtype == np.float32 else ""
    raise Wrong(f"{name} must be {right.dtype}: got {mine.dtype}{promoted}")


def kind(value: Any) -> str:
    """A value's type in words."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return "None" if value is None else f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def equal(mine: Any, right: Any, tolerance: float = EXACT) -> bool:
    """The same, numbers up to the tolerance of the largest."""
    if isinstance(right, (tuple, list)):
        return isinstance(mine, (tuple, list)) and len(mine) == len(right) and all(
            equal(a, b, tolerance) for a, b in zip(mine, right))
    if isinstance(right, Mapping):
        return isinstance(mine, Mapping) and list(map(str, sorted(mine, key=str))) == list(
            map(str, sorted(right, key=str))) and all(equal(mine[key], right[key], tolerance) for key in right
                                                      if key in mine)
    if isinstance(right, (np.ndarray, float, np.floating)):
        return np.shape(mine) == np.shape(right) and not wrong_places(mine, right, tolerance).any()
    return bool(mine == right)


def wrong_places(mine: Any, right: Any, tolerance: float = EXACT) -> np.ndarray:
    """Which numbers differ; NaN equals NaN, and infinity itself."""
    tolerance = tolerance if np.asarray(right).dtype.kind == "f" else 0             # integers are the same or not
    a, b = np.asarray(mine, np.float64), np.asarray(right, np.float64)
    size = np.abs(b[np.isfinite(b)]).max(initial=0)
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= tolerance * max(size, 1e-300)
    return ~(near | (a == b) | (np.isnan(a) & np.isnan(b)))


def difference(name: str, mine: Any, right: Any, tolerance: float = EXACT) -> str:
    """The first number that differs, and how all of them do, where that is simple."""
    a, b = np.asarray(mine, np.float64), np.asarray(right, np.float64)
    wrong = wrong_places(mine, right, tolerance)
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    share = f" ({wrong.sum()} of {wrong.size} numbers differ)" if wrong.size > 1 else ""
    return f"{where} is {a[index]:.6g}, right is {b[index]:.6g}{share}{pattern(a, b, wrong)}"


def pattern(a: np.ndarray, b: np.ndarray, wrong: np.ndarray) -> str:
    """A factor, a constant, rows that do not sum to 1: in words, or ""."""
    if not np.isfinite(a).all():
        return "; an overflow or a division by 0 gives nan or inf" if np.isfinite(b).all() else ""
    if a.size < 3 or not np.isfinite(b).all():
        return ""
    largest = np.unravel_index(np.abs(b).argmax(), b.shape)
    factor = a[largest] / b[largest] if b[largest] else 0
    if factor and np.allclose(a, factor * b, 1e-6, 1e-9 * np.abs(b).max()):
        return f": all are {factor:.6g} times the right ones"
    if np.allclose(a - b, (a - b)[largest], 1e-6, 1e-9 * np.abs(b).max()):
        return f": all are off by {(a - b)[largest]:.6g}"
    if np.allclose(b.sum(-1), 1) and not np.allclose(a.sum(-1), 1):
        return ": rows must sum to 1"
    return ""
