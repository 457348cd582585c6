"""From logits to one token: the model's distribution, reshaped, and a draw from it that repeats exactly.

    repetition_penalty   r: a logit of a token already in the text is divided by r if positive, else multiplied
                         (Keskar et al. 2019, arXiv 1909.05858)
    temperature          divide the logits: below 1 sharper, above 1 flatter, 0 always the likeliest token
    top_k                keep the k likeliest tokens (Fan et al. 2018, arXiv 1805.04833)
    top_p                keep the smallest set of likeliest tokens whose probability reaches p (Holtzman et al. 2019,
                         arXiv 1904.09751)
    min_p                keep the tokens with at least this share of the likeliest one's probability (Nguyen et al.
                         2024, arXiv 2407.01082)

They act in this order, each on what the one before left; where equal tokens meet an edge, the first of them are kept.
The draw for position t depends on (seed, t) alone, so neither speed, batch nor an interruption changes a text.
"""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. Raises ValueError naming the setting that is out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self):
        check("temperature", self.temperature, lambda v: 0 <= v < float("inf"), "a number of at least 0")
        check("top_k", self.top_k, lambda v: v >= 1, "an integer of at least 1, or None", int, optional=True)
        check("top_p", self.top_p, lambda v: 0 < v <= 1, "in (0, 1], or None", optional=True)
        check("min_p", self.min_p, lambda v: 0 <= v <= 1, "in [0, 1], or None", optional=True)
        check("repetition_penalty", self.repetition_penalty, lambda v: 0 < v < float("inf"), "a number above 0")
        check("seed", self.seed, lambda v: v >= 0, "an integer of at least 0", int)


def check(name, value, valid, expected, kind=None, optional=False):
    """Raise ValueError naming the setting unless its value passes (NaN passes nothing)."""
    if optional and value is None:
        return
    kinds = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not valid(value):
        raise ValueError(f"{name} must be {expected}: got {value!r}")


def sample(logits, sampling, position, seen_ids=()):
    """Draw the token for `position` (0, 1, ... in the text that is written) from logits (V,).

    seen_ids: the text so far, for the repetition penalty. Returns (token, its log-probability under the model's own
    softmax, before any reshaping). Raises ValueError for logits that are NaN or infinite at their largest.
    """
    rng = np.random.default_rng((sampling.seed, position))
    token = draw(distribution(logits, sampling, seen_ids), rng)
    return token, log_probability(logits, token)


def distribution(logits, sampling, seen_ids=()):
    """The probabilities (V,), float64, that `sample` draws from. logits (V,) of any float dtype, left as they are."""
    z = penalised(logits.astype(np.float64), sampling.repetition_penalty, seen_ids)
    top = z.max()
    if not np.isfinite(top):
        raise ValueError(f"logits must be numbers, the largest of them finite: it is {top}")
    if sampling.temperature == 0:
        return (np.arange(len(z)) == z.argmax()).astype(np.float64)
    p = np.exp((z - top) / sampling.temperature)        # at most 0, so a tiny temperature cannot overflow
    if sampling.top_k is not None and sampling.top_k < len(p):
        p[~likeliest(z, sampling.top_k)] = 0
    p /= p.sum()
    if sampling.top_p is not None and sampling.top_p < 1:
        p[~likeliest(p, nucleus_size(p, sampling.top_p))] = 0
    if sampling.min_p is not None:
        p[p < sampling.min_p * p.max()] = 0
    return p / p.sum()


def penalised(z, penalty, seen_ids):
    """z (V,) with the logits of the tokens seen moved down, in place."""
    if penalty != 1 and len(seen_ids):
        seen = np.unique(seen_ids)
        z[seen] = np.where(z[seen] > 0, z[seen] / penalty, z[seen] * penalty)
    return z


def likeliest(values, count):
    """Mask (V,) of the `count` largest; of equal ones at the edge, the first."""
    edge = np.partition(values, -count)[-count]
    kept = values > edge
    kept[np.flatnonzero(values == edge)[:count - kept.sum()]] = True
    return kept


def nucleus_size(p, top_p):
    """How many of the likeliest tokens it takes to reach top_p; at least 1."""
    ordered = np.sort(p)[::-1]
    before = ordered.cumsum() - ordered                 # probability of everything likelier
    return int((before < top_p).sum())


def draw(p, rng):
    """An index drawn from probabilities p (V,): where a uniform number falls on the line of them laid end to end."""
    edges = p.cumsum()
    chosen = np.searchsorted(edges, rng.random() * edges[-1], side="right")
    return int(min(chosen, np.flatnonzero(p)[-1]))      # rounding may reach the last edge itself


def log_probability(logits, token):
    """log softmax(logits)[token], a float."""
    return float(logits[token] - log_sum_exp(logits))


def top_logprobs(logits, n):
    """The n likeliest tokens of the model's own softmax, likeliest first: [(token, log-probability), ...]."""
    n = min(n, len(logits))
    if n < 1:
        return []
    best = np.flatnonzero(likeliest(logits, n))
    best = best[np.argsort(-logits[best], kind="stable")]
    return [(int(token), float(logits[token] - log_sum_exp(logits))) for token in best]


def log_sum_exp(logits):
    top = logits.max()
    return float(top) + float(np.log(np.exp(logits - top).sum(dtype=np.float64)))
