"""Quality filters: each score by hand."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.cleaning import filters


def score(name, text):
    return filters.SCORES[name].function(filters.Parts(text))


@pytest.mark.parametrize("name, text, value", [
    ("words", "one two  three\n", 3),
    ("mean_word_length", "a bbb", 2),
    ("symbols_to_words", "# one two ... three", 2 / 5),
    ("bullet_lines", "- a\n* b\n\nc\n• d", 3 / 4),
    ("ellipsis_lines", "a ...\nb…\nc", 2 / 3),
    ("alphabetic_words", "one 2 3.5 a4", 2 / 4),
    ("stop_words", "The cat and THE dog, of course", 3),
    ("duplicate_lines", "a\nb\na\na", 2 / 4),
    ("duplicate_line_characters", "aaa\nb\naaa", 3 / 7),
    ("duplicate_paragraphs", "a\n\nb\n\na", 1 / 3),
    ("duplicate_paragraph_characters", "aaaa\n\nb\n\naaaa", 4 / 9),
    ("top_2_gram_characters", "a b a b c", 4 / 5),
    ("top_3_gram_characters", "a b c d e", 0),
    ("duplicate_5_gram_characters", "a b c d e x a b c d e", 5 / 11),
    ("sentences", 'One. Two! "Three?" 3.5 is no end', 3),
    ("curly_braces", "f() { }", 1),
    ("lorem_ipsum", "Lorem Ipsum dolor", 1),
])
def test_scores_by_hand(name, text, value):
    assert score(name, text) == pytest.approx(value)


@given(st.text("ab .\n-", max_size=80))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_scores_of_anything_are_finite_and_shares_are_shares(text):
    for name, entry in filters.SCORES.items():
        value = score(name, text)
        assert 0 <= value < float("inf")
        if entry.high <= 1 and "symbols" not in name and "braces" not in name and "lorem" not in name:
            assert value <= 1, name


def test_overlapping_ngrams_count_a_character_once():
    text = "x " * 30
    assert score("duplicate_5_gram_characters", text) <= 1 and score("duplicate_10_gram_characters", text) > 0.9


def test_c4_keeps_lines_that_end_like_sentences():
    text = "Home | About\nThis is a sentence.\n\nPlease enable javascript to continue.\nToo short."
    assert filters.c4_lines(text) == ("This is a sentence.\n", 3)
