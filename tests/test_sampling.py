"""Sampling: the exact distribution, its frequencies, draws that repeat, and settings that are refused by name."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from minillm import sampling
from minillm.sampling import Sampling, distribution, draw, log_probability, sample, top_logprobs

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.25, 0.05]))
SEVEN = np.array([0.3, -1.0, 1.2, 0.0, 0.9, -0.2, 0.5])
RESHAPED = [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.4}, {"repetition_penalty": 2.0}]


# ---- the distribution ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, expected", [
    ({}, [0.1, 0.4, 0.2, 0.25, 0.05]),
    ({"temperature": 0.5}, np.array([1, 16, 4, 6.25, 0.25]) / 27.5),           # p squared, normalised
    ({"temperature": 0}, [0, 1, 0, 0, 0]),
    ({"top_k": 1}, [0, 1, 0, 0, 0]),
    ({"top_k": 2}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
    ({"top_k": 5}, [0.1, 0.4, 0.2, 0.25, 0.05]),
    ({"top_k": 99}, [0.1, 0.4, 0.2, 0.25, 0.05]),
    ({"top_p": 1e-9}, [0, 1, 0, 0, 0]),
    ({"top_p": 0.39}, [0, 1, 0, 0, 0]),
    ({"top_p": 0.41}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),                     # 0.4 does not reach 0.41
    ({"top_p": 0.94}, np.array([2, 8, 4, 5, 0]) / 19),
    ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.25, 0.05]),
    ({"top_k": 3, "top_p": 0.6}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),          # top_p acts on what top_k left
    ({"temperature": 2.0, "top_k": 2}, np.array([0, 0.4 ** 0.5, 0, 0.5, 0]) / (0.4 ** 0.5 + 0.5)),
    ({"min_p": 0.0}, [0.1, 0.4, 0.2, 0.25, 0.05]),
    ({"min_p": 0.49}, [0, 0.4 / 0.85, 0.2 / 0.85, 0.25 / 0.85, 0]),            # 0.2 is half of 0.4
    ({"min_p": 0.51}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
    ({"min_p": 1.0}, [0, 1, 0, 0, 0]),
    ({"temperature": 0.5, "min_p": 0.3}, [0, 16 / 22.25, 0, 6.25 / 22.25, 0]),  # of the sharpened probabilities
], ids=str)
def test_distribution_by_hand(changes, expected):
    assert_close("distribution", distribution(LOGITS, Sampling(**changes)), expected, "by hand")


def test_repetition_penalty_by_hand():
    """Twice seen is penalised once; a positive logit is divided, a negative one multiplied."""
    logits = np.array([2.0, -1.0, 0.0, 1.0])
    expected = np.exp([1.0, -2.0, 0.0, 1.0])
    got = distribution(logits, Sampling(repetition_penalty=2.0), [0, 1, 0, 2])
    assert_close("distribution", got, expected / expected.sum(), "by hand")
    assert distribution(logits, Sampling(temperature=0, repetition_penalty=3.0), [0]).argmax() == 3


def test_distribution_is_float64_and_leaves_the_logits_alone():
    logits = LOGITS.astype("float32")
    logits.flags.writeable = False
    p = distribution(logits, Sampling(0.7, 3, 0.9, 0.1, 1.3), [1])
    assert p.dtype == "float64" and p.sum() == pytest.approx(1, abs=1e-15)


def test_equal_logits_are_cut_by_order():
    assert distribution(np.zeros(4), Sampling(top_k=2)).tolist() == [0.5, 0.5, 0, 0]
    assert distribution(np.zeros(4), Sampling(top_p=0.5)).tolist() == [0.5, 0.5, 0, 0]
    assert distribution(np.zeros(4), Sampling(temperature=0)).tolist() == [1, 0, 0, 0]


def test_huge_logits():
    assert distribution(np.array([1e4, 0.0, -1e4]), Sampling()).tolist() == [1, 0, 0]
    assert distribution(np.array([1e4, 1e4, -np.inf]), Sampling(1e-3)).tolist() == [0.5, 0.5, 0]


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(logits=st.lists(st.integers(-6, 6), min_size=1, max_size=12), temperature=st.sampled_from([0, 1e-3, 0.5, 1, 3]),
       top_k=st.sampled_from([None, 1, 2, 5, 40]), top_p=st.sampled_from([None, 1e-9, 0.3, 0.9, 1]),
       min_p=st.sampled_from([None, 0, 0.2, 1]), penalty=st.sampled_from([1, 0.5, 1.7]))
def test_every_setting_at_once(logits, temperature, top_k, top_p, min_p, penalty):
    """Always a distribution; it keeps the likeliest token, at most top_k, and the order of what it keeps."""
    z = np.array(logits, dtype=float)
    p = distribution(z, Sampling(temperature, top_k, top_p, min_p, penalty))
    assert p.shape == z.shape and p.min() >= 0 and p.sum() == pytest.approx(1, abs=1e-12)
    kept = p > 0
    assert p[z.argmax()] > 0 and (top_k is None or kept.sum() <= top_k)
    assert all(p[i] >= p[j] for i in np.flatnonzero(kept) for j in np.flatnonzero(kept) if z[i] > z[j])


# ---- draws --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes", RESHAPED, ids=str)
def test_frequencies_are_the_distribution(changes):
    """Chi-square of 20,000 draws; 23.5 is exceeded once in 1000 seeds at 7 - 1 degrees of freedom, and less below."""
    n, p = 20_000, distribution(SEVEN, Sampling(**changes), [2, 5])
    rng = np.random.default_rng(0)
    counts = np.bincount([draw(p, rng) for _ in range(n)], minlength=7)
    kept = p > 0
    assert counts[~kept].sum() == 0
    assert ((counts - n * p)[kept] ** 2 / (n * p)[kept]).sum() < 23.5


def test_positions_and_seeds_draw_independently():
    """Chi-square of (token at position t, token at t + 1, token of the next seed at t) over pairs of 3 x 3 = 9."""
    logits, n = np.log(np.array([0.5, 0.3, 0.2])), 4000
    tokens = np.array([[sample(logits, Sampling(seed=seed), t)[0] for t in range(n)] for seed in (0, 1)])
    expected = n * np.outer([0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    for first, second in ((tokens[0, :-1], tokens[0, 1:]), (tokens[0], tokens[1])):
        counts = np.zeros((3, 3))
        np.add.at(counts, (first, second), 1)
        assert ((counts - expected) ** 2 / expected).sum() < 26.1                 # 1 in 1000 at 8


def test_a_draw_depends_on_seed_and_position_alone():
    first = [sample(SEVEN, Sampling(seed=3), t) for t in range(20)]
    again = [sample(SEVEN, Sampling(seed=3), t) for t in reversed(range(20))][::-1]
    assert first == again and first != [sample(SEVEN, Sampling(seed=4), t) for t in range(20)]


class Fixed:
    """A generator whose only number is u."""

    def __init__(self, u):
        self.u = u

    def random(self):
        return self.u


def test_draws_at_both_ends_of_the_unit_interval():
    """u = 0 must not pick a token of probability zero before the first, nor u near 1 one behind the last."""
    assert draw(np.array([0, 0.5, 0.5]), Fixed(0.0)) == 1
    assert draw(np.array([0.5, 0.5, 0]), Fixed(0.75)) == 1
    for seed in range(50):
        logits = np.random.default_rng(seed).standard_normal(50)
        p = distribution(logits, Sampling(top_k=20))
        assert p[draw(p, Fixed(1 - 2 ** -53))] > 0
        assert draw(distribution(logits, Sampling()), Fixed(1 - 2 ** -53)) < 50


def test_logprobs_are_those_of_the_unmodified_softmax():
    token, logprob = sample(LOGITS + 3, Sampling(temperature=0, repetition_penalty=1.5), 0, [4])
    assert token == 1 and logprob == pytest.approx(math.log(0.4), abs=1e-12)
    top = top_logprobs(LOGITS.astype("float32"), 3)
    assert [token for token, _ in top] == [1, 3, 2]
    assert [logprob for _, logprob in top] == pytest.approx(np.log([0.4, 0.25, 0.2]).tolist(), abs=1e-6)
    assert top_logprobs(LOGITS, 0) == [] and len(top_logprobs(LOGITS, 99)) == 5
    assert top_logprobs(np.zeros(4), 2) == [(0, -math.log(4)), (1, -math.log(4))]
    assert log_probability(np.array([1e4, 0.0]), 1) == -1e4


# ---- what is refused ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, values", [
    ("temperature", [-0.1, math.nan, math.inf, "hot", None, True]), ("top_k", [0, -1, 1.5, "5", True]),
    ("top_p", [0.0, 1.1, math.nan, "1"]), ("min_p", [-0.1, 1.1, math.nan]),
    ("repetition_penalty", [0, -1.0, math.nan, math.inf, None]), ("seed", [-1, 0.5, None]),
])
def test_bad_settings_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be"):
            Sampling(**{name: value})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_model_is_an_error(bad):
    for changes in RESHAPED + [{"temperature": 0}]:
        with pytest.raises(ValueError, match="logits"):
            sample(np.full(5, bad), Sampling(**changes), 0)
    with pytest.raises(ValueError, match="logits"):
        sample(np.array([1.0, np.nan, 2.0]), Sampling(), 0)


def test_a_wrong_nucleus_fails_the_test_by_hand(monkeypatch):
    """Planted: the token that crosses top_p is left out."""
    def nucleus_size(p, top_p):
        return max(1, int((np.sort(p)[::-1].cumsum() < top_p).sum()))
    monkeypatch.setattr(sampling, "nucleus_size", nucleus_size)
    with pytest.raises(AssertionError):
        test_distribution_by_hand({"top_p": 0.41}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0])
