"""Bootstrap confidence intervals, and paired significance tests between two models.

Documents differ from each other far more than tokens inside one do, so the unit that is resampled is the document
(Efron 1979, "Bootstrap methods"). Two models are compared on the same documents: what varies is only their difference,
so much smaller differences can be told from chance (Koehn 2004, "Statistical significance tests for machine translation
evaluation").
"""
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 2000
CONFIDENCE = 0.95
Z = 1.959963984540054           # the normal quantile of (1 + CONFIDENCE) / 2


def interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """(low, high): a 95% bootstrap interval of sum(numerators) / sum(denominators), resampling the pairs."""
    return quantiles(resampled_ratio(numerators, denominators, draws(len(np.asarray(numerators)), seed)))


def share_interval(count: int, total: int) -> tuple[float, float]:
    """(low, high): a 95% score interval of the share p = count / total, by Wilson (1927).

        centre = (p + z^2 / (2 n)) / (1 + z^2 / n)         of n in total; z = 1.96 is the normal quantile
        half = z * sqrt(p (1 - p) / n + z^2 / (4 n^2)) / (1 + z^2 / n)
        low = centre - half         high = centre + half

    The bootstrap knows only what it saw: of 20 right answers in 20 it makes [1, 1]. This one has room above and below.
    """
    if not 0 <= count <= total or not total:
        raise ValueError(f"expected 0 <= count <= total, and total above 0: got {count} of {total}")
    share, z2 = count / total, Z * Z
    centre, half = share + z2 / (2 * total), Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    low, high = ((centre + side * half) / (1 + z2 / total) for side in (-1, 1))
    return max(0.0, low) if count else 0.0, min(1.0, high) if count < total else 1.0


def compare(first: ArrayLike, second: ArrayLike, denominators: ArrayLike, seed: int = 0) -> dict[str, float]:
    """Paired bootstrap of sum(second) / sum(denominators) minus sum(first) / ...: {difference, low, high, p}.

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
    """(RESAMPLES, count) numbers of items, drawn with replacement."""
    if not count:
        raise ValueError("there is nothing to resample")
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def resampled_ratio(numerators: ArrayLike, denominators: ArrayLike, chosen: np.ndarray) -> np.ndarray:
    """(RESAMPLES,) ratios of sums over the chosen items."""
    return np.asarray(numerators, np.float64)[chosen].sum(1) / np.asarray(denominators, np.float64)[chosen].sum(1)


def quantiles(values: np.ndarray) -> tuple[float, float]:
    """The two ends of the CONFIDENCE interval."""
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def sign_test(first_right: Iterable[bool], second_right: Iterable[bool]) -> float:
    """p-value of the exact test of McNemar (1947) between two models, on the items that only one of them gets right.

        p = min(1, 2 * sum over i <= k of binomial(n, i) / 2^n)         of n such items, of which one model has only k
    """
    only_first = sum(a and not b for a, b in zip(first_right, second_right, strict=True))
    only_second = sum(b and not a for a, b in zip(first_right, second_right, strict=True))
    n, k = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n)
