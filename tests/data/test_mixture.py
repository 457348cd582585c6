"""Rows of several sources by weight: exact shares at every moment, each source in its own epochs, without state."""
from fractions import Fraction

import numpy as np
import pytest
from byte_tokenizer import ByteTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.shards.format import open_shards
from minillm.data.shards.mixture import Mixture, cuts_of, shares_of
from minillm.data.shards.write import write_shards

WEIGHTS = ["0.7", "0.2", "0.1"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Texts of one letter each: a token says where it comes from. The last one is small."""
    folder = tmp_path_factory.mktemp("sources")
    for letter, documents in zip("abc", (60, 30, 4)):
        write_shards([letter * (90 + i) for i in range(documents)], ByteTokenizer(), folder / letter, 0.2)
    return {letter: open_shards(folder / letter) for letter in "abc"}


def mixture(sources, weights=WEIGHTS, seed=0, accumulate=2):
    return Mixture(sources, weights, 16, 5, seed, accumulate)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.integers(0, 9))
def test_shares_are_exact_at_every_moment(weights, seed):
    """No source is ever as many rows off its share as there are sources; a whole period is met exactly."""
    mix = object.__new__(Mixture)
    shares = shares_of(weights, len(weights))
    mix.cuts = cuts_of(shares, seed)
    counts = [0] * len(weights)
    for row in range(400):
        assert mix.drawn(row) == counts
        source, number = mix.place(row)
        assert number == counts[source], "a source's own blocks are numbered without a gap"
        counts[source] += 1
        assert all(abs(count - share * (row + 1)) < len(weights) for count, share in zip(counts, shares))
        assert abs(counts[0] - shares[0] * (row + 1)) < 1
    far = 10 ** 15 * sum(weights)
    assert all(abs(count - share * far) < len(weights) for count, share in zip(mix.drawn(far), shares))
    assert sum(mix.drawn(far)) == far


def test_a_tenth_is_a_tenth():
    assert shares_of([0.7, "0.2", "1/10"], 3) == shares_of([7, 2, 1], 3) == [Fraction(n, 10) for n in (7, 2, 1)]


def test_rows_come_from_their_sources_each_in_its_own_epochs(sources):
    mix = mixture(sources)
    blocks = mix.loaders[2].blocks
    rows = [row for step in range(10 * blocks) for micro in range(2) for row in mix.batch(step, micro).tokens]
    letters = [{ord("a"): 0, ord("b"): 1, ord("c"): 2}[int(np.bincount(row)[:255].argmax())] for row in rows]
    assert letters == [mix.place(n)[0] for n in range(len(rows))]
    small = [row for row, letter in zip(rows, letters) if letter == 2]
    assert len(small) == 10 * blocks                            # a tenth of 100 rows for each of its blocks: ten epochs
    for epoch in range(10):
        starts = sorted(mix.loaders[2].block_start(n) for n in range(epoch * blocks, (epoch + 1) * blocks))
        assert starts[0] == 0 and max(np.diff(starts)) <= 16    # all of it, in each
    for n, row in enumerate(small):
        alone = np.empty(17, np.int64)
        mix.loaders[2].read_block(alone, n)
        np.testing.assert_array_equal(row, alone[:-1])


def test_batches_are_a_function_of_seed_step_and_micro(sources):
    used = mixture(sources)
    history = [used.batch(step, micro) for step in range(9) for micro in range(2)]
    for step, micro in ((8, 1), (0, 0), (4, 1)):
        for one, other in zip(mixture(sources).batch(step, micro)[:2], history[2 * step + micro][:2]):
            np.testing.assert_array_equal(one, other)
    assert [mixture(sources, seed=1).place(n) for n in range(20)] != [used.place(n) for n in range(20)]
    dealt = Mixture(sources, WEIGHTS, 16, 5, 0, 1)              # rows are numbered on, however they are dealt
    np.testing.assert_array_equal(dealt.batch(9).tokens, used.batch(4, 1).tokens)
    with pytest.raises(ValueError, match="micro"):
        used.batch(0, 2)


def test_equal_sources_are_not_shuffled_alike(sources):
    mix = mixture({"one": sources["a"], "two": sources["a"]}, [1, 1])
    orders = [[loader.block_start(n) for n in range(20)] for loader in mix.loaders]
    assert orders[0] != orders[1]


def test_validation_and_fingerprint_are_over_all(sources):
    mix = mixture(sources)
    learned = sum(batch.learned for batch in mix.validation())
    assert learned == mix.validation_tokens == sum(shards.val.tokens - 1 for shards in sources.values())
    assert mix.validation_bytes == sum(shards.val.bytes for shards in sources.values())
    assert mix.fingerprint != mixture({"b": sources["b"], "a": sources["a"], "c": sources["c"]}).fingerprint
    assert str(mix) == "a 7/10, b 1/5, c 1/10"


def test_epochs_are_told(sources):
    mix = mixture(sources)
    steps = 10 * mix.loaders[2].blocks                          # of ten rows, one of them from c
    assert mix.describe(steps).splitlines()[2] == "mixture     c: 10.0% of the rows, 10.00 epochs"


def test_a_weight_of_zero_is_validation_alone(sources):
    mix = mixture(sources, [1, 0, 1])
    assert {mix.place(n)[0] for n in range(100)} == {0, 2} and mix.drawn(100) == [50, 0, 50]


@pytest.mark.parametrize("weights, words", [
    ([1, 2], "got 2 weights for 3 sources"), ([1, -1, 2], "at least 0: got -1"), ([0, 0, 0], "all 0"),
    (["x", 1, 1], "must be a number, such as 0.7 or 2/3: got x"), ([float("nan"), 1, 1], "got nan"),
    ([1, 1, float("inf")], "got inf"), (["1/0", 1, 1], "got 1/0")])
def test_bad_weights_are_named(sources, weights, words):
    with pytest.raises(ValueError, match=f"^mix: .*{words}"):
        mixture(sources, weights)


def test_a_source_too_small_for_a_block_is_named(sources):
    with pytest.raises(ValueError, match="c: one block of block_size 400 needs 401 tokens"):
        Mixture(sources, WEIGHTS, 400, 1)
