"""Byte-level BPE: round trips, ways of encoding that agree, special tokens, and two ways of merging."""
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizer_texts import ENGLISH, MIXED, SPECIALS, often, texts

from minillm.tokenizer import Tokenizer
from minillm.tokenizer import merge as merging
from minillm.tokenizer.formats import BYTE_ORDER
from minillm.tokenizer.merge import merge_long, merge_short
from minillm.tokenizer.train import count_words, learn_merges


@often
@given(text=st.text(st.characters(exclude_categories=("Cs",))) | texts)
@example(text="")
def test_every_text_comes_back(tok, text):
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert tok.decode_bytes(ids) == text.encode("utf-8")
    assert tok.encode_ordinary(text) == ids and tok.decode(tok.encode(text, allowed_special="all")) == text
    assert b"".join(map(tok.token_bytes, ids)) == text.encode("utf-8")


@often
@given(data=st.binary())
def test_any_bytes_have_ids(tok, data):
    ids = [BYTE_ORDER.index(byte) for byte in data]
    assert tok.decode_bytes(ids) == data
    assert tok.decode(ids) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["a" * 100_000, " " * 100_000, "\n" * 50_000 + "x", "😀" * 20_000, "ab" * 50_000,
                                  "'" * 50_000, "1" * 50_000, "the" * 30_000], ids=lambda text: repr(text[:6]))
def test_endless_words_come_back_quickly(tok, text):
    assert tok.decode(tok.encode(text)) == text


def test_surrogates_are_joined_or_replaced(tok):
    assert tok.encode("\ud83d\ude00") == tok.encode("😀")
    assert tok.encode("a\ud83d z\ude00") == tok.encode("a\ufffd z\ufffd")
    assert list(tok.encode_iterable(["a\ud83d", "\ude00z"])) == tok.encode("a😀z")
    assert count_words("x\ud83d\ude00 \ud83d", "gpt2", frozenset()) == count_words("x😀 \ufffd", "gpt2", frozenset())


def test_the_ways_of_encoding_agree(tok):
    ids = tok.encode(ENGLISH + MIXED)
    assert len(ids) < len(ENGLISH) / 2
    assert tok.encode_batch([ENGLISH + MIXED, "", "a"]) == [ids, [], tok.encode("a")]
    array = tok.encode_array(ENGLISH + MIXED)
    assert array.dtype == np.uint16 and array.tolist() == ids
    assert tok.decode(array) == ENGLISH + MIXED
    assert tok.encode(ENGLISH + MIXED) == ids       # warm cache


def test_large_vocabularies_need_uint32():
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    specials = {f"<{i}>": i for i in range(256, 70_000)}
    tok = Tokenizer(tokens + [text.encode() for text in specials], [], specials)
    assert tok.encode_array("a<69999>", {"<69999>"}, ()).dtype == np.uint32
    assert tok.encode_array("a<69999>", {"<69999>"}, ()).tolist() == [BYTE_ORDER.index(ord("a")), 69_999]


def test_the_cache_is_bounded_and_does_not_matter(tok, monkeypatch):
    text = ENGLISH[:20_000]
    ids = tok.encode(text)
    monkeypatch.setattr(merging, "CACHED_WORDS", 10)
    tok._words.clear()
    assert tok.encode(text) == ids
    assert len(tok._words) <= 10
    tok.encode("q" * 1000)
    assert "q" * 1000 not in tok._words


def test_specials_come_last_and_only_when_allowed(tok):
    end, user, again = (tok.special_tokens[text] for text in SPECIALS)
    assert [end, user, again] == [1197, 1198, 1199] and tok.eot_token == end and tok.vocab_size == 1200
    text = "hi<|endoftext|><|user|>there"
    assert not set(tok.encode_ordinary(text)) & {end, user, again}
    assert tok.decode(tok.encode_ordinary(text)) == text
    assert tok.encode(text, {"<|user|>"}, ()) == tok.encode_ordinary("hi<|endoftext|>") + [user] + tok.encode("there")
    assert tok.encode(text, "all") == tok.encode("hi") + [end, user] + tok.encode("there")
    assert tok.encode("<|user|><|again|><|user|>", "all") == [again, user]      # the longest first
    assert tok.token_bytes(end) == b"<|endoftext|>"


def test_specials_are_not_learned():
    with_special = Tokenizer.train("ab<|endoftext|>" * 50, 258)
    assert with_special.merges == [(b"a", b"b")]


@pytest.mark.parametrize("allowed", ["<|endoftext|>", {"<|nobody|>"}])
def test_wrong_allowed_special(tok, allowed):
    with pytest.raises(ValueError, match="allowed_special"):
        tok.encode("x", allowed)


@often
@given(word=st.text("abcdé", max_size=60) | st.text("a", max_size=60))
def test_the_heap_merges_like_the_plain_loop(word):
    counts = {"abcab": 3, "aaaa": 2, "cdé": 2, "bcd": 4, "aab": 1, "dédé": 1}
    merges = learn_merges(counts, 40)
    ranks, made = {pair: rank for rank, pair in enumerate(merges)}, list(range(256, 256 + len(merges)))
    ids = [BYTE_ORDER.index(byte) for byte in word.encode()]
    assert merge_long(ids, ranks, made) == merge_short(ids, ranks, made)


@pytest.mark.parametrize("bad", [-1, 1200, 10**12, "a", None])
def test_unknown_ids_are_named(tok, bad):
    with pytest.raises(ValueError, match=str(bad)):
        tok.decode([1, bad])
    with pytest.raises(ValueError, match=str(bad)):
        tok.token_bytes(bad)


def test_only_text_can_be_encoded(tok):
    with pytest.raises(ValueError, match="bytes"):
        tok.encode(b"abc")
