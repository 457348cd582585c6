"""Speculative decoding: the target's greedy text token for token, its distribution exactly; wrong rules fail."""
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cases import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import generate
from minillm.config import GPTConfig
from minillm.generation import speculative
from minillm.generation.sampling import Sampling, distribution
from minillm.generation.speculative import Counts, Lookup, accept, residual, speculative_steps, theoretical_speedup
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT

V, PROMPT = 5, [1, 3, 1]
SAMPLINGS = [Sampling(), Sampling(0.5), Sampling(1.5), Sampling(top_p=0.8), Sampling(0.7, top_p=0.9),
             Sampling(top_k=2), Sampling(min_p=0.3, repetition_penalty=1.5), Sampling(2.0, 4, 0.7),
             Sampling(presence_penalty=0.8, frequency_penalty=0.6, logit_bias={1: 0.5})]


class Table:
    """A model that is a table: the logits depend on the last two tokens. As quick as a test of frequencies needs it."""

    def __init__(self, seed, noise=0.0, block_size=20):
        table = np.random.default_rng(seed).standard_normal((V, V, V))
        self.table = 1.5 * table + noise * np.random.default_rng(seed + 1).standard_normal(table.shape)
        self.config = SimpleNamespace(block_size=block_size, vocab_size=V)

    def new_cache(self, batch_size):
        return TableCache()

    def decode(self, tokens, cache, last=False):
        start = cache.length
        cache.text += tokens[0].tolist()
        text = [0, *cache.text]
        return np.array([[self.table[text[i], text[i + 1]] for i in range(start, len(cache.text))]])


class TableCache:
    def __init__(self):
        self.text = []

    @property
    def length(self):
        return len(self.text)

    def truncate(self, length):
        del self.text[length:]


TARGET, DRAFT = Table(0), Table(0, noise=1.0)


def chi_square(draft, sampling, k, n, length=3, target=TARGET):
    """(chi-square, its 99.9% point): frequencies of all V^length continuations against their exact probabilities."""
    counts = dict.fromkeys(itertools.product(range(V), repeat=length), 0)
    for seed in range(n):
        settings = replace(sampling, seed=seed)
        counts[tuple(step.token for step in speculative_steps(target, draft, PROMPT, length, settings, k=k))] += 1
    expected = {text: n * probability(target, text, sampling) for text in counts}
    assert math.isclose(sum(expected.values()), n) and not any(counts[t] for t in counts if expected[t] == 0)
    large = [text for text in counts if expected[text] >= 5]
    rest = n - sum(expected[text] for text in large), n - sum(counts[text] for text in large)
    cells = [(expected[text], counts[text]) for text in large] + ([rest] if rest[0] > 1e-6 else [])
    return sum((e - c) ** 2 / e for e, c in cells), quantile(len(cells) - 1)


def probability(target, text, sampling):
    """Of a continuation, by the chain rule."""
    seen, p = list(PROMPT), 1.0
    for token in text:
        p *= distribution(next_logits(target, seen), sampling, seen, len(PROMPT))[token]
        seen.append(token)
    return p


def next_logits(target, seen):
    """(V,), without a cache."""
    return target.table[seen[-2], seen[-1]] if isinstance(target, Table) else target.forward(np.array([seen]))[0][0, -1]


def quantile(df, z=3.09):
    """The 99.9% point of chi-square, by Wilson and Hilferty's cube (1931); right to 1% from 3 degrees of freedom on."""
    return df * (1 - 2 / (9 * df) + z * math.sqrt(2 / (9 * df))) ** 3


# ---- the distribution ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_every_continuation_has_the_targets_probability(sampling, k):
    found, limit = chi_square(DRAFT, sampling, k, 1500)
    assert found < limit


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_p=0.9)], ids=str)
def test_a_real_model_with_its_caches_and_to_the_end_of_its_context(sampling):
    """Two GPTs of 5 tokens of context: prompt and text fill it, the draft's is shorter still."""
    shape = {"n_head": 1, "n_embd": 6, "vocab_size": V}
    target = rough_model(config=GPTConfig(n_layer=1, block_size=5, **shape), seed=4, size=0.3)
    draft = rough_model(config=GPTConfig(n_layer=1, block_size=4, **shape), seed=5, size=0.3)
    found, limit = chi_square(draft, sampling, 2, 900, target=target)
    assert found < limit


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_p=0.9)], ids=str)
def test_lookup_leaves_the_distribution_alone(sampling):
    found, limit = chi_square(Lookup(V), sampling, 2, 3000)
    assert found < limit


WRONG = {
    "accepts with min(1, q/p)": ("accept", lambda p, q, rng: rng.random() * p < q),
    "accepts everything": ("accept", lambda p, q, rng: True),
    "accepts where p > q only": ("accept", lambda p, q, rng: p >= q),
    "draws from p, not the residual": ("residual", lambda p, q: p),
    "draws from |p - q|": ("residual", lambda p, q: np.abs(p - q) / np.abs(p - q).sum()),
}


@pytest.mark.parametrize("name, function", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_p=0.95)], ids=str)
def test_a_wrong_rule_fails_the_same_test(name, function, sampling, monkeypatch):
    monkeypatch.setattr(speculative, name, function)
    try:
        found, limit = chi_square(DRAFT, sampling, 2, 1500)
    except AssertionError:                    # a text that the target never writes
        return
    assert found > 1.2 * limit


def test_a_draft_that_hides_its_settings_fails(monkeypatch):
    """Planted: the draft draws at temperature 1 and says it drew at 0.5."""
    def propose(self, k, sampling, ids, rng):
        proposed, q = right(self, k, Sampling(), ids, rng)
        return proposed, [row ** 2 / (row ** 2).sum() for row in q]
    right = speculative.ModelDraft.propose
    monkeypatch.setattr(speculative.ModelDraft, "propose", propose)
    found, limit = chi_square(DRAFT, Sampling(0.5), 2, 1500)
    assert found > 1.2 * limit


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_acceptance_and_residual_add_up_to_p(p, q):
    """The theorem itself, in numbers: min(p, q) + (1 - sum min(p, q)) residual = p."""
    size = min(len(p), len(q))
    p, q = np.array(p[:size]) + 1e-3, np.array(q[:size]) + 1e-3
    p, q = p / p.sum(), q / q.sum()
    both = np.minimum(p, q)
    assert np.allclose(both + (1 - both.sum()) * residual(p, q), p, rtol=0, atol=1e-12)


def test_accept_at_the_edges():
    always, never = SimpleNamespace(random=lambda: 1 - 2 ** -53), SimpleNamespace(random=lambda: 0.0)
    assert accept(0.3, 0.3, always) and accept(0.4, 0.3, always) and not accept(0.29, 0.3, always)
    assert not accept(0.0, 0.3, never) and accept(1e-9, 0.3, never)
    assert residual(np.array([0.5, 0.5]), np.array([0.5, 0.5])).tolist() == [0.5, 0.5]


# ---- greedy -------------------------------------------------------------------------------------------------------

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=21, block_size=9, vocab_size=37)
SMALL = GPTConfig(n_layer=1, n_head=1, n_embd=6, block_size=5, vocab_size=37)


def rough_model(backend="numpy", config=CONFIG, seed=1, size=0.2, dtype="float64"):
    """Far from its initialisation, so that the likeliest token is far from the second."""
    model = GPT(config, dtype=dtype, ops=select(backend))
    model.params.flat[:] += size * np.random.default_rng(seed).standard_normal(model.params.flat.size)
    return model


def nearly(model, noise=0.04):
    """A draft that is often right."""
    other = GPT(model.config, ops=model.ops, params=model.params.astype("float64"))
    other.params.flat[:] += noise * np.random.default_rng(7).standard_normal(other.params.flat.size)
    return other


def drafts(target, backend):
    return {"nearly": nearly(target), "itself": target, "other": rough_model(backend, SMALL, 3), "lookup": Lookup(37)}


@pytest.mark.parametrize("draft", ["nearly", "itself", "other", "lookup"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_is_the_targets_text(backend, draft):
    """Also over the end of the context (9 tokens; the other draft has 5) and from a prompt longer than it."""
    target = rough_model(backend)
    chosen, counts = drafts(target, backend)[draft], Counts()
    for prompt, k in itertools.product(([3, 1, 4], list(range(9)), list(range(30))), (1, 4, 12)):
        for penalty in (1.0, 1.6):
            plain = generate(target, prompt, 25, temperature=0, repetition_penalty=penalty)[len(prompt):]
            sampling = Sampling(0, repetition_penalty=penalty, seed=k)
            found = speculative_steps(target, chosen, prompt, 25, sampling, k=k, counts=counts)
            assert plain == [s.token for s in found]
    assert counts.accepted > 0 and (draft == "itself" or counts.acceptance < 1)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_greedy_through_the_compiled_step(backend):
    """float32, where one call decodes a few tokens and another many: the bits, and so the text, must not differ."""
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=60, vocab_size=97)
    target = rough_model(backend, config, size=0.1, dtype="float32")
    draft = GPT(config, ops=target.ops, params=nearly(target, 0.02).params.astype("float32"))
    for prompt, k in itertools.product(([3, 1, 4], list(range(40))), (1, 5, 20)):
        plain, counts = generate(target, prompt, 50, temperature=0)[len(prompt):], Counts()
        for guesser in (draft, target, Lookup(97)):
            found = speculative_steps(target, guesser, prompt, 50, Sampling(0), k=k, counts=counts)
            assert plain == [s.token for s in found]
        assert 0 < counts.acceptance < 1


def test_no_rollback_fails_the_same_test(monkeypatch):
    """Planted: rejected tokens stay in the cache."""
    target = rough_model()
    draft = rough_model(config=SMALL, seed=3)
    plain = generate(target, [3, 1, 4], 5, temperature=0)[3:]
    assert plain == [s.token for s in speculative_steps(target, draft, [3, 1, 4], 5, Sampling(0))]
    monkeypatch.setattr(type(target.new_cache(1)), "truncate", lambda self, length: None)
    with pytest.raises((AssertionError, ValueError)):
        assert plain == [s.token for s in speculative_steps(target, draft, [3, 1, 4], 5, Sampling(0))]


def test_a_perfect_draft_is_accepted_whole():
    """Then a pass writes k + 1 tokens: k accepted and the one that was paid for."""
    target = rough_model(config=GPTConfig(n_layer=1, n_head=1, n_embd=6, block_size=64, vocab_size=37))
    for sampling in (Sampling(0), Sampling(1.3, top_p=0.9)):
        counts = Counts()
        assert len(list(speculative_steps(target, target, [3], 24, sampling, k=5, counts=counts))) == 24
        assert (counts.passes, counts.tokens, counts.acceptance, counts.tokens_per_pass) == (4, 24, 1.0, 6.0)


def test_sampled_text_of_a_real_model_repeats_and_steps_report_its_log_probabilities():
    target = rough_model()
    draft, sampling = nearly(target), Sampling(0.9, top_p=0.95, seed=5)
    found = list(speculative_steps(target, draft, PROMPT, 6, sampling, top=3))
    assert found == list(speculative_steps(target, draft, PROMPT, 6, sampling, top=3))
    text = PROMPT + [step.token for step in found]
    logits = target.forward(np.array([text]))[0][0]
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for position, step in enumerate(found, start=len(PROMPT) - 1):
        assert step.logprob == pytest.approx(logprobs[position, step.token], abs=1e-9)
        assert [token for token, _ in step.top] == np.argsort(-logprobs[position])[:3].tolist()


def test_stop_ends_the_text_inside_a_pass():
    target = rough_model()
    plain = generate(target, [3], 20, temperature=0)[1:]
    stop = plain[6]
    found = [s.token for s in speculative_steps(target, target, [3], 20, Sampling(0), stop)]
    assert found == plain[:plain.index(stop) + 1]


# ---- lookup, counts, errors ---------------------------------------------------------------------------------------

def test_lookup_prefers_the_longest_and_latest_match():
    lookup = Lookup(10)
    lookup.begin([1, 2, 3, 9, 2, 3, 8, 1, 2, 3])
    assert lookup.propose(3, Sampling(), [], None)[0] == [9, 2, 3]          # 1 2 3 stands once before
    lookup.begin([5, 1, 6, 1])
    assert lookup.propose(9, Sampling(), [], None)[0] == [6, 1]             # what there is
    lookup.begin([1, 2, 3])
    assert lookup.propose(3, Sampling(), [], None) == ([], [])
    lookup.extend([1])
    proposed, q = lookup.propose(1, Sampling(), [], None)
    assert proposed == [2] and q[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_counts_judge_up_to_the_first_rejection():
    counts = Counts()
    speculative.add_counts(counts, [1, 2, 3, 4], [1, 2, 9])            # two accepted, the third rejected
    speculative.add_counts(counts, [1, 2], [1, 2, 3])
    speculative.add_counts(counts, [], [4])
    assert (counts.drafted, counts.judged, counts.accepted, counts.passes, counts.tokens) == (6, 5, 4, 3, 7)
    assert counts.acceptance == 0.8 and counts.tokens_per_pass == 7 / 3


def test_theory():
    """Theorem 3.8 against a simulation of passes with independent acceptances."""
    rng, a, k = np.random.default_rng(0), 0.8, 4
    passes = (rng.random((20_000, k)) < a).cumprod(axis=1).sum(axis=1) + 1
    assert theoretical_speedup(a, k, 0.1) == pytest.approx(passes.mean() / 1.4, rel=0.01)
    assert theoretical_speedup(1, 4, 0.25) == 2.5 and theoretical_speedup(0, 4, 0) == 1


@pytest.mark.parametrize("changes, words", [
    ({"k": 0}, "k must"), ({"draft": Lookup(36)}, "vocabulary"), ({"ids": []}, "ids"),
    ({"max_new_tokens": -1}, "max_new_tokens"),
    ({"draft": GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=9, vocab_size=36))}, "vocabulary of 37"),
], ids=["k", "lookup", "ids", "length", "draft"])
def test_bad_requests_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        list(speculative_steps(**{"target": rough_model(), "draft": Lookup(37), "ids": [1], "max_new_tokens": 3,
                                  **changes}))
