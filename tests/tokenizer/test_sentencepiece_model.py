"""SentencePiece's own tokenizer.model: read without its library, as the tokenizer.json that says the same."""
import struct
from importlib.util import find_spec
from pathlib import Path

import pytest
import sentencepiece_cases
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import MIXED, seldom

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.roles import opened
from minillm.tokenizer.sentencepiece import SentencePiece
from minillm.tokenizer.sentencepiece_model import parse

MODEL = sentencepiece_cases.load()[0]["llama2"]["model"]
BPE, UNIGRAM = 2, 1


def varint(number):
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])


def message(**fields):
    """The bytes of a message: field numbers as f1=..., each an int, a float or bytes."""
    found = b""
    for name, value in fields.items():
        number = int(name[1:])
        if isinstance(value, float):
            found += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            found += varint(number << 3) + varint(value)
        else:
            found += varint(number << 3 | 2) + varint(len(value)) + value
    return found


def model_file(kind=BPE, user=(), **normalizer):
    """The vocabulary of the cases in SentencePiece's form."""
    pieces = b""
    for text, id in MODEL["vocab"].items():
        special = {"<unk>": 2, "<s>": 3, "</s>": 3}.get(text, 6 if text.startswith("<0x") else 4 if text in user else 1)
        pieces += message(f1=message(f1=text.encode(), f2=-float(id), f3=special))
    rules = message(**{"f1": b"identity", "f3": 1, "f4": 0} | normalizer)
    return pieces + message(f2=message(f3=kind, f35=1), f3=rules)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model_file())
    return tmp_path / "tokenizer.model"


def test_it_is_the_tokenizer_json(path):
    tok, same = Tokenizer.from_pretrained(path.parent), SentencePiece(sentencepiece_cases.load()[0]["llama2"])
    assert isinstance(tok, SentencePiece) and tok.special_tokens == same.special_tokens
    for text in [*sentencepiece_cases.TEXTS, MIXED]:
        ids = tok.encode(text, "all")
        assert ids == same.encode(text, "all") and tok.decode(ids) == same.decode(ids)
    assert opened(tok, tok.encode("the")) == [1, *same.encode("the")]
    assert Tokenizer.from_pretrained(path).encode("the") == same.encode("the")      # the file by its name
    tok.save(path.parent)                                                           # then tokenizer.json comes first
    assert Tokenizer.from_pretrained(path.parent).encode(MIXED) == tok.encode(MIXED)


def test_without_a_blank_in_front(path):
    path.write_bytes(model_file(f3=0))
    tok = Tokenizer.from_pretrained(path)
    assert tok.encode(" the") == SentencePiece(sentencepiece_cases.load()[0]["gemma"]).encode(" the")
    assert tok.decode(tok.encode(" the")) == " the"


@pytest.mark.parametrize("data, error", [
    (model_file(UNIGRAM), "of the kind unigram: only BPE"),
    (model_file(f4=1), "the normalizer 'identity' is not supported"),
    (model_file(f1=b"nmt_nfkc", f2=b"table"), "the normalizer 'nmt_nfkc' is not supported"),
    (model_file()[:-3], "longer than the file|no end"),
    (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "an integer has no end"),
    (b"\x0a", "no end"), (b"\x0a\x00", "not a usable tokenizer file"), (b"\x0a\x03\x0a\x01\xff", "can't decode"),
])
def test_others_are_refused_by_name(path, data, error):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path}.*({error})"):
        Tokenizer.from_pretrained(path)


@seldom
@given(start=st.integers(0, 40), data=st.binary(max_size=40))
def test_broken_files_are_value_errors(start, data):
    try:
        parse(model_file()[:start] + data)
    except ValueError:
        pass


def test_the_library_reads_the_same(path):
    theirs = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(path))
    tok = Tokenizer.from_pretrained(path)
    for text in [*(text for text in sentencepiece_cases.TEXTS if "<" not in text), MIXED]:
        assert theirs.encode(text) == tok.encode(text), text


@pytest.mark.parametrize("name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240216.model.v2"])
def test_mistral(name, tmp_path):
    """A vocabulary that people use, where its package is installed; the library that wrote it has the last word."""
    sentencepiece = pytest.importorskip("sentencepiece")
    spec = find_spec("mistral_common")
    if not spec:
        pytest.skip("mistral-common is not installed")
    file = Path(spec.submodule_search_locations[0]) / "data" / name
    (tmp_path / "tokenizer.model").write_bytes(file.read_bytes())
    theirs, tok = sentencepiece.SentencePieceProcessor(model_file=str(file)), Tokenizer.from_pretrained(tmp_path)
    for text in [MIXED, *sentencepiece_cases.TRAINED_ON, "日本語" * 1000]:
        assert tok.encode(text) == theirs.encode(text)
        assert tok.decode(tok.encode(text)) == text
