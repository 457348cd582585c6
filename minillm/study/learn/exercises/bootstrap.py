"""Bootstrap confidence intervals of a perplexity.

A perplexity of 23.4 on 500 documents says nothing without its error. The bootstrap draws 500 of these documents with
replacement, again and again, measures each draw as if it were another test set, and looks how the results scatter. The
unit that is drawn is the document, since the tokens inside one are not independent. What is drawn is given: chosen
(R, n) holds R draws of n places.

    resampled_ratios    for each draw the ratio of sums, sum of numerators / sum of denominators over its documents:
                        (n,), (n,), (R, n) -> (R,). A document drawn twice counts twice
    interval            the 95% interval of values (R,): from their 2.5% quantile to their 97.5% quantile (NumPy's)
    perplexity_interval the 95% interval of the perplexity e^(nats / tokens): nats (n,), tokens (n,), chosen (R, n)

Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; for models: Koehn 2004, "Statistical
significance tests for machine translation evaluation".
"""
import numpy as np

from ....evaluate import statistics
from ..exercise import Exercise
from ..rules import by_cases


def resampled_ratios(numerators, denominators, chosen):
    """(R,) ratios of sums over the chosen documents: numerators (n,), denominators (n,), chosen (R, n) of places."""
    return numerators[chosen].sum(axis=1) / denominators[chosen].sum(axis=1)


def interval(values):
    """(low, high) of the middle 95% of values (R,), two floats."""
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def perplexity_interval(nats, tokens, chosen):
    """(low, high) of the perplexity of documents with these nats (n,) and tokens (n,)."""
    low, high = interval(resampled_ratios(nats, tokens, chosen))
    return float(np.exp(low)), float(np.exp(high))


def _cases(yours):
    """Draws that are written down, so that nothing is left to chance."""
    nats, tokens = np.array([20.0, 3.0, 90.0]), np.array([10.0, 2.0, 30.0])
    rng = np.random.default_rng(2)

    def ratios(rule, chosen):
        chosen = np.array(chosen)
        return f"resampled_ratios: {rule}", yours.resampled_ratios(nats.copy(), tokens.copy(), chosen), \
            statistics.resampled_ratio(nats, tokens, chosen)

    yield ratios("with each document once the ratio is that of all: a ratio of sums, not a mean of ratios", [[0, 1, 2]])
    yield ratios("a document drawn twice counts twice, one not drawn not at all", [[0, 0, 2], [1, 1, 1]])
    yield ratios("numerators and denominators must be of the same documents", [[2, 1, 0], [0, 1, 1], [2, 2, 0]])
    yield ratios("one ratio for each draw: sum over the documents, axis 1", [[0, 1, 2], [2, 2, 2]])
    values = np.sort(rng.standard_normal(1000)) ** 3
    low, high = statistics.quantiles(values)
    got = yours.interval(values.copy())
    yield "interval: return two numbers, (low, high)", np.shape(got) == (2,)
    yield "interval: 95% leaves 2.5% out on each side, so low is the 2.5% quantile", got[0], low
    yield ("interval: high is the 97.5% quantile of the values themselves: no normal distribution, no symmetry",
           got[1], high)
    yield "interval: the values need not be sorted", tuple(yours.interval(rng.permutation(values))), (low, high)
    nats, tokens, many = rng.uniform(1, 9, 20), rng.integers(1, 9, 20).astype(float), rng.integers(0, 20, (400, 20))
    ends = statistics.quantiles(statistics.resampled_ratio(nats, tokens, many))
    got = yours.perplexity_interval(nats.copy(), tokens.copy(), many)
    yield ("perplexity_interval: the perplexity is e to the nats per token; the interval is of it, not of the loss",
           tuple(got), (float(np.exp(ends[0])), float(np.exp(ends[1]))), 1e-9)
    yield "perplexity_interval: without any difference between documents both ends are the same", \
        tuple(yours.perplexity_interval(np.array([2.0, 4.0]), np.array([1.0, 2.0]), np.array([[0, 1], [1, 1]]))), \
        (float(np.exp(2)), float(np.exp(2)))


EXERCISE = Exercise(
    __file__, solve=("resampled_ratios", "interval", "perplexity_interval"), needs=("bits_per_byte",),
    checks=by_cases(_cases),
    hints=("numerators[chosen] is (R, n): of each draw, its documents' numbers, repeated where they were drawn twice.",
           "Sum along axis 1, numerators and denominators apart, and divide: (R,).",
           "95% in the middle leave 5% outside, half of it on each side: np.quantile(values, 0.025) and 0.975.",
           "exp is increasing, so the quantiles of the perplexity are exp of those of the nats per token (but for how "
           "np.quantile interpolates): take exp last."))
