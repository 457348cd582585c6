"""Confidence intervals that hold what they promise, and paired comparisons."""
import numpy as np
import pytest

from minillm.evaluate import statistics


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        sizes = rng.integers(1, 20, 60)
        low, high = statistics.interval(rng.poisson(3.0 * sizes), sizes, trial)
        hits += low <= 3.0 <= high
    assert 0.87 <= hits / 200 <= 0.99


def test_paired_comparison_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(1)
    first = rng.normal(100, 30, 80)                                  # documents differ by 30, the models by 1
    second = first + rng.normal(1, 2, 80)
    low, high = statistics.interval(first, np.ones(80))
    assert low < second.mean() < high
    result = statistics.compare(first, second, np.ones(80))
    assert result["p"] < 0.01 and result["low"] < 1 < result["high"]
    chance = statistics.compare(first, first + rng.normal(0, 2, 80), np.ones(80))
    assert chance["p"] > 0.05
    assert statistics.compare(first, first, np.ones(80))["p"] == 1
    with pytest.raises(ValueError, match="same items"):
        statistics.compare(first, first[1:], np.ones(80))


@pytest.mark.parametrize("first, second, p", [
    ([1, 1, 0, 0], [1, 1, 0, 0], 1.0), ([1] * 6, [0] * 6, 2 / 64), ([1, 0], [0, 1], 1.0),
    ([1] * 9 + [0], [0] * 9 + [1], 2 * 11 / 1024)])
def test_sign_test_by_hand(first, second, p):
    assert statistics.sign_test(first, second) == pytest.approx(p)


@pytest.mark.parametrize("count, total, low, high",
                         [(0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (10, 20, 0.2993, 0.7007)])
def test_intervals_of_shares_by_wilson(count, total, low, high):
    """Values from the formula by hand; resampling would make [0, 0] and [1, 1] of the first two."""
    assert statistics.share_interval(count, total) == pytest.approx((low, high), abs=1e-4)
    with pytest.raises(ValueError, match="0 <= count <= total"):
        statistics.share_interval(21, 20)


def test_a_few_documents_prove_nothing():
    """All of them better by the same: with 3 that is a chance of 1 in 4, with 20 of 1 in half a million."""
    few, many = (statistics.compare([1.0] * n, [2.0] * n, [1.0] * n)["p"] for n in (3, 20))
    assert few == 0.25 and many == 1 / statistics.RESAMPLES
