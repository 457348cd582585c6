"""The same ids and texts as Hugging Face's `tokenizers`, where it is installed, for whatever text."""
import json

import pytest
import sentencepiece_cases
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import ENGLISH, MIXED, blank_texts, often

from minillm.tokenizer.sentencepiece import SentencePiece

DOCUMENTS = sentencepiece_cases.load()[0]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_ids_and_texts(kind):
    tokenizers = pytest.importorskip("tokenizers")
    theirs, tok = tokenizers.Tokenizer.from_str(json.dumps(DOCUMENTS[kind])), SentencePiece(DOCUMENTS[kind])

    @often
    @given(text=blank_texts, ids=st.lists(st.integers(0, tok.vocab_size - 1), max_size=8))
    def same(text, ids):
        encoded = theirs.encode(text, add_special_tokens=False)
        assert tok.encode(text, "all") == encoded.ids
        for some in (encoded.ids, ids):
            assert tok.decode(some) == theirs.decode(some, skip_special_tokens=False)
    same()
    for text in (MIXED, ENGLISH[:20_000]):
        assert tok.with_template(tok.encode(text, "all")) == theirs.encode(text).ids


def test_offsets():
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_str(json.dumps(DOCUMENTS["llama2"]))
    tok = SentencePiece(DOCUMENTS["llama2"])
    for text in sentencepiece_cases.TEXTS:
        _, spans = tok.encode_with_offsets(text, "all")
        assert list(map(tuple, spans.tolist())) == theirs.encode(text, add_special_tokens=False).offsets, text
