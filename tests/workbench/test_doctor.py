"""The doctor names the illness of each planted sick run, that one alone, and leaves healthy runs alone."""
import json
from dataclasses import replace
from itertools import starmap

import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer, TrainConfig
from minillm.__main__ import main
from minillm.data.shards.format import open_shards
from minillm.data.shards.loader import Loader
from minillm.data.shards.prepare import TrainingData, prepare
from minillm.models.packing import Batch
from minillm.train.loop import one_step, train
from minillm.workbench.doctor import examine

MODEL = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=400)
CONFIG = TrainConfig(steps=150, batch_size=8, lr=3e-3, min_lr=3e-4, warmup=10, eval_every=30, eval_batches=8,
                     save_every=0, log_every=2)


def language(first, seed=0):
    """A random language of sixty words from number `first` on, each followed by one of four."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("aeioubcdfglmnprst"), 5)) for _ in range(first + 60)][first:]
    return words, rng.integers(0, 60, (60, 4))


def texts(count, length, first=0, seed=0):
    """[(name, text), ...] in that language."""
    (words, following), rng = language(first), np.random.default_rng(100 + seed)
    made = []
    for i in range(count):
        word, said = rng.integers(60), []
        for _ in range(length):
            word = following[word, rng.integers(4)]
            said.append(words[word])
        made.append((f"text {i}", " ".join(said) + "."))
    return made


CORPORA = {
    "good": texts(120, 120), "two languages": texts(60, 120) + texts(60, 120, 60, 1), "few": texts(6, 120),
    "twice": texts(40, 120) * 3,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """corpus(name) -> a run directory with nothing but tokenizer and shards."""
    made = {}

    def get(name, vocab_size=400):
        if (name, vocab_size) not in made:
            directory = tmp_path_factory.mktemp("corpus")
            prepare(lambda: CORPORA[name], directory, vocab_size=vocab_size, source=name)
            made[name, vocab_size] = directory
        return made[name, vocab_size]
    return get


def trained(corpus, run, data=TrainingData, change=lambda model: None, words="good", vocab_size=400, model=MODEL,
            until=None, **settings):
    """Train a run in `run` and examine it; returns the checks that found something."""
    for path in (source := corpus(words, vocab_size)).rglob("*"):
        if path.is_file() and path.name != ".lock":
            (run / path.relative_to(source)).parent.mkdir(exist_ok=True, parents=True)
            (run / path.relative_to(source)).write_bytes(path.read_bytes())
    config, shards = replace(CONFIG, **settings), open_shards(run / "data")
    made = GPT(replace(model, vocab_size=shards.vocab_size), 0)
    change(made)
    batches = data(shards, model.block_size, config.batch_size, 0, config.accumulate)
    try:
        train(made, batches, config, run, **({"deadline": 0.0} if until else {}))
    except (FloatingPointError, MemoryError):
        pass
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    results = examine(run)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert all(found["evidence"] and found["advice"] for found in results["findings"])
    return [found["check"] for found in results["findings"]], results


class Unshifted(TrainingData):
    def batch(self, step, micro=0):
        tokens, _, _ = super().batch(step, micro)
        return Batch(tokens, tokens)

    def validation(self, batches=0):
        return (Batch(tokens, np.where(targets < 0, -1, tokens)) for tokens, targets, _ in super().validation(batches))


class Masked(TrainingData):
    def batch(self, step, micro=0):
        tokens, targets, _ = super().batch(step, micro)
        targets[:, 3:] = -1
        return Batch(tokens, targets)


class Sorted(TrainingData):
    """The first language, then the second."""

    def batch(self, step, micro=0):
        ids = np.concatenate(self.shards.train.arrays)
        start = min(len(ids) - 300, step * 256 * len(ids) // (150 * 256))
        rows = ids[start:start + 257].astype(np.int64)
        return Batch(rows[:-1].reshape(8, 32), rows[1:].reshape(8, 32))


class SameBatch(TrainingData):
    def batch(self, step, micro=0):
        return super().batch(0, micro)


class OnValidation(TrainingData):
    def __init__(self, *args):
        super().__init__(*args)
        self.loader = Loader(self.shards.val, *args[1:])


class Dies(TrainingData):
    def batch(self, step, micro=0):
        if step == 60:
            raise MemoryError("Unable to allocate 7.45 GiB")
        return super().batch(step, micro)


def deaden(model):
    model.params["h.1.mlp.c_fc.bias"][:64] = -12


def starve(model):
    model.params["h.0.ln_1.weight"][:] = 0
    model.params["h.0.attn.c_attn.weight"][:] *= 1e-6


def poison(model):
    model.params["h.1.mlp.c_fc.weight"][:] *= 1e30


def inflate(model):
    model.params["wte.weight"][:] *= 60


SICK = {
    "not_shifted": {"data": Unshifted},
    "loss_mask": {"data": Masked},
    "data_order": {"data": Sorted, "words": "two languages"},
    "data_order ": {"data": SameBatch},
    "leak": {"data": OnValidation},
    "out_of_memory": {"data": Dies, "save_every": 50},
    "diverged": {"change": poison},
    "unfinished": {"until": 1},
    "not_learning high": {"lr": 0.5, "min_lr": 0.5},
    "not_learning low": {"lr": 1e-6, "min_lr": 1e-6},
    "exploding": {"change": inflate, "clip": 0.0},
    "vanishing": {"change": starve},
    "dead_units": {"change": deaden},
    "duplicated_data": {"words": "twice"},
    "over_fitting": {"words": "few", "steps": 300},
    "small_vocabulary": {"vocab_size": 258},
}


@pytest.mark.parametrize("illness", SICK)
def test_a_sick_run_is_diagnosed(illness, corpus, tmp_path):
    found, results = trained(corpus, tmp_path, **SICK[illness])
    print(json.dumps(results, indent=1))
    assert found == [illness.split()[0]]


HEALTHY = {
    "plain": {}, "dropout": {"model": replace(MODEL, dropout=0.1)}, "wsd": {"schedule": "wsd"},
    "accumulated": {"batch_size": 4, "accumulate": 2}, "slow": {"lr": 1e-3, "steps": 300},
    "one layer": {"model": replace(MODEL, n_layer=1, n_head=4)}, "two languages": {"words": "two languages"},
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_healthy_run_is_left_alone(kind, corpus, tmp_path):
    found, results = trained(corpus, tmp_path, **HEALTHY[kind])
    print(json.dumps(results, indent=1))
    assert found == []
