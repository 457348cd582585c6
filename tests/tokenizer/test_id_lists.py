"""Lists of ids are those of NumPy's `tolist`, of ints that a vocabulary has once."""
import sys

import numpy as np
import pytest
from tokenizer_texts import ENGLISH, needs_core

from minillm.tokenizer import Tokenizer
from minillm.tokenizer.fast import FEW_IDS, id_list, load_extension

pytestmark = needs_core


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("count", [0, 1, FEW_IDS, 10_000])
def test_a_list_holds_the_ids(dtype, count):
    ids = np.random.default_rng(count).integers(0, 5000, count).astype(dtype)
    found = id_list(load_extension(), ids, 5000)
    assert found == ids.tolist() and set(map(type, found)) <= {int}


def test_references_are_counted():
    core, ints = load_extension(), list(range(1000))
    ids = np.full(5000, 999, np.uint16)
    counts = [sys.getrefcount(ints[999])]
    found = core.id_list(ids, ints)
    counts.append(sys.getrefcount(ints[999]))
    del found
    counts.append(sys.getrefcount(ints[999]))
    assert counts == [counts[0], counts[0] + 5000, counts[0]]


def test_an_id_without_an_int_is_refused():
    core = load_extension()
    ints = list(range(1000))
    with pytest.raises(ValueError, match="ids must be below 1000: got 1000"):
        core.id_list(np.array([5] * 300 + [1000], np.uint32), ints)
    with pytest.raises(ValueError, match="ids must have dtype uint32"):
        core.id_list(np.array([5], np.int64), ints)


def test_encode_gives_what_encode_array_does():
    tok = Tokenizer.train(ENGLISH[:20_000], 600)
    assert tok.encode(ENGLISH) == tok.encode_array(ENGLISH).tolist() == tok.encode_batch([ENGLISH])[0]
    with pytest.raises(ValueError, match="special token"):
        tok.encode(ENGLISH + "<|endoftext|>")
