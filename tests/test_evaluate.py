"""Evaluation: numbers that can be worked out by hand, intervals that hold what they promise, and the command."""
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from minillm import GPT, GPTConfig, Tokenizer
from minillm.__main__ import main
from minillm.evaluate import choice, perplexity, samples, statistics

TOK = Tokenizer.train(["the hen says cluck and the cow says moo"], 262)


def model(seed=0, block_size=16, zero=False):
    made = GPT(GPTConfig(1, 2, 16, block_size, TOK.vocab_size), seed, np.float64)
    made.params.flat *= 0 if zero else 1
    made.params["wte.weight"][:] *= 1 if zero else 20               # a model with opinions
    return made


# ---- running text ----

def test_a_uniform_model_has_the_vocabulary_as_perplexity():
    found = perplexity.surprises(model(zero=True), TOK, ["the hen", "says moo and cluck " * 9])
    assert perplexity.perplexity(found) == pytest.approx(TOK.vocab_size)
    tokens, size = sum(s.tokens for s in found), sum(s.bytes for s in found)
    assert perplexity.bits_per_byte(found) == pytest.approx(math.log2(TOK.vocab_size) * tokens / size)
    assert found[0].bytes == 7 and found[0].tokens == len(TOK.encode("the hen"))        # the first token counts


@given(st.integers(1, 100), st.integers(1, 20))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_windows_read_every_token_once_with_half_a_context(length, block_size):
    seen = []
    for start, end, fresh in perplexity.windows(length, block_size):
        assert 0 <= start <= fresh < end <= length and end - start <= block_size
        assert fresh == 0 or fresh - start >= min(block_size - block_size // 2, fresh) - (block_size == 1)
        seen += range(fresh, end)
    assert seen == list(range(length))


def test_long_documents_are_given_their_context():
    m, ids = model(block_size=8), TOK.encode("the hen says cluck and the cow says moo and the hen")
    losses = perplexity.token_losses(m, ids)
    tokens = np.array(ids)[None]
    assert_close("first", losses[:8], m.losses(tokens[:, :8], tokens[:, 1:9])[0], "same model")
    assert_close("later", losses[8:12], m.losses(tokens[:, 4:12], tokens[:, 5:13])[0][4:], "same model")


def test_nothing_to_read_is_an_error():
    with pytest.raises(ValueError, match="no text"):
        perplexity.surprises(model(), TOK, [])
    with pytest.raises(ValueError, match="empty"):
        perplexity.surprises(model(), TOK, ["hen", ""])


# ---- statistics ----

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


# ---- choices and answers ----

def write(path, records):
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_a_choice_is_scored_by_its_own_tokens():
    m = model()
    logp, tokens, size = choice.score_choice(m, TOK, "the hen", " says cluck")
    ids = TOK.encode("the hen") + TOK.encode(" says cluck")
    logits = m.forward(np.array([ids]))[0][0]
    wanted = 0.0
    for position in range(len(TOK.encode("the hen")) - 1, len(ids) - 1):
        row = logits[position]
        wanted += row[ids[position + 1]] - row.max() - math.log(np.exp(row - row.max()).sum())
    assert logp == pytest.approx(wanted, rel=1e-10) and size == 11 and tokens == len(TOK.encode(" says cluck"))
    long = choice.score_choice(m, TOK, "the cow says moo " * 20 + "the hen", " says cluck")
    assert np.isfinite(long[0])                                     # the start of the prompt is cut
    with pytest.raises(ValueError, match="the context holds 16"):
        choice.score_choice(m, TOK, "x", "z" * 40)


def test_the_best_choice_wins_and_length_matters():
    m, short, long = model(zero=True), "a", "zzzz"                  # every token has the same probability
    right = choice.answer_all(m, TOK, [choice.Question("x", [long, short], 1)])
    assert right["sum"] == [True]
    scores = [choice.score_choice(m, TOK, "x", c) for c in (short, long)]
    assert scores[0][0] / scores[0][1] == pytest.approx(scores[1][0] / scores[1][1])


@pytest.mark.parametrize("record, words", [
    ({"prompt": 3, "choices": ["a", "b"], "answer": 0}, "prompt must be text"),
    ({"prompt": "x", "choices": ["a"], "answer": 0}, "at least two texts"),
    ({"prompt": "x", "choices": ["a", ""], "answer": 0}, "none empty"),
    ({"prompt": "x", "choices": ["a", "b"], "answer": 2}, "0 to 1: got 2"),
    ({"prompt": "x", "choices": ["a", "b"], "answer": True}, "0 to 1: got True"),
])
def test_malformed_questions_are_named(tmp_path, record, words):
    with pytest.raises(ValueError, match=f"q.jsonl:1: .*{words}"):
        choice.read_questions(write(tmp_path / "q.jsonl", [record]))


def test_exact_match_wants_the_likeliest_answer():
    m = model()
    text = samples.continuation(m, TOK, "the", 6)
    assert samples.exact_matches(m, TOK, [samples.Problem("the", text), samples.Problem("the", text + "?")],
                                 max_new_tokens=6) == [bool(text.strip()), False]
    stop = text[2]
    assert samples.continuation(m, TOK, "the", 6, stop=stop) == text.partition(stop)[0]


def test_repetition_and_distinct_by_hand():
    assert samples.repetition("a b c d a b c d", 4) == pytest.approx(1 - 4 / 5)
    assert samples.repetition("a b", 4) == 0
    assert samples.distinct(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert samples.distinct(["a b a", "a b"], 2) == pytest.approx(2 / 3)


@given(st.text("ab ", max_size=12), st.text("ab ", max_size=30))
@settings(derandomize=True, deadline=None, max_examples=80)
def test_longest_overlap_is_the_longest(text, corpus):
    found = samples.longest_overlap(text, corpus.encode())
    stretches = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1) if text[i:j] in corpus]
    assert len(found) == max(map(len, stretches), default=0) and found in corpus.encode()


# ---- the command ----

def test_the_command_measures_and_compares(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        model(seed).save_pretrained(tmp_path / name)
        TOK.save(tmp_path / name)
    text = tmp_path / "text.txt"
    text.write_text("the hen says cluck and the cow says moo", encoding="utf-8")
    questions = write(tmp_path / "q.jsonl", [{"prompt": "the hen", "choices": [" moo", " cluck"], "answer": 1}] * 3)
    answers = write(tmp_path / "g.jsonl", [{"prompt": "the hen", "answer": "cluck"}])
    tasks = f"ppl,bpb,samples,memory,mc:{questions},gen:{answers}"
    command = ["eval", str(tmp_path / "a"), "--tasks", tasks, "--data", str(text)]
    assert main([*command, "--against", str(tmp_path / "b"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    names = {row["task"] for row in results["rows"]}
    assert {"ppl", "bpb", "mc q (sum)", "gen g", "repeated 4-grams", "longest overlap (bytes)"} <= names
    assert {c["task"] for c in results["comparisons"]} >= {"ppl", "bpb", "mc q (per byte)"}
    assert main(command) == 0 and "95% interval" in capsys.readouterr().out
    for tasks, words in (("chess", "unknown task 'chess'"), ("ppl", "--data: the task ppl needs")):
        assert main(["eval", str(tmp_path / "a"), "--tasks", tasks]) == 1
        assert words in capsys.readouterr().err


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


def test_one_document_has_no_interval_and_no_task_is_an_error(tmp_path, capsys):
    model().save_pretrained(tmp_path / "run")
    TOK.save(tmp_path / "run")
    (tmp_path / "text.txt").write_text("the hen says cluck")
    command = ["eval", str(tmp_path / "run"), "--data", str(tmp_path / "text.txt"), "--tasks"]
    assert main([*command, "ppl,bpb", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["low"], row["high"], row["items"]) for row in rows] == [(None, None, 1)] * 2
    assert main([*command, " , "]) == 1
    assert "nothing to measure" in capsys.readouterr().err
