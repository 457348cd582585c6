"""Speculative decoding: a cheap draft proposes tokens, and the target verifies them all in one forward pass.

Decoding is memory-bandwidth bound, so the target's pass over five tokens costs little more than over one: each weight
is read once. Let a draft propose x_1 ... x_k, the i-th drawn from its distribution q_i; one pass of the target gives
its own p_1 ... p_{k+1}. Then

    accept x_i with probability                     a = min(1, p[x] / q[x])         of p_i and q_i; in order, up to
                                                                                    the first rejection
    at a rejection draw from the residual           r = max(0, p - q) / sum(max(0, p - q))      instead, and stop
    after k acceptances draw one more token         from p_{k+1}, which the pass has computed already

Whatever the draft, the text has exactly the target's distribution. A token comes out by acceptance with the first
term's probability and by rejection with the second's, in which the two sums are equal:

    P = min(p, q) + (1 - sum(min(p, q))) * r = min(p, q) + max(0, p - q) = p

Here p and q are the distributions after temperature, top-k, top-p, min-p and penalties; at temperature 0 they are
one-hot, and the text is the target's greedy text, token for token.

Source: Leviathan, Kalman and Matias 2023, arXiv 2211.17192 (algorithm 1; theorem 3.8 is `theoretical_speedup`).
A draft need not be a model: `Lookup` proposes what followed the last tokens where they stood in the text before (Saxena
2023, "prompt lookup decoding"), with one-hot q.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..config import check_counts
from ..models.gpt2 import GPT
from .decode import Context, Step, check_request
from .sampling import Sampling, distribution, draw, log_probability, top_logprobs


@dataclass
class Counts:
    """Statistics of speculative decoding. Each pass of the target gives the tokens it accepted and one more."""

    passes: int = 0             # of the target after the prefill
    tokens: int = 0             # decoded
    drafted: int = 0            # draft tokens proposed
    judged: int = 0             # of them, up to and including the first rejection of each pass
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Acceptance rate: the share of judged draft tokens that was accepted, the paper's alpha. 0 before any was."""
        return self.accepted / max(1, self.judged)

    @property
    def tokens_per_pass(self) -> float:
        return self.tokens / max(1, self.passes)


def speculative_steps(target: GPT, draft: "GPT | Lookup", ids: Sequence[int], max_new_tokens: int,
                      sampling: Sampling = Sampling(), stop: int | None = None, top: int = 0, k: int = 4,
                      counts: Counts | None = None) -> Iterator[Step]:
    """`decode.steps` of the target, accelerated by a draft: yields a Step for each new token, several per pass.

    draft: a GPT with the target's vocabulary, or a `Lookup`. k: draft tokens in a pass, at most. counts: a Counts to
    add to. The draws of a pass depend on (seed, position of its first token) alone. Raises ValueError for a draft of
    another vocabulary, k < 1, and what `decode.steps` raises.
    """
    ids, counts = check_request(ids, max_new_tokens), counts or Counts()
    proposer = check_draft(target, draft, k)
    proposer.begin(ids)
    context, written = Context(target, ids), 0
    while written < max_new_tokens:
        rng = np.random.default_rng((sampling.seed, written, 1))
        room = min(k, max_new_tokens - written - 1, context.room)
        proposed, q = proposer.propose(room, sampling, ids, rng)
        logits = context.logits(proposed)                                     # (1 + len(proposed), V)
        tokens = verify(logits, proposed, q, sampling, ids, rng, len(ids) - written)
        add_counts(counts, proposed, tokens)
        for row, token in zip(logits, tokens):
            yield Step(token, log_probability(row, token), top_logprobs(row, top))
            if token == stop:
                return
        context.extend(tokens)
        proposer.extend(tokens)
        ids += tokens
        written += len(tokens)


def verify(logits: np.ndarray, proposed: list[int], q: list[np.ndarray], sampling: Sampling, ids: list[int],
           rng: np.random.Generator, start: int = 0) -> list[int]:
    """The tokens of one pass: the accepted draft tokens, and one drawn from the residual or from the last logits.

    logits (1 + k, V) of the target; proposed: k tokens; q: the draft's k distributions (V,); ids: the text so far,
    whose new tokens begin at `start`.
    """
    for i, token in enumerate(proposed):
        p = distribution(logits[i], sampling, ids + proposed[:i], start)
        if not accept(p[token], q[i][token], rng):
            return proposed[:i] + [draw(residual(p, q[i]), rng)]
    return proposed + [draw(distribution(logits[len(proposed)], sampling, ids + proposed, start), rng)]


def accept(p: float, q: float, rng: np.random.Generator) -> bool:
    """True with probability min(1, p / q)."""
    return rng.random() * q < p


def residual(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """max(0, p - q), normalised: what is left of p (V,) once the accepted part min(p, q) is taken away."""
    left = np.maximum(p - q, 0)
    return left / left.sum() if left.any() else p           # equal but for rounding


def add_counts(counts: Counts, proposed: list[int], tokens: list[int]) -> None:
    """Count one pass: tokens are the accepted ones of `proposed` and one more."""
    accepted = len(tokens) - 1
    counts.passes += 1
    counts.tokens += len(tokens)
    counts.drafted += len(proposed)
    counts.accepted += accepted
    counts.judged += min(accepted + 1, len(proposed))


class ModelDraft:
    """Draft tokens from a small model, sampled as the target is: with the same temperature, top-k and so on."""

    def __init__(self, model: GPT):
        self.model = model

    def begin(self, ids: list[int]) -> None:
        self.context, self.start = Context(self.model, ids), len(ids)

    def propose(self, k: int, sampling: Sampling, ids: list[int],
                rng: np.random.Generator) -> tuple[list[int], list[np.ndarray]]:
        """Up to k draft tokens, and the distributions (V,) that they were drawn from."""
        proposed: list[int] = []
        q: list[np.ndarray] = []
        for _ in range(min(k, self.context.room + 1)):
            q.append(distribution(self.context.logits(proposed)[-1], sampling, ids + proposed, self.start))
            proposed.append(draw(q[-1], rng))
        return proposed, q

    def extend(self, tokens: list[int]) -> None:
        self.context.extend(tokens)


class Lookup:
    """Prompt lookup: draft tokens are what followed the last n tokens where they stood before, longest n first."""

    def __init__(self, vocab_size: int, longest: int = 3):
        """longest: the n to begin with; Saxena's is 3."""
        self.vocab_size, self.sizes = vocab_size, range(longest, 0, -1)

    def begin(self, ids: list[int]) -> None:
        self.text: list[int] = []
        self.follows: dict[tuple, int] = {}       # n-gram -> position after its last occurrence but the one at the end
        self.extend(ids)

    def propose(self, k: int, sampling: Sampling, ids: list[int],
                rng: np.random.Generator) -> tuple[list[int], list[np.ndarray]]:
        """Up to k draft tokens (none where the last token is new), and their one-hot distributions (V,)."""
        found = (self.follows.get(tuple(self.text[-n:])) for n in self.sizes)
        start = next((position for position in found if position is not None), len(self.text))
        proposed = self.text[start:start + k]
        return proposed, [(np.arange(self.vocab_size) == token).astype(np.float64) for token in proposed]

    def extend(self, tokens: list[int]) -> None:
        for token in tokens:
            for n in self.sizes:
                if len(self.text) >= n:
                    self.follows[tuple(self.text[-n:])] = len(self.text)
            self.text.append(token)


def check_draft(target: GPT, draft: GPT | Lookup, k: int) -> ModelDraft | Lookup:
    """The draft as something that proposes. Raises ValueError for k < 1 and for a draft of another vocabulary."""
    check_counts(k=k)
    size = draft.vocab_size if isinstance(draft, Lookup) else draft.config.vocab_size
    if size != target.config.vocab_size:
        raise ValueError(f"draft must have the target's vocabulary of {target.config.vocab_size} tokens: got {size}")
    return draft if isinstance(draft, Lookup) else ModelDraft(draft)


def theoretical_speedup(acceptance: float, k: int, cost: float) -> float:
    """Theorem 3.8: expected tokens per pass over the time of a pass. cost: time of a draft's token in the target's.

        tokens = (1 - a^(k + 1)) / (1 - a)          speedup = tokens / (k * cost + 1)
    """
    tokens = k + 1 if acceptance == 1 else (1 - acceptance ** (k + 1)) / (1 - acceptance)
    return tokens / (k * cost + 1)
