"""C++ encodes as Python does: single texts, batches, special tokens, offsets, streams, threads."""
import json
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizer_texts import ENGLISH, MIXED, SPECIALS, awkward, fussy, fussy_texts, needs_core, often, seldom, texts

from minillm.tokenizer import Tokenizer

pytestmark = needs_core


def test_who_encodes_is_known(pair):
    assert [tok.backend for tok in pair] == ["cpp", "python"]
    with pytest.raises(ValueError, match="backend must be one of"):
        Tokenizer.train("abc" * 9, 260, backend="rust")


@often
@given(text=fussy_texts | texts, chosen=st.sets(st.sampled_from(SPECIALS)))
@example(text=ENGLISH[:100_000], chosen=set())
@example(text="<|user|><|again|><|user|>  <|endoftext|>", chosen=set(SPECIALS))
def test_ids_equal_python(pair, text, chosen):
    cpp, python = pair
    assert cpp.encode(text, chosen, ()) == python.encode(text, chosen, ())
    assert cpp.encode_ordinary(text) == python.encode_ordinary(text) == cpp.encode_ordinary(text)      # cold, warm
    assert cpp.encode_array(text, "all").dtype == python.encode_array(text, "all").dtype == np.uint16
    assert cpp.decode(cpp.encode_array(text, chosen, ())) == text


@seldom
@given(chunks=st.lists(fussy | awkward | st.sampled_from(SPECIALS), max_size=30),
       letters=st.text("abcdefghijklmnopqrstuvwxyz", min_size=30, max_size=120))
def test_long_words_equal_python(pair, chunks, letters):
    text = letters + "".join(chunks) + letters * 3
    assert pair[0].encode(text, "all") == pair[1].encode(text, "all")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_equal_single_texts(pair, threads):
    rng = random.Random(threads)
    batch = [ENGLISH[i:i + rng.choice([0, 1, 10, 1000, 20_000])] for i in rng.sample(range(200_000), 150)] + [MIXED, ""]
    expected = [pair[1].encode(text, "all") for text in batch]
    assert pair[0].encode_batch(batch, "all", threads=threads) == expected
    ids, ends = pair[0].encode_batch_array(batch, "all", threads=threads)
    assert ids.tolist() == list(chain(*expected)) and ends.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert pair[0].encode_batch([], threads=threads) == [] == pair[1].encode_batch([])


def test_batches_of_anything_but_text_are_refused(pair):
    for tok in pair:
        with pytest.raises(ValueError, match="text must be str"):
            tok.encode_batch(["a", b"b"])
        with pytest.raises(ValueError, match="text must be str"):
            tok.encode(None)
        with pytest.raises(ValueError, match="threads"):
            tok.encode_batch(["a"], threads=0)


def test_surrogates_are_joined_or_replaced(pair):
    for text in ("\ud83d\ude00", "a\ud83d z\ude00", "\ude00\ud83d"):
        assert pair[0].encode(text) == pair[1].encode(text)
        assert pair[0].encode_batch([text, "x"]) == pair[1].encode_batch([text, "x"])


def test_disallowed_special_tokens(pair):
    for tok in pair:
        with pytest.raises(ValueError, match="user.*at 2"):
            tok.encode("hi<|user|>")
        with pytest.raises(ValueError, match="user"):
            tok.encode_batch(["hi", "<|user|>"])
        with pytest.raises(ValueError, match="user"):
            list(tok.encode_iterable(["hi <|us", "er|>"]))
        with pytest.raises(ValueError, match="forbidden"):
            tok.encode_batch(["ok", "a forbidden word"], disallowed_special={"forbidden"})
        with pytest.raises(ValueError, match="disallowed_special"):
            tok.encode("x", disallowed_special="<|user|>")
        with pytest.raises(ValueError, match="disallowed_special"):
            tok.encode("x", disallowed_special=["", 5])
        assert tok.encode("hi<|user|>", {"<|user|>"})[-1] == tok.special_tokens["<|user|>"]
        ordinary = tok.encode_ordinary("hi<|user|>")
        assert ordinary == tok.encode("hi<|user|>", disallowed_special=()) and tok.decode(ordinary) == "hi<|user|>"
        assert ordinary == list(tok.encode_iterable(["hi<|us", "er|>"], disallowed_special=()))
        assert not set(ordinary) & set(tok.special_tokens.values())


@often
@given(text=fussy_texts)
def test_offsets_say_where_tokens_lie(pair, text):
    cpp, python = pair
    ids, offsets = cpp.encode_with_offsets(text, "all")
    assert ids == cpp.encode(text, "all") and offsets.tolist() == python.encode_with_offsets(text, "all")[1].tolist()
    for id, (start, end) in zip(ids, offsets.tolist()):
        assert cpp.token_bytes(id) in text[start:end].encode("utf-8") and end > start
    assert not ids or (offsets[0, 0] == 0 and offsets[-1, 1] == len(text))


def test_offsets_equal_hugging_face(pair, tmp_path):
    hf = pytest.importorskip("tokenizers")
    pair[0].save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    steps = document["pre_tokenizer"].get("pretokenizers", [document["pre_tokenizer"]])
    steps[-1]["trim_offsets"] = False
    theirs = hf.Tokenizer.from_str(json.dumps(document)).encode(MIXED + ENGLISH[:5000])
    ids, offsets = pair[0].encode_with_offsets(MIXED + ENGLISH[:5000], "all")
    assert theirs.ids == ids and list(map(tuple, offsets.tolist())) == theirs.offsets


@often
@given(text=fussy_texts)
def test_a_decoded_stream_never_splits_a_character(pair, text):
    for tok in pair:
        pieces = list(tok.decode_stream(tok.encode(text)))
        assert "".join(pieces) == text and "" not in pieces
        assert not any("\ufffd" in p for p in pieces if "\ufffd" not in text)


def test_decoding_half_a_character_and_bad_ids(pair):
    cpp = pair[0]
    half = cpp.encode("😀")[:1]
    assert "".join(cpp.decode_stream(half)) == "\ufffd" == cpp.decode(np.array(half))
    for tok in pair:
        for bad in ([-1], np.array([tok.vocab_size]), np.array([3, 2 ** 40])):
            with pytest.raises(ValueError, match="not in the vocabulary"):
                tok.decode(bad)
    assert cpp.decode(np.array(cpp.encode(MIXED), np.int32).reshape(1, -1)[0]) == MIXED


def test_threads_may_share_a_tokenizer(pair):
    cpp = pair[0]
    batch = [ENGLISH[i:i + 50_000] for i in range(0, 200_000, 10_000)]
    expected = [cpp.encode(text) for text in batch]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(cpp.encode, batch)) == expected
