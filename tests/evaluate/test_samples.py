"""Generated samples: exact match, repetition, diversity and memorization, by hand."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import TOK, model

from minillm.evaluate import samples


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
