"""Ids in every form that people have them, bytes in and bytes out, and where the tokens of a text lie."""
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizer_texts import MIXED, needs_core, often, texts

pytestmark = needs_core
TEXT = "héllo ☃ 漢字 <|user|>🙂"


class Tensor:
    """What is known of other libraries' tensors."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values

    def __iter__(self):
        return map(Tensor, self.values)


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, Tensor, lambda ids: np.array(ids, np.uint64),
                                  lambda ids: np.array(ids)[:, None].repeat(2, 1)[:, 0],
                                  lambda ids: map(np.int64, ids)],
                         ids=["list", "tuple", "iterator", "array", "tensor", "uint64", "strided", "numpy integers"])
def test_decode_takes_integers_of_any_kind(pair, kind):
    for tok in pair:
        ids = tok.encode(TEXT, "all")
        assert tok.decode(kind(ids)) == TEXT and tok.decode_bytes(kind(ids)) == TEXT.encode()


def test_decode_takes_tensors_of_torch(pair):
    torch = pytest.importorskip("torch")
    for tok in pair:
        ids = tok.encode(TEXT, "all")
        assert tok.decode(torch.tensor(ids)) == tok.decode(list(torch.tensor(ids))) == TEXT


@pytest.mark.parametrize("ids", [[1.0], np.array([1.0]), [[1, 2]], np.array([[1, 2]]), np.array(5), 5, "12", None,
                                 [None]], ids=repr)
def test_what_is_no_row_of_integers_is_refused(pair, ids):
    for tok in pair:
        with pytest.raises(ValueError, match="ids must be integers, in one row: got"):
            tok.decode(ids)


@often
@given(data=st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(data=b"\xff")
@example(data=b"caf\xc3\xa9 \xe4\xb8 caf\xc3 \xed\xa0\x80\xf4\x90\x80\x80")
@example(data=MIXED.encode())
def test_bytes_in_are_bytes_out(pair, data):
    found = [tok.encode_bytes(data) for tok in pair]
    assert found[0] == found[1] and pair[0].decode_bytes(found[0]) == data
    try:
        assert found[0] == pair[0].encode_ordinary(data.decode())
    except UnicodeDecodeError:
        assert len(found[0])


@often
@given(text=texts)
@example(text=MIXED)
@example(text=TEXT)
def test_offsets_of_decode_are_those_of_encode(pair, text):
    for tok in pair:
        ids, spans = tok.encode_with_offsets(text, disallowed_special=())
        again, found = tok.decode_with_offsets(ids)
        assert again == tok.decode(ids) and found.tolist() == spans.tolist()


def test_offsets_of_broken_characters_lie_in_the_text(pair):
    for tok in pair:
        ids = tok.encode_bytes(b"a\xe4\xb8b\xff\xe4\xb8\xad\xe4")
        text, spans = tok.decode_with_offsets(ids)
        assert text == tok.decode(ids) == "a\ufffdb\ufffd中\ufffd"
        assert (spans[:, 0] < spans[:, 1]).all() and spans.min() == 0 and spans.max() == len(text)
        assert [text[start:end] for start, end in spans.tolist()] == ["a", "\ufffd", "\ufffd", "b", "\ufffd",
                                                                     *["中"] * (len(ids) - 6), "\ufffd"]


def test_offsets_begin_where_tiktoken_says(pair):
    tiktoken = pytest.importorskip("tiktoken")
    tok, special_ids = pair[0], set(pair[0].special_tokens.values())
    ranks = {tok.token_bytes(i): i for i in range(tok.vocab_size) if i not in special_ids}
    theirs = tiktoken.Encoding("ours", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens=tok.special_tokens)
    text, starts = theirs.decode_with_offsets(tok.encode_ordinary(MIXED))
    again, spans = tok.decode_with_offsets(tok.encode_ordinary(MIXED))
    assert again == text and spans[:, 0].tolist() == starts
