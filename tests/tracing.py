"""A tiny model and what `minillm trace` records of it, which tests of study/trace share."""
from functools import cache

import numpy as np

from minillm import GPT, GPTConfig
from minillm.config import TrainConfig
from minillm.study.trace import numeric
from minillm.study.trace.record import Training, record

PROMPT = [1, 5, 3, 5, 2]                # a token that repeats
SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, vocab_size=19)


def model(seed=0, shape=SHAPE, ops=None):
    """With biases that are not zero, and sublayers that matter."""
    made = GPT(shape, seed, ops=ops)
    made.params.flat[:] += 0.2 * np.random.default_rng(seed).standard_normal(made.params.flat.size).astype(np.float32)
    return made


def training(of):
    """The fourth step of a run: moments that are not zero."""
    rng, m, v = np.random.default_rng(7), of.params.zeros_like(), of.params.zeros_like()
    m.flat[:], v.flat[:] = 0.1 * rng.standard_normal((2, m.flat.size))
    v.flat[:] **= 2
    return Training(TrainConfig(clip=0.5, weight_decay=0.2), 1e-2, 3, m, v, "of the run")


@cache
def recorded():
    """The record of the tiny model, with few finite differences."""
    before, numeric.WORK = numeric.WORK, 3e9
    try:
        return record(model(), PROMPT, training(model()))
    finally:
        numeric.WORK = before


def array(found, key):
    """An array of a record that is whole, back from its numbers."""
    about = found["arrays"][key]
    assert about["whole"]
    return np.array(about["values"], about["dtype"]).reshape(about["shape"])


def calls(found, function, phase=None):
    return [call for call in found["calls"] if call["function"] == function and phase in (None, call["phase"])]


def given(call, name):
    return next(put["array"] for put in call["inputs"] + call["outputs"] if put["name"] == name)
