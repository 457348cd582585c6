"""Text out of tokens: characters come whole, and stop strings never show."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.generation.text import TextStream


class Bytes:
    """A tokenizer whose tokens are given byte strings."""

    special_tokens: dict[str, int] = {}

    def __init__(self, pieces):
        self.pieces = pieces

    def token_bytes(self, token):
        return self.pieces[token]


def written(pieces, stop=()):
    """(what came after each token, what came at the end, the stop string)"""
    text = TextStream(Bytes(pieces), stop)
    parts = [text.push(i) for i in range(len(pieces))]
    return parts, text.finish(), text.stopped


def test_characters_come_whole():
    one, two = "é".encode(), "🙂".encode()
    assert written([b"a" + one[:1], one[1:] + two[:2], two[2:3], two[3:] + b"!"]) == (["a", "é", "", "🙂!"], "", None)
    assert written([b"a", two[:2]]) == (["a", ""], "\N{REPLACEMENT CHARACTER}", None)
    assert written([two[:1], b"b"])[0] == ["", "\N{REPLACEMENT CHARACTER}b"]


@pytest.mark.parametrize("pieces, stop, parts, rest, stopped", [
    ([b"one", b" END", b" two"], ["END"], ["one", " ", ""], "", "END"),
    ([b"on", b"e E", b"N", b"D", b"x"], ["END"], ["on", "e ", "", "", ""], "", "END"),          # over three tokens
    ([b"E", b"N", b"E", b"ND"], ["END"], ["", "", "EN", ""], "", "END"),                        # begun twice
    ([b"EN", b"d"], ["END"], ["", "ENd"], "", None),                                            # begun only
    ([b"EN"], ["END"], [""], "EN", None),                                                       # begun at the very end
    ([b"abcb", b"c"], ["bc", "cb"], ["a", ""], "", "bc"),                                       # the earliest
    ([b"\n", b"\n", b"x"], ["\n\n"], ["", "", ""], "", "\n\n"),
    (["ä€".encode()[:3], "ä€".encode()[3:]], ["€"], ["ä", ""], "", "€"),                         # inside a character
], ids=str)
def test_stop_strings(pieces, stop, parts, rest, stopped):
    assert written(pieces, stop) == (parts, rest, stopped)


@settings(derandomize=True, deadline=None, max_examples=150, database=None)
@given(text=st.text("ab\n€🙂", max_size=20), stop=st.lists(st.text("ab\n€", min_size=1, max_size=4), max_size=3),
       cuts=st.lists(st.integers(0, 60), max_size=12))
def test_any_cut_gives_the_text_before_the_first_stop(text, stop, cuts):
    """However the bytes are cut into tokens."""
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts, rest, stopped = written([data[a:b] for a, b in zip(edges, edges[1:])], stop)
    said = "".join(parts) + rest
    if stopped is None:
        assert said == text and not any(s in text for s in stop)
    else:
        assert text.startswith(said + stopped) and not any(s in said for s in stop)


@pytest.mark.parametrize("stop", ["", ["a", ""], [None], [3]], ids=str)
def test_bad_stop_strings_are_named(stop):
    with pytest.raises(ValueError, match="^stop must be strings"):
        TextStream(Bytes([]), stop)
