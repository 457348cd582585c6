"""Sampling: the exact distribution, its frequencies, draws that repeat, and settings that are refused by name."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from minillm.generation import sampling
from minillm.generation.sampling import Sampling, distribution, draw, log_probability, sample, top_logprobs

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


def test_presence_and_frequency_penalties_by_hand():
    """Only the new tokens count: 0 stands in the prompt; 1 is new once, 2 is new twice. Last comes the bias."""
    logits, seen = np.array([2.0, 1.0, 0.5, -1.0]), [0, 2, 1, 2, 2]
    settings = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: 1.5})
    expected = np.exp([2.0, 1.0 - 0.75, 0.5 - 1.0, 0.5])
    assert_close("distribution", distribution(logits, settings, seen, start=2), expected / expected.sum(), "by hand")
    greedy = Sampling(0, presence_penalty=1.75)
    assert sample(logits, greedy, 1, [2, 2, 0])[0] == 1 and sample(logits, greedy, 0, [2, 2, 0])[0] == 0
    assert sample(logits, Sampling(0, frequency_penalty=-2), 2, [0, 3, 3])[0] == 3      # below 0: more of the same


def test_biases_force_and_ban():
    assert distribution(SEVEN, Sampling(logit_bias={3: 100})).argmax() == 3
    assert distribution(SEVEN, Sampling(logit_bias={2: -100, 4: -np.inf}))[[2, 4]].max() < 1e-40
    with pytest.raises(ValueError, match="^logit_bias must be of tokens below 7: got 7"):
        sample(SEVEN, Sampling(logit_bias={7: 1}), 0)


def test_only_allowed_tokens_are_drawn():
    """Whatever else is set; and the mask has the last word, after any bias."""
    allowed = np.array([1, 0, 0, 1, 0, 1, 0], bool)
    for changes in RESHAPED + [{"temperature": 0}, {"logit_bias": {2: 100}}]:
        p = distribution(SEVEN, Sampling(**changes), allowed=allowed)
        assert p[~allowed].sum() == 0 and p.sum() == pytest.approx(1)
        token, logprob = sample(SEVEN, Sampling(**changes), 0, allowed=allowed)
        assert allowed[token] and logprob == log_probability(SEVEN, token)      # the model's own, of all tokens
    assert_close("distribution", distribution(SEVEN, Sampling(), allowed=allowed)[allowed],
                 np.exp(SEVEN[allowed]) / np.exp(SEVEN[allowed]).sum(), "by hand")


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
    assert distribution(np.array([2.0, 2.0, 1.0]), Sampling(1e-320)).tolist() == [0.5, 0.5, 0]
    assert distribution(np.array([1.0, 3.0, 2.0]), Sampling(1e300, top_k=2)).tolist() == [0, 0.5, 0.5]
    assert distribution(np.array([1e300, 1.0]), Sampling(repetition_penalty=1e300), [0]).tolist() == [0.5, 0.5]


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


def plain_nucleus(w, top_p):
    """The definition: all tokens in order, the likelier and then the earlier first, until top_p is reached."""
    goal, reached, kept = top_p * w.mean() * len(w), 0.0, np.zeros(len(w), bool)
    for token in sorted(range(len(w)), key=lambda token: (-w[token], token)):
        kept[token] = w[token] > 0
        reached += w[token]
        if reached >= goal:
            break
    return kept


WEIGHTS = st.sampled_from([0.0, 1e-300, 1e-17, 0.1, 0.2, 0.3, 0.5]) | st.floats(0, 1)


@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(w=st.lists(WEIGHTS, max_size=40), copies=st.integers(1, 3),
       top_p=st.sampled_from([1e-9, 0.1, 0.3, 0.5, 0.9, 1 - 1e-12, 1 - 2 ** -53])
       | st.floats(1e-6, 1, exclude_max=True))
def test_a_nucleus_is_that_of_a_plain_sort(w, copies, top_p):
    """Also where it ends among equals, is all there is, or is reached only by rounding."""
    w = np.array([*w, 1.0] * copies)
    assert sampling.nucleus(w, top_p).tolist() == plain_nucleus(w, top_p).tolist()


@pytest.mark.parametrize("n", range(2, 40))
def test_a_nucleus_that_only_the_lightest_reach(n):
    """Where the sum of n equal tokens is rounded down, even 1e-300 more is needed to reach all but 1e-16 of it."""
    w = np.array([1.0, *[0.7] * n, 1e-300])
    assert sampling.nucleus(w, 1 - 2 ** -53).tolist() == plain_nucleus(w, 1 - 2 ** -53).tolist()


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 4.0, 30.0])
def test_a_nucleus_in_a_large_vocabulary(spread):
    """With ties by the thousand: logits are rounded to steps of a thousandth of their spread."""
    z = spread * np.round(np.random.default_rng(1).standard_normal(20_000), 3)
    for top_p in (0.05, 0.5, 0.95, 1 - 1e-12):
        w = np.exp(z - z.max())
        assert np.array_equal(sampling.nucleus(w, top_p), plain_nucleus(w, top_p))


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


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=30), u=st.floats(0, 1, exclude_max=True))
def test_a_draw_by_stretches_is_one_along_the_line(counts, u):
    """Whole numbers, so that no sum is rounded; a stretch of 4 tokens makes many of 30."""
    p = np.array([*counts, 1], dtype=float)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "STRETCH", 4)
        assert draw(p, Fixed(u)) == np.searchsorted(p.cumsum(), u * p.sum(), side="right")


def test_greedy_is_the_distributions_likeliest():
    for seed in range(20):
        logits, greedy = np.random.default_rng(seed).integers(-3, 3, 30) / 2, Sampling(0, repetition_penalty=1.5)
        seen = [3, 3, 17, seed]
        assert sample(logits, greedy, 0, seen)[0] == distribution(logits, greedy, seen).argmax()


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
    ("presence_penalty", [math.nan, -math.inf, "1"]), ("frequency_penalty", [math.inf, None, True]),
    ("logit_bias", [{-1: 1}, {"1": 1}, {1: math.nan}, {1: math.inf}, {1: "2"}]),
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
    def nucleus(w, top_p):
        return sampling.top_k_mask(w, max(1, int((np.sort(w)[::-1].cumsum() < top_p * w.sum()).sum())))
    monkeypatch.setattr(sampling, "nucleus", nucleus)
    with pytest.raises(AssertionError):
        test_distribution_by_hand({"top_p": 0.41}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0])
