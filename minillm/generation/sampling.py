"""Sampling a token from logits: temperature, top-k, nucleus (top-p), min-p, penalties, and a seeded draw.

    repetition_penalty   r: a logit of a token already in the text is divided by r if positive, else multiplied
                         (Keskar et al. 2019, arXiv 1909.05858)
    frequency_penalty    f: a logit loses f for each time its token stands among the new ones (as at OpenAI, like
                         the next two)
    presence_penalty     and once this much if its token stands there at all; the prompt does not count
    logit_bias           {token: what is added to its logit}
    allowed              a mask of tokens, all others get no probability (grammar.py makes one)
    temperature          p = softmax(z / T)          of the logits z: T below 1 sharper, above 1 flatter, 0 greedy
                         (the argmax)
    top_k                keep the k most probable tokens (Fan et al. 2018, arXiv 1805.04833)
    top_p                nucleus: keep the smallest set of most probable tokens whose mass reaches p (Holtzman et al.
                         2019, arXiv 1904.09751)
    min_p                keep the tokens with at least this share of the most probable one's probability (Nguyen et al.
                         2024, arXiv 2407.01082)

They act in this order, each on what the one before left; where equal tokens meet an edge, the first of them are kept.
The draw for position t depends on (seed, t) alone, so neither speed, batch nor an interruption changes a text.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from ..config import check_field

STRETCH = 256           # probabilities in a block of the inverse-CDF search
INTEGER, NUMBER = (int, np.integer), (int, float, np.integer, np.floating)


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. Raises ValueError naming the setting that is out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        check_field("temperature", self.temperature, NUMBER, lambda v: 0 <= v < inf, "a number of at least 0")
        if self.top_k is not None:
            check_field("top_k", self.top_k, INTEGER, lambda v: v >= 1, "an integer of at least 1, or None")
        if self.top_p is not None:
            check_field("top_p", self.top_p, NUMBER, lambda v: 0 < v <= 1, "in (0, 1], or None")
        if self.min_p is not None:
            check_field("min_p", self.min_p, NUMBER, lambda v: 0 <= v <= 1, "in [0, 1], or None")
        check_field("repetition_penalty", self.repetition_penalty, NUMBER, lambda v: 0 < v < inf, "a number above 0")
        check_field("seed", self.seed, INTEGER, lambda v: v >= 0, "an integer of at least 0")
        for name in ("presence_penalty", "frequency_penalty"):
            check_field(name, getattr(self, name), NUMBER, lambda v: abs(v) < inf, "a finite number")
        for token, bias in (self.logit_bias or {}).items():
            check_field("logit_bias", token, INTEGER, lambda v: v >= 0, "of ids, integers of at least 0")
            check_field("logit_bias", bias, NUMBER, lambda v: v < inf, "of numbers below infinity")

    @property
    def edits(self) -> bool:
        """Whether logits are changed before the temperature."""
        return bool(self.repetition_penalty != 1 or self.presence_penalty or self.frequency_penalty or self.logit_bias)


def sample(logits: np.ndarray, sampling: Sampling, position: int, seen_ids: Sequence[int] = (),
           allowed: np.ndarray | None = None) -> tuple[int, float]:
    """Sample the token for `position` (0, 1, ... among the new tokens) from logits (V,).

    seen_ids: prompt and new tokens so far, for the penalties. allowed: a mask (V,) of the tokens to choose from.
    Returns (token, its log-probability under the model's own softmax, before any reshaping). Raises ValueError for
    logits that are NaN or infinite at their largest.
    """
    start = max(0, len(seen_ids) - position)
    if sampling.temperature == 0:
        z = edited(logits, sampling, seen_ids, start, allowed) if sampling.edits or allowed is not None else logits
        token = int(z.argmax())
        check_top(z[token])
    else:
        p = distribution(logits, sampling, seen_ids, start, allowed)
        token = draw(p, np.random.default_rng((sampling.seed, position)))
    return token, log_probability(logits, token)


def distribution(logits: np.ndarray, sampling: Sampling, seen_ids: Sequence[int] = (), start: int = 0,
                 allowed: np.ndarray | None = None) -> np.ndarray:
    """The probabilities (V,), float64, that `sample` draws from. logits (V,) of any float dtype, left as they are.

    start: where in seen_ids the new tokens begin.
    """
    z = edited(logits, sampling, seen_ids, start, allowed)
    check_top(top := z.max())
    if sampling.temperature == 0:
        return (np.arange(len(z)) == z.argmax()).astype(np.float64)
    if sampling.top_k is not None and sampling.top_k < len(z):          # no temperature changes the order
        np.putmask(z, ~top_k_mask(z, sampling.top_k), -np.inf)
    w = weights(z, top, sampling.temperature)
    if sampling.top_p is not None and sampling.top_p < 1:
        w *= nucleus(w, sampling.top_p)
    if sampling.min_p is not None:
        w *= w >= sampling.min_p
    w /= w.sum()
    return w


def check_top(top: float) -> None:
    """Raise ValueError unless the largest logit is finite."""
    if not np.isfinite(top):
        raise ValueError(f"logits must be numbers, the largest of them finite: it is {top}")


def edited(logits: np.ndarray, sampling: Sampling, seen_ids: Sequence[int], start: int,
           allowed: np.ndarray | None = None) -> np.ndarray:
    """A float64 copy of logits (V,) with the penalties on the tokens seen, the biases, and only the tokens allowed."""
    z = logits.astype(np.float64)
    penalty = sampling.repetition_penalty
    if penalty != 1 and len(seen_ids):
        seen = np.asarray(seen_ids)                         # a token may be seen twice: the same is written twice
        with np.errstate(over="ignore"):
            z[seen] = np.where(z[seen] > 0, z[seen] / penalty, z[seen] * penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and len(seen_ids) > start:
        tokens, counts = np.unique(seen_ids[start:], return_counts=True)
        z[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    for token, bias in (sampling.logit_bias or {}).items():
        if token >= len(z):
            raise ValueError(f"logit_bias must be of tokens below {len(z)}: got {token}")
        z[token] += bias
    if allowed is not None:
        z[~allowed] = -np.inf
    return z


def weights(z: np.ndarray, top: float, temperature: float) -> np.ndarray:
    """Unnormalized probabilities exp((z - top) / temperature), the largest of them 1; written over z (V,).

    In place, since a fresh array of a large vocabulary's size costs more in page faults than all that is computed.
    """
    z -= top
    with np.errstate(over="ignore"):                        # at a tiny temperature: to -inf, which weighs nothing
        z /= temperature
    return np.exp(z, out=z)


def top_k_mask(values: np.ndarray, count: int) -> np.ndarray:
    """Mask (V,) of the `count` largest; of equal ones at the edge, the first."""
    return cut(values, np.partition(values, -count)[-count], count)


def nucleus(w: np.ndarray, top_p: float) -> np.ndarray:
    """Mask (V,) of the fewest and largest weights that reach top_p of the sum of all; of equal ones, the first.

    The light ones stay out of the sort, which takes the time: each has at most half of its share of what may be left
    out, so they cannot be needed but for rounding, and then all are sorted. Either way the sums are those of a full
    sort, bit for bit.
    """
    mean = w.mean()
    goal = top_p * mean * len(w)
    for light in ((1 - top_p) / 2 * mean, 0):
        heavy = w[np.flatnonzero(w > light)]
        heavy.sort()
        sums = heavy[::-1].cumsum()
        if sums[-1] >= goal:
            break
    size = min(int(np.searchsorted(sums, goal)) + 1, len(sums))        # the sums that fall short, and one more
    return cut(w, heavy[-size], size)


def cut(values: np.ndarray, edge: float, count: int) -> np.ndarray:
    """Mask (V,) of the `count` largest values, the least of which is `edge`; of those equal to it, the first."""
    kept = values > edge
    kept[np.flatnonzero(values == edge)[:count - np.count_nonzero(kept)]] = True
    return kept


def draw(p: np.ndarray, rng: np.random.Generator) -> int:
    """An index drawn from probabilities p (V,) by inverting their cumulative sum at a uniform number.

    In two levels, blocks of STRETCH first and then inside one: a sum of 50,000 numbers one by one is slow.
    """
    sums = np.add.reduceat(p, np.arange(0, len(p), STRETCH))
    stretch, rest = find(sums, rng.random() * sums.sum())
    start = stretch * STRETCH
    return start + find(p[start:start + STRETCH], rest)[0]


def find(lengths: np.ndarray, x: float) -> tuple[int, float]:
    """(which of the intervals laid end to end holds x, how far into it x is); never one of length 0."""
    edges = lengths.cumsum()
    i = int(min(np.searchsorted(edges, x, side="right"), np.flatnonzero(lengths)[-1]))  # rounding may reach the end
    return i, x - (edges[i - 1] if i else 0)


def log_probability(logits: np.ndarray, token: int) -> float:
    """log softmax(logits)[token], a float."""
    return float(logits[token] - log_sum_exp(logits))


def top_logprobs(logits: np.ndarray, n: int) -> list[tuple[int, float]]:
    """The n most probable tokens of the model's own softmax, in order: [(token, log-probability), ...]."""
    n = min(n, len(logits))
    if n < 1:
        return []
    best, total = np.flatnonzero(top_k_mask(logits, n)), log_sum_exp(logits)
    best = best[np.argsort(-logits[best], kind="stable")]
    return [(int(token), float(logits[token] - total)) for token in best]


def log_sum_exp(logits: np.ndarray) -> float:
    """log(sum(exp(logits))) of logits (V,), stable and summed in float64."""
    top = logits.max()
    return float(top) + float(np.log(np.exp(logits - top).sum(dtype=np.float64)))
