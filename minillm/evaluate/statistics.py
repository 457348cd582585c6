"""How sure is a number: resample what it was measured on, and see how much it moves.

Documents differ from each other far more than tokens inside one do, so the unit that is resampled is the document
(Efron 1979, "Bootstrap methods"). Two models are compared on the same documents: what varies is only their difference,
so much smaller differences can be told from chance (Koehn 2004, "Statistical significance tests for machine
translation evaluation").
"""
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
Z = 1.959963984540054           # the normal quantile of (1 + CONFIDENCE) / 2


def interval(numerators: Any, denominators: Any, seed: int = 0) -> tuple[float, float]:
    """(low, high): a 95% interval of sum(numerators) / sum(denominators), by resampling the pairs."""
    return quantiles(resampled_ratio(numerators, denominators, draws(len(numerators), seed)))


def share_interval(count: int, total: int) -> tuple[float, float]:
    """(low, high): a 95% interval of the share count / total, by Wilson (1927).

    Resampling knows only what it saw: of 20 right answers in 20 it makes [1, 1]. This one has room above and below.
    """
    if not 0 <= count <= total or not total:
        raise ValueError(f"expected 0 <= count <= total, and total above 0: got {count} of {total}")
    share, z2 = count / total, Z * Z
    centre, half = share + z2 / (2 * total), Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    low, high = ((centre + side * half) / (1 + z2 / total) for side in (-1, 1))
    return max(0.0, low) if count else 0.0, min(1.0, high) if count < total else 1.0


def compare(first: Any, second: Any, denominators: Any, seed: int = 0) -> dict[str, float]:
    """Is sum(first) / sum(denominators) different from sum(second) / ...? {difference, low, high, p}, paired.

    p: the share of resamples in which the difference has the other sign, twice (two-sided), at least 1 / resamples; and
    at least 2 / 2^items, the chance that so many coins all fall the same way: three documents prove nothing.
    """
    first, second, denominators = (np.asarray(a, np.float64) for a in (first, second, denominators))
    if not len(first) == len(second) == len(denominators):
        raise ValueError(f"both must be measured on the same items: got {len(first)} and {len(second)}")
    difference = resampled_ratio(second - first, denominators, draws(len(first), seed))
    low, high = quantiles(difference)
    other = min((difference <= 0).mean(), (difference >= 0).mean())
    return {"difference": float((second - first).sum() / denominators.sum()), "low": low, "high": high,
            "p": float(min(1.0, max(2 * other, 1 / RESAMPLES, 2.0 ** (1 - len(first)))))}


def draws(count: int, seed: int) -> np.ndarray:
    """(RESAMPLES, count) numbers of items."""
    if not count:
        raise ValueError("there is nothing to resample")
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def resampled_ratio(numerators: Any, denominators: Any, chosen: np.ndarray) -> np.ndarray:
    numerators, denominators = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    return numerators[chosen].sum(1) / denominators[chosen].sum(1)


def quantiles(values: Any) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def sign_test(first_right: Sequence[bool], second_right: Sequence[bool]) -> float:
    """p that two models which are equally good differ this much: the exact test of McNemar (1947) on the items on
    which only one of them is right."""
    only_first = sum(a and not b for a, b in zip(first_right, second_right, strict=True))
    only_second = sum(b and not a for a, b in zip(first_right, second_right, strict=True))
    n, k = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n)
