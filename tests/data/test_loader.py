"""Training batches: every token a target in every epoch, a function of (seed, step); validation predicts each once."""
import math

import numpy as np
import pytest
from byte_tokenizer import TEXTS, ByteTokenizer, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.shards import loader
from minillm.data.shards.format import open_shards
from minillm.data.shards.write import write_shards

quick = settings(derandomize=True, deadline=None, max_examples=40)


@quick
@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 5))
def test_permute_is_one_to_one(size, seed, epoch):
    keys = loader.epoch_keys(seed, epoch)
    assert sorted(loader.permute(i, size, keys) for i in range(size)) == list(range(size))


def test_permute_is_random_enough():
    """Where block 0 goes, over many epochs: every place as often (chi-square), and neighbours part."""
    size, epochs = 20, 4000
    images = np.array([[loader.permute(i, size, loader.epoch_keys(1, e)) for i in (0, 1)] for e in range(epochs)])
    for counts in (np.bincount(images[:, 0], minlength=size), np.bincount((images[:, 0] - images[:, 1]) % size)[1:]):
        expected = epochs / len(counts)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < len(counts) - 1 + 5 * math.sqrt(2 * len(counts))


@quick
@given(st.integers(2, 400), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(0, 3),
       st.lists(st.integers(0, 400), max_size=4))
def test_every_token_is_a_target_in_every_epoch(tokens, block_size, batch_size, micro_batches, seed, cuts):
    stream = np.arange(tokens, dtype=np.uint16)
    parts = np.split(stream, sorted(min(cut, tokens) for cut in cuts))       # several files, some of them empty
    if tokens < block_size + 1:
        with pytest.raises(ValueError, match=f"needs {block_size + 1} tokens, there are {tokens}"):
            loader.Loader(parts, block_size, batch_size, seed, micro_batches)
        return
    load = loader.Loader(parts, block_size, batch_size, seed, micro_batches)
    batches = [load.batch(step, micro) for step in range(-(-2 * load.blocks // (batch_size * micro_batches)))
               for micro in range(micro_batches)]
    x, y = (np.concatenate(side) for side in zip(*batches))                  # (rows, T)
    assert x.dtype == y.dtype == np.int64 and batches[0][0].flags.c_contiguous and batches[0][1].flags.c_contiguous
    assert (x == x[:, :1] + np.arange(block_size)).all() and (y == x + 1).all() and y.max() < tokens
    for epoch in range(2):
        served = y[epoch * load.blocks:(epoch + 1) * load.blocks].ravel()
        assert (np.unique(served) == np.arange(1, tokens)).all()             # every token that another comes before
        assert len(served) <= tokens - 1 + 3 * block_size / 2                # and little of the stream twice


def test_the_end_of_a_short_stream_is_learned():
    """3,071 tokens in blocks of 1,024: the last third is in every epoch."""
    load = loader.Loader(np.arange(3071), 1024, 1, seed=0)
    for epoch in range(8):
        served = np.concatenate([load.batch(epoch * load.blocks + i)[1][0] for i in range(load.blocks)])
        assert set(served) == set(range(1, 3071))


def test_batches_are_a_function_of_seed_and_step():
    tokens = np.random.default_rng(0).integers(0, 1000, 20_000).astype(np.uint16)

    def make(seed=7):
        return loader.Loader([tokens[:9000], tokens[9000:]], 64, 4, seed, micro_batches=2)
    used = make()
    history = {(step, micro): used.batch(step, micro) for step in range(60) for micro in range(2)}
    for step, micro in [(59, 1), (0, 0), (31, 1)]:
        for fresh, old in zip(make().batch(step, micro), history[step, micro]):
            np.testing.assert_array_equal(fresh, old)
    assert not np.array_equal(make(8).batch(0)[0], history[0, 0][0])
    assert not np.array_equal(history[0, 0][0], history[0, 1][0])
    offsets = {used.block_start(epoch * used.blocks) % 64 for epoch in range(20)}
    assert len(offsets) > 10                                                   # block edges move


def test_loader_rejects():
    tokens = np.arange(100)
    for arguments, message in [((tokens, 0, 1, 0), "block_size"), ((tokens, 1, 0, 0), "batch_size"),
                               ((tokens, 1, 1, 0, 0), "micro_batches"), ((tokens.astype(float), 1, 1, 0), "integer"),
                               ((tokens.reshape(10, 10), 1, 1, 0), "one-dimensional"), (([], 1, 1, 0), "2 tokens")]:
        with pytest.raises(ValueError, match=message):
            loader.Loader(*arguments)
    load = loader.Loader(tokens, 8, 2, 0)
    for step, micro in [(-1, 0), (0, 1), (0, -1)]:
        with pytest.raises(ValueError, match="step"):
            load.batch(step, micro)


@quick
@given(st.integers(2, 200), st.integers(1, 30), st.integers(1, 5), st.integers(0, 200))
def test_sequential_predicts_each_token_once(tokens, block_size, batch_size, cut):
    stream = np.arange(tokens, dtype=np.uint16)
    batches = list(loader.sequential(np.split(stream, [min(cut, tokens)]), block_size, batch_size))
    x, y = (np.concatenate(side) for side in zip(*batches))
    np.testing.assert_array_equal(y[y != -1], np.arange(1, tokens))
    np.testing.assert_array_equal(x[y != -1], np.arange(tokens - 1))
    assert (y[:-1] != -1).all() and (y != -1).any(axis=1).all()
    assert all(len(rows) == batch_size for rows, _ in batches[:-1]) and 1 <= len(batches[-1][0]) <= batch_size


def test_a_few_batches_are_drawn_over_the_whole_stream():
    stream = np.arange(16 * 4 * 50 + 7)
    few, again = (list(loader.sequential(stream, 16, 4, batches=10)) for _ in range(2))
    starts = np.concatenate([x[:, 0] for x, _ in few])
    assert len(few) == 10 and len(set(starts)) == 40 and (np.diff(starts) > 0).all()
    assert (np.bincount(starts * 4 // len(stream), minlength=4) >= 5).all()      # each quarter has its share
    for one, other in zip(few, again):
        np.testing.assert_array_equal(one, other)
    assert len(list(loader.sequential(stream, 16, 4, batches=500))) == 51        # no more than there are


def test_sequential_needs_two_tokens():
    with pytest.raises(ValueError, match="at least 2 tokens"):
        loader.sequential(np.arange(1), 4, 4)


def test_from_files_to_batches(tmp_path):
    write_shards(TEXTS, ByteTokenizer(), tmp_path, shard_tokens=700)
    opened = open_shards(tmp_path)
    by_split, by_array = (loader.Loader(source, 32, 4, seed=0) for source in (opened.train, tokens_of(opened.train)))
    for one, other in zip(by_split.batch(5), by_array.batch(5)):
        np.testing.assert_array_equal(one, other)
    stream = tokens_of(opened.val)
    y = np.concatenate([y.ravel() for _, y in loader.sequential(opened.val, 32, 4)])
    np.testing.assert_array_equal(y[y != -1], stream[1:])
