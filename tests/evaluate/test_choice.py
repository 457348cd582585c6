"""Multiple choice: a choice's log-probability by hand, and malformed questions."""
import math

import numpy as np
import pytest
from small_models import TOK, model, write_records

from minillm.data.sources.record_files import read_jsonl
from minillm.evaluate import choice


def scored(m, prompt, answer):
    return next(choice.scores_of(m, TOK, [(prompt, answer)]))


def test_a_choice_is_scored_by_its_own_tokens():
    m = model()
    logp, tokens, size = scored(m, "the hen", " says cluck")
    ids = TOK.encode("the hen") + TOK.encode(" says cluck")
    logits = m.forward(np.array([ids]))[0][0]
    wanted = 0.0
    for position in range(len(TOK.encode("the hen")) - 1, len(ids) - 1):
        row = logits[position]
        wanted += row[ids[position + 1]] - row.max() - math.log(np.exp(row - row.max()).sum())
    assert logp == pytest.approx(wanted, rel=1e-10) and size == 11 and tokens == len(TOK.encode(" says cluck"))
    long = scored(m, "the cow says moo " * 20 + "the hen", " says cluck")
    assert np.isfinite(long[0])                                     # the start of the prompt is cut
    with pytest.raises(ValueError, match="the context holds 16"):
        scored(m, "x", "z" * 40)


def test_the_best_choice_wins_and_length_matters():
    m, short, long = model(zero=True), "a", "zzzz"                  # every token has the same probability
    right = choice.answer_all(m, TOK, [choice.Question("x", [long, short], 1)])
    assert right["sum"] == [True]
    scores = [scored(m, "x", c) for c in (short, long)]
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
        read_jsonl(write_records(tmp_path / "q.jsonl", [record]), choice.question_of)
