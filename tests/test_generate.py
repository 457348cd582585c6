"""Sampling: the exact distribution, its frequencies, and the cache that must not change a single id."""
import math

import numpy as np
import pytest
from cases import BACKENDS
from tolerances import assert_close

from minillm.config import GPTConfig
from minillm.generate import distribution, generate, sample, stream
from minillm.model import GPT
from minillm.registry import select

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=21, block_size=9, vocab_size=37)
LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.25, 0.05]))
PROMPT = [3, 1, 4]


def rough_model(backend="numpy", config=CONFIG):
    """Far from its initialisation, so that the likeliest token is far from the second."""
    model = GPT(config, dtype="float64", ops=select(backend))
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


# ---- the distribution ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings, expected", [
    ({}, [0.1, 0.4, 0.2, 0.25, 0.05]),
    ({"temperature": 0.5}, np.array([1, 16, 4, 6.25, 0.25]) / 27.5),           # p squared, normalised
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
], ids=str)
def test_distribution_by_hand(settings, expected):
    assert_close("distribution", distribution(LOGITS, **settings), expected, "by hand")


def test_distribution_is_float64_and_leaves_the_logits_alone():
    logits = LOGITS.astype("float32")
    logits.flags.writeable = False
    p = distribution(logits, 0.7, 3, 0.9)
    assert p.dtype == "float64" and p.sum() == pytest.approx(1, abs=1e-15)


def test_equal_logits_are_cut_by_order():
    assert distribution(np.zeros(4), top_k=2).tolist() == [0.5, 0.5, 0, 0]
    assert distribution(np.zeros(4), top_p=0.5).tolist() == [0.5, 0.5, 0, 0]


def test_huge_logits():
    assert distribution(np.array([1e4, 0.0, -1e4])).tolist() == [1, 0, 0]
    assert distribution(np.array([1e4, 1e4, -np.inf]), 1e-3).tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}], ids=str)
def test_frequencies_are_the_distribution(settings):
    """Chi-square of 20,000 draws; 23.5 is exceeded once in 1000 seeds at 7 - 1 degrees of freedom, and less below."""
    logits, n = np.array([0.3, -1.0, 1.2, 0.0, 0.9, -0.2, 0.5]), 20_000
    rng = np.random.default_rng(0)
    counts = np.bincount([sample(logits, **settings, rng=rng) for _ in range(n)], minlength=7)
    expected = n * distribution(logits, **settings)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < 23.5


def test_sample_at_both_ends_of_the_unit_interval():
    """u = 0 must not pick a token of probability zero before the first."""
    class Draw:
        def random(self):
            return self.u
    draw = Draw()
    draw.u = 0.0
    assert sample(np.array([-np.inf, 0.0, 0.0]), rng=draw) == 1
    draw.u = 0.75
    assert sample(np.array([0.0, 0.0, -np.inf]), rng=draw) == 1


def test_the_largest_draw_is_a_token_that_is_kept():
    class Draw:
        def random(self):
            return 1 - 2 ** -53
    for seed in range(50):
        logits = np.random.default_rng(seed).standard_normal(50)
        assert distribution(logits, top_k=20)[min(49, sample(logits, rng=Draw(), top_k=20))] > 0
        assert sample(logits, rng=Draw()) < 50


# ---- generation ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}, {"seed": 2, "top_k": 5, "temperature": 1.5},
                                      {"seed": 3, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("prompt", [[3], [3, 1, 4], list(range(9)), list(range(30))], ids=len)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cache_changes_nothing(backend, prompt, settings):
    """Also beyond block_size (9): both roads drop the same oldest half and read the rest again from position 0."""
    model = rough_model(backend)
    cached, plain = (generate(model, prompt, 25, use_cache=use, **settings) for use in (True, False))
    assert cached == plain and cached[:len(prompt)] == prompt and len(cached) == len(prompt) + 25


def test_a_long_prompt_is_its_last_block():
    model, prompt = rough_model(), list(range(20))
    assert generate(model, prompt, 5)[20:] == generate(model, prompt[-9:], 5)[9:]


def test_generation_within_a_block_is_one_forward_per_token():
    """Written out: the likeliest next token of the whole text, again and again."""
    model, ids = rough_model(), list(PROMPT)
    for _ in range(6):
        ids.append(int(model.forward(np.array([ids]))[0][0, -1].argmax()))
    assert generate(model, PROMPT, 6, temperature=0) == ids


def test_greedy_in_three_ways():
    model = rough_model()
    greedy = generate(model, PROMPT, 20, temperature=0)
    assert greedy == generate(model, PROMPT, 20, top_k=1, seed=5) == generate(model, PROMPT, 20, top_p=1e-9, seed=6)
    assert greedy == generate(model, PROMPT, 20, temperature=0, seed=99)


def test_seeds_repeat_and_differ():
    model = GPT(CONFIG)                                     # fresh: nearly uniform, so seeds must show
    first, again, other = (generate(model, PROMPT, 20, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other
    assert generate(model, PROMPT, 8, seed=0) == first[:11]           # a longer text only goes on


def test_positions_draw_independently():
    """A draw that forgot the position would repeat one token for ever in a uniform model."""
    ids = generate(GPT(CONFIG), PROMPT, 50, seed=0)[3:]
    assert len(set(ids)) > 15


def test_stop_token_ends_the_text():
    model = rough_model()
    whole = generate(model, PROMPT, 30, seed=4)
    stop = whole[8]
    end = 3 + whole[3:].index(stop) + 1
    assert generate(model, PROMPT, 30, seed=4, stop=stop) == whole[:end]
    assert generate(model, PROMPT, 5, seed=4, stop=10 ** 6) == whole[:8]


def test_stream_is_generate_token_by_token():
    model = rough_model()
    tokens = stream(model, PROMPT, 12, seed=1)
    first = next(tokens)
    assert [first, *tokens] == generate(model, PROMPT, 12, seed=1)[3:]


def test_edges():
    prompt = list(PROMPT)
    assert generate(rough_model(), prompt, 0) == PROMPT and prompt == PROMPT
    tiny = rough_model(config=GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=1, vocab_size=7))
    assert generate(tiny, [1, 2], 5) == generate(tiny, [1, 2], 5, use_cache=False)


@pytest.mark.parametrize("changes, words", [
    ({"ids": []}, "ids"), ({"max_new_tokens": -1}, "max_new_tokens"), ({"temperature": -0.1}, "temperature"),
    ({"temperature": math.nan}, "temperature"), ({"temperature": math.inf}, "temperature"), ({"top_k": 0}, "top_k"),
    ({"top_p": 0.0}, "top_p"), ({"top_p": 1.1}, "top_p"), ({"top_p": math.nan}, "top_p"), ({"ids": [37]}, "tokens"),
], ids=str)
def test_bad_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        generate(**{"model": rough_model(), "ids": PROMPT, "max_new_tokens": 3} | changes)


def test_a_broken_model_is_an_error():
    with np.errstate(all="ignore"), pytest.raises(ValueError):
        sample(np.full(5, np.nan), rng=np.random.default_rng(0))
