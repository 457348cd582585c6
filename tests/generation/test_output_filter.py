"""The output filter: personal data and toxic sentences never go out, not even in pieces."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import TOK

from minillm.evaluate import safety
from minillm.generation.output_filter import FilteredText, OutputFilter
from minillm.generation.text import TextStream


def through(make, text, stop=()):
    """The pieces that a text makes, token by token, and what is left at the end."""
    stream = make(TOK, stop)
    pieces = [stream.push(token) for token in TOK.encode(text)]
    return pieces, stream.finish()


def test_personal_data_never_goes_out_even_in_pieces():
    text = "Write to jane@mail.example.org today. Then rest"
    pieces, last = through(FilteredText, text)
    assert "".join(pieces) + last == "Write to <EMAIL> today. Then rest"
    assert last == "Then rest" and not any("jane" in piece for piece in pieces)


@given(st.text("ab. \n!é", max_size=60), st.sampled_from([(), ("a.",), ("\n", "b b")]))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_without_finds_the_text_is_that_of_a_plain_stream(text, stop):
    def joined(make):
        pieces, last = through(make, text, stop)
        return "".join(pieces) + last
    assert joined(FilteredText) == joined(TextStream)


def test_sentences_join_to_the_text():
    text = "One. Two!  \"Three?\" four\nfive"
    assert "".join(safety.sentences(text)) == text and len(safety.sentences(text)) == 5


def test_toxic_sentences_are_removed():
    pytest.importorskip("profanity_check")
    check = OutputFilter(toxicity=0.8)
    said = check("The hen is here. You are a stupid fucking idiot! Good night.")
    assert said == "The hen is here. [removed] Good night."
    with pytest.raises(ValueError, match="toxicity must be a probability"):
        OutputFilter(toxicity=2.0)
