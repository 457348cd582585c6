"""Small models that tests of several rooms share: one with opinions about hens, and a run directory that answers."""
import json

import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer

TOK = Tokenizer.train(["the hen says cluck and the cow says moo"], 262)


def model(seed=0, block_size=16, zero=False):
    made = GPT(GPTConfig(1, 2, 16, block_size, TOK.vocab_size), seed, np.float64)
    made.params.flat *= 0 if zero else 1
    made.params["wte.weight"][:] *= 1 if zero else 20               # a model with opinions
    return made


def write_records(path, records):
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A run directory of a random model that answers in a vocabulary with unfinished characters."""
    directory = tmp_path_factory.mktemp("runs") / "talker"
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog. ☃ 漢字! " * 30], 290, stop_early=True)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=256, vocab_size=tokenizer.vocab_size), seed=0)
    model.params.flat[:] += 0.1 * np.random.default_rng(2).standard_normal(model.params.flat.size)
    model.save_pretrained(directory)
    tokenizer.save(directory)
    return directory
