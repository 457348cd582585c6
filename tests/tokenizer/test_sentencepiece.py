"""Tokenizers of SentencePiece's kind: the ids and texts of Hugging Face's `tokenizers`, in C++ and in Python."""
import pickle

import numpy as np
import pytest
import sentencepiece_cases
from hypothesis import given
from tokenizer_texts import blank_texts, core, seldom

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.roles import opened
from minillm.tokenizer.sentencepiece import SentencePiece

DOCUMENTS, CASES = sentencepiece_cases.load()
BACKENDS = ["python", "cpp"] if core else ["python"]


@pytest.fixture(scope="module", params=BACKENDS)
def all_kinds(request):
    return {kind: SentencePiece(document, "auto" if kind == "whole" else request.param)
            for kind, document in DOCUMENTS.items()}


@pytest.fixture(scope="module")
def llama(all_kinds):
    return all_kinds["llama2"]


@pytest.fixture(scope="module")
def added(all_kinds):
    return all_kinds["added"]


def test_ids_and_texts_are_those_of_tokenizers(all_kinds):
    assert len(CASES) == len(DOCUMENTS) * len(sentencepiece_cases.TEXTS)
    for kind, text, ids, decoded in CASES:
        tok = all_kinds[kind]
        assert tok.encode(text, "all") == ids, (kind, text)
        assert tok.decode(ids) == decoded, (kind, text)


@pytest.mark.skipif(not core, reason="the C++ tokenizer is not built")
@pytest.mark.parametrize("kind", sorted(set(DOCUMENTS) - {"whole"}))
def test_cpp_and_python_agree(kind):
    cpp, python = (SentencePiece(DOCUMENTS[kind], backend) for backend in ("cpp", "python"))
    assert (cpp.backend, python.backend) == ("cpp", "python")

    @seldom
    @given(text=blank_texts)
    def agree(text):
        ids = cpp.encode(text, "all")
        assert ids == python.encode(text, "all")
        assert cpp.encode_ordinary(text) == python.encode_ordinary(text)
        assert cpp.decode_bytes(np.array(ids)) == python.decode_bytes(ids)
    agree()


@seldom
@given(text=blank_texts)
def test_the_same_by_every_call(llama, text):
    ids = llama.encode(text, "all")
    assert llama.encode_array(text, "all").tolist() == list(llama.encode_iterable(text, "all")) == ids
    behind = llama.encode("<s>" + text, "all")
    assert llama.encode_batch([text, "", "<s>" + text, text], "all") == [ids, [], behind, ids]
    array, ends = llama.encode_batch_array([text, "the"], "all", threads=2)
    assert array[:ends[1]].tolist() == ids and array.dtype == np.uint16 and ends.dtype == np.int64
    with_offsets, spans = llama.encode_with_offsets(text, "all")
    assert with_offsets == ids and spans.shape == (len(ids), 2)
    assert "".join(llama.decode_stream(ids)) == llama.decode(ids) == llama.decode_with_offsets(ids)[0]


def test_offsets_say_where_a_token_stands(llama):
    text = "the cat<s> naïve 🙂"
    ids, spans = llama.encode_with_offsets(text, "all")
    words = [text[start:end] for start, end in spans]
    assert words[0] == "the" and "<s>" in words and words[-4:] == ["🙂"] * 4     # its bytes have the character's place
    assert all(llama.token_bytes(id).decode(errors="ignore") in ("", " " + word, word) for id, word in zip(ids, words))
    decoded, spans = llama.decode_with_offsets(llama.encode("the cat"))
    assert [decoded[start:end] for start, end in spans] == ["the", " c", "at"]


def test_a_stream_holds_bytes_back_and_leaves_the_first_blank_out(llama):
    ids = llama.encode("the 🙂 cat")
    assert list(llama.decode_stream(iter(ids))) == ["the", " ", "🙂", " c", "at"]
    assert list(llama.decode_stream([1, *ids[:1]])) == ["<s>", " the"]          # no text begins there
    assert llama.decode(ids[:4]) == "the \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert llama.token_bytes(ids[0]) == b" the"


def test_special_tokens_are_text_unless_allowed(llama):
    with pytest.raises(ValueError, match="holds the special token '<s>' at 2"):
        llama.encode("a <s>")
    with pytest.raises(ValueError, match="no special token"):
        llama.encode("a", {"<nothing>"})
    assert llama.special_tokens["<s>"] not in llama.encode_ordinary("a <s>")
    assert llama.encode("<s>", {"<s>"}) == [1] and llama.eot_token == 2
    assert llama.roles == {"bos_token": "<s>", "eos_token": "</s>"}


def test_the_template_and_texts_that_go_on(llama):
    ids = llama.encode("the cat")
    assert opened(llama, ids) == llama.with_template(ids) == opened(llama, [1, *ids]) == [1, *ids]
    assert llama.encode("the") + llama.encode_continuation(" cat") == ids
    assert llama.encode_continuation("") == []


def test_added_tokens_take_their_neighbourhood_along(added):
    extra = added.vocab_size - 4
    assert added.encode("q <extra>") == [*added.encode("q"), extra]              # lstrip
    assert extra + 2 not in added.encode("cats") and extra + 2 in added.encode("a cat")
    assert extra + 1 not in added.encode_ordinary("<sep>")                      # special


def test_saved_and_pickled(llama, tmp_path):
    llama.save(tmp_path)
    for again in (Tokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(llama))):
        assert isinstance(again, SentencePiece)
        assert (again.document, again.roles, again.eot_token) == (llama.document, llama.roles, 2)
        assert again.encode(sentencepiece_cases.WORDS) == llama.encode(sentencepiece_cases.WORDS)


def test_more_special_tokens(llama):
    larger = llama.with_special_tokens(["<|user|>", "<s>"])
    assert larger.vocab_size == llama.vocab_size + 1 and larger.eot_token == 2
    assert larger.encode("the<|user|>the", "all") == [*llama.encode("the"), llama.vocab_size, *llama.encode("the")]
    with pytest.raises(ValueError, match="id 700 is not in the vocabulary of 700"):
        llama.decode([700])


@pytest.mark.parametrize("text", ["a", "ab", " ", "日本", "🙂", "the cat ", "\u2581", "=-"])
def test_long_texts_take_linear_time(llama, text):
    """A text without a place to cut is one word of any length; were it quadratic, this would take minutes."""
    if llama.backend == "cpp":
        assert llama.decode(llama.encode(text * (400_000 // len(text)))).replace("\u2581", " ").strip() == (
            text * (400_000 // len(text))).replace("\u2581", " ").strip()


def changed(**parts):
    return DOCUMENTS["llama2"] | parts


@pytest.mark.parametrize("document, message", [
    (changed(model=DOCUMENTS["llama2"]["model"] | {"type": "Unigram"}), "model.type must be BPE: got 'Unigram'"),
    (changed(model=DOCUMENTS["llama2"]["model"] | {"dropout": 0.1}), "model.dropout"),
    (changed(model=DOCUMENTS["llama2"]["model"] | {"unk_token": "<?>"}), "unk_token '<[?]>' is not in the vocabulary"),
    (changed(model=DOCUMENTS["llama2"]["model"] | {"merges": [["q", "zz"]]}), "merge 0 of 'q' and 'zz'"),
    (changed(model=DOCUMENTS["llama2"]["model"] | {"vocab": {"a": 0, "b": 0}}), "unk_token|id 0 is of two tokens"),
    (changed(normalizer={"type": "NFKC"}), "normalizer is not supported: .*NFKC"),
    (changed(normalizer={"type": "Prepend", "prepend": "\u2581"}), "normalizer is not supported"),
    (changed(pre_tokenizer={"type": "Digits"}), "pre_tokenizer is not supported: .*Digits"),
    (changed(decoder=None), "decoder is not supported"),
    (changed(decoder={"type": "WordPiece"}), "decoder is not supported: .*WordPiece"),
    (changed(added_tokens=[sentencepiece_cases.added(5, "<s>")]), "added token '<s>' has id 5 but 1"),
])
def test_what_is_not_known_is_refused_by_name(document, message):
    with pytest.raises(ValueError, match=message):
        SentencePiece(document)
