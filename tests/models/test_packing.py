"""Packed rows: documents side by side in one row give what they give alone, forward and backward."""
import numpy as np
import pytest
from tolerances import assert_close

from minillm import GPT, GPTConfig, select

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, vocab_size=13, dropout=0.0)
LENGTHS = [3, 8, 1, 5]


def packed(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 13, (1, sum(LENGTHS))), rng.integers(0, 13, (1, sum(LENGTHS)))


def alone(row):
    return np.split(row, np.cumsum(LENGTHS)[:-1], axis=1)


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_a_packed_row_is_its_documents_alone(backend):
    model = GPT(CONFIG, dtype=np.float64, ops=select(backend))
    tokens, targets = packed()
    together, _ = model.losses(tokens, targets, lengths=LENGTHS)
    apart = np.concatenate([model.losses(x, y)[0] for x, y in zip(alone(tokens), alone(targets))])
    assert_close("losses", together, apart, "same model")
    _, grads = model.loss_and_grads(tokens, targets, lengths=LENGTHS)
    summed = model.params.zeros_like()
    for x, y in zip(alone(tokens), alone(targets)):
        model.loss_and_grads(x, y, grads=summed, count=sum(LENGTHS))
    for name in grads:
        assert_close(name, grads[name], summed[name], "same model")


def test_a_document_does_not_see_its_neighbours():
    model = GPT(CONFIG, dtype=np.float64)
    tokens, targets = packed()
    before, _ = model.losses(tokens, targets, lengths=LENGTHS)
    tokens[0, :3] = (tokens[0, :3] + 1) % 13                           # another first document
    after, _ = model.losses(tokens, targets, lengths=LENGTHS)
    assert (before[:3] != after[:3]).all() and np.array_equal(before[3:], after[3:])
    seen, _ = GPT(CONFIG, dtype=np.float64).losses(tokens[:, :8], targets[:, :8])
    assert not np.array_equal(seen[3:], after[3:8])                    # as one document they do


@pytest.mark.parametrize("lengths", [[3, 8, 1], [3, 8, 1, 6], [17, 0], [9, 8], []])
def test_wrong_lengths_are_refused(lengths):
    model = GPT(CONFIG)
    tokens, targets = packed()
    with pytest.raises(ValueError, match="lengths|block_size"):
        model.losses(tokens, targets, lengths=lengths)
