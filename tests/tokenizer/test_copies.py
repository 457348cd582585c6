"""Tokenizers that travel: pickled, copied, in other processes, saved with gaps in their ids."""
import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
from tokenizer_texts import MIXED, needs_core

from minillm.tokenizer import Tokenizer, formats

pytestmark = needs_core


@pytest.mark.parametrize("travel", [lambda tok: pickle.loads(pickle.dumps(tok)), copy.deepcopy, copy.copy],
                         ids=["pickle", "deepcopy", "copy"])
def test_a_copy_gives_the_same_ids(pair, travel):
    for tok in pair:
        tok.encode(MIXED, "all")                                        # something in its caches
        again = travel(tok)
        assert again.encode(MIXED, "all") == tok.encode(MIXED, "all") and again.backend in (tok.backend, "python")
        assert again.special_tokens == tok.special_tokens and again.pattern == tok.pattern


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_pool_encodes(pair, method):
    texts = [MIXED, "a hen", ""]
    for tok in pair:
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            assert list(pool.map(tok.encode_ordinary, texts)) == list(map(tok.encode_ordinary, texts))


def test_pickled_with_cpp_is_read_without(pair, monkeypatch):
    packed = pickle.dumps(pair[0])
    monkeypatch.setenv("MINILLM_CPU", "none")
    again = pickle.loads(packed)
    assert again.backend == "python" and again.encode(MIXED, "all") == pair[1].encode(MIXED, "all")


def test_gaps_in_the_ids_are_saved_and_loaded(tmp_path):
    tokens = [bytes([byte]) for byte in formats.BYTE_ORDER] + [None] * 5000 + [b"<|far|>"]
    tok = Tokenizer(tokens, [], {"<|far|>": len(tokens) - 1})
    tok.save(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.vocab_size == tok.vocab_size and again.encode("a<|far|>", "all") == tok.encode("a<|far|>", "all")


def test_more_gaps_than_a_file_may_have_are_refused_at_once(monkeypatch):
    monkeypatch.setattr("minillm.tokenizer.checks.MOST_IDS_LEFT_OUT", 10)
    with pytest.raises(ValueError, match="tokens: 11 ids stand for nothing: expected at most 10"):
        Tokenizer([bytes([byte]) for byte in formats.BYTE_ORDER] + [None] * 11 + [b"x<"], [], {"x<": 267})
