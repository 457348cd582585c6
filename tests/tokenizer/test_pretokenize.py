"""Pre-tokenization: the published patterns, and streams that are cut anywhere."""
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_texts import SPECIALS, characters, fussy, often, texts

from minillm.tokenizer import pretokenize
from minillm.tokenizer.pretokenize import compile_pattern, safe_pieces, split_special, word_finder


@pytest.mark.parametrize("name, published", [
    ("gpt2", r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    ("cl100k", (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
               r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"))])
@often
@given(text=texts)
@example(text="a\n  ")
@example(text="a \n\n  b")
def test_patterns_split_like_the_published_ones(name, published, text):
    words = compile_pattern(name).findall(text)
    assert words == regex.findall(published, text)
    assert "".join(words) == text


def test_pattern_samples():
    split = compile_pattern("gpt2").findall
    assert split("I'll  go,\n\n 42x") == ["I", "'ll", " ", " go", ",", "\n\n", " 42", "x"]
    assert compile_pattern("cl100k").findall("I'LL 1234.\n\nb") == ["I", "'LL", " ", "123", "4", ".\n\n", "b"]


pieces_of_text = st.lists(fussy | characters | st.sampled_from([*SPECIALS, "<|", "|>", "\ud83d", "\ude00"]),
                          max_size=40)


@pytest.mark.parametrize("allowed", [frozenset(), frozenset(SPECIALS)], ids=["plain", "specials"])
@pytest.mark.parametrize("size", [1, 5, 30])
@settings(derandomize=True, deadline=None, max_examples=150)
@given(chunks=pieces_of_text)
@example(chunks=["x\n", "\n-"])
@example(chunks=["'l", "l"])
@example(chunks=["<|user|>", "<|again|>"])
@example(chunks=["a", "\ud835", "\udc1a"])
def test_a_stream_gives_the_words_and_ids_of_the_joined_text(tok, size, allowed, chunks):
    text = "".join(chunks)
    pretokenize.PIECE, before = size, pretokenize.PIECE     # tiny pieces: every kind of cut comes up
    try:
        pieces = list(safe_pieces(chunks, allowed, tok.pattern))
        streamed = list(tok.encode_iterable(chunks, allowed, ()))
    finally:
        pretokenize.PIECE = before
    assert "".join(pieces) == text
    assert [word for piece in pieces for word in words_of(tok, piece, allowed)] == words_of(tok, text, allowed)
    assert streamed == tok.encode(text, allowed, ())


def words_of(tok, text, allowed):
    find_words = word_finder(tok.pattern)
    return [word for segment, is_special in split_special(text, allowed)
            for word in ([segment] if is_special else find_words(segment))]


@pytest.mark.parametrize("line", ["The quick brown fox, 12 times.\n", "中文，没有空格。\n", "x=1\r\n", "<|endoftext|>"])
def test_a_stream_is_held_in_small_pieces(line):
    pieces = list(safe_pieces([line] * 30_000, frozenset(SPECIALS)))
    assert "".join(pieces) == line * 30_000
    assert max(map(len, pieces)) <= pretokenize.PIECE + len(line)


def test_a_stream_without_a_safe_cut_is_still_right(tok):
    assert list(tok.encode_iterable(["-\n"] * 100_000)) == tok.encode("-\n" * 100_000)
