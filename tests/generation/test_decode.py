"""Autoregressive decoding: the KV cache must not change a single token, and seeds decide alone."""
import math

import numpy as np
import pytest
from cases import BACKENDS
from tolerances import assert_close

from minillm.config import GPTConfig
from minillm.generation.decode import Context, generate, steps, stream
from minillm.generation.sampling import Sampling
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=21, block_size=9, vocab_size=37)
PROMPT = [3, 1, 4]


def rough_model(backend="numpy", config=CONFIG):
    """Far from its initialisation, so that the likeliest token is far from the second."""
    model = GPT(config, dtype="float64", ops=select(backend))
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}, {"seed": 2, "top_k": 5, "temperature": 1.5},
                                      {"seed": 3, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("prompt", [[3], [3, 1, 4], list(range(9)), list(range(30))], ids=len)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cache_changes_nothing(backend, prompt, settings):
    """Also beyond block_size (9): both branches drop the same oldest half and read the rest again from position 0."""
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
    ({"min_p": 2}, "min_p"), ({"repetition_penalty": 0}, "repetition_penalty"), ({"seed": -1}, "seed"),
    ({"ids": [1.5]}, "ids"), ({"max_new_tokens": 2.5}, "max_new_tokens"),
], ids=str)
def test_bad_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        generate(**{"model": rough_model(), "ids": PROMPT, "max_new_tokens": 3} | changes)


def test_steps_report_the_models_own_log_probabilities():
    """Whatever the sampling: those of one forward pass over the finished text."""
    model = rough_model()
    found = list(steps(model, PROMPT, 6, Sampling(0.5, top_k=3, repetition_penalty=1.4, seed=2), top=4))
    text = PROMPT + [step.token for step in found]
    logits = model.forward(np.array([text]))[0][0]
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for position, step in enumerate(found, start=len(PROMPT) - 1):
        assert step.logprob == pytest.approx(logprobs[position, step.token], abs=1e-9)
        assert [token for token, _ in step.top] == np.argsort(-logprobs[position])[:4].tolist()
        assert dict(step.top).get(step.token, step.logprob) == step.logprob


def test_the_repetition_penalty_sees_the_prompt_and_the_text():
    model = rough_model()
    assert len(set(generate(model, [5], 20, temperature=0, repetition_penalty=1e6)[1:]) | {5}) == 21


def test_context_reads_what_is_proposed_and_forgets_it():
    """Rolled back: after a rejected proposal the logits are those of a context that never saw it."""
    model = rough_model()
    context = Context(model, PROMPT)
    proposed = context.logits([7, 8, 9])
    assert_close("logits", proposed, model.forward(np.array([PROMPT + [7, 8, 9]]))[0][0, 2:], "same model")
    context.extend([7, 2])
    assert context.cache.length == 4                          # 8 and 9 are forgotten, 2 is not read yet
    assert_close("logits", context.logits(), model.forward(np.array([PROMPT + [7, 2]]))[0][0, -1:], "same model")
    assert context.room == CONFIG.block_size - 5
