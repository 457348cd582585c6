"""The doctor names the illness of each planted sick run, that one alone, and leaves healthy runs alone."""
import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer, TrainConfig
from minillm.__main__ import main
from minillm.data.shards.format import SIDES, open_shards, split_documents
from minillm.data.shards.loader import Loader
from minillm.data.shards.prepare import TrainingData, prepare
from minillm.data.shards.write import SideWriter, write_sidecar
from minillm.models.packing import Batch
from minillm.train.loop import one_step, train
from minillm.workbench.doctor import examine
from minillm.workbench.patient import Patient

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
    "twice": texts(40, 120) * 3, "leaked": texts(120, 120),
    "padded": [(name, text + " ~" * 120) for name, text in texts(120, 120)],
    "menus": [(name, "home news about contact " * 24 + text) for name, text in texts(120, 360)],
    "mixed up": texts(120, 120),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """corpus(name) -> a run directory with nothing but tokenizer and shards."""
    made = {}

    def get(name, vocab_size=400):
        if (name, vocab_size) not in made:
            directory = tmp_path_factory.mktemp("corpus")
            prepare(lambda: CORPORA[name], directory, vocab_size=vocab_size, source=name)
            if name in ("leaked", "mixed up"):
                write_again(directory, name)
            made[name, vocab_size] = directory
        return made[name, vocab_size]
    return get


def write_again(directory, fault):
    """Write the shards again: the validation text also in the training text; or said to be as long as that."""
    tokenizer, shards = Tokenizer.from_pretrained(directory), open_shards(directory / "data")
    sides = {side: [text.decode() for text in split_documents(getattr(shards, side), tokenizer)] for side in SIDES}
    writers = {side: SideWriter(directory / "data", side, tokenizer) for side in SIDES}
    writers["train"].add(sides["train"] + sides["val"] * (fault == "leaked"))
    writers["val"].add(sides["val"])
    if fault == "mixed up":
        writers["val"].counts["bytes"] = writers["train"].counts["bytes"]
    write_sidecar(directory / "data", tokenizer, {side: writers[side].finish() for side in SIDES}, 0.1, 0)


def trained(corpus, run, data=TrainingData, change=lambda model: None, words="good", vocab_size=400, model=MODEL,
            until=None, step=None, **settings):
    """Train a run in `run` and examine it, which changes no byte of it; returns what the doctor says."""
    for path in (source := corpus(words, vocab_size)).rglob("*"):
        if path.is_file() and path.name != ".lock":
            (run / path.relative_to(source)).parent.mkdir(exist_ok=True, parents=True)
            (run / path.relative_to(source)).write_bytes(path.read_bytes())
    config, shards = replace(CONFIG, **settings), open_shards(run / "data")
    made = GPT(replace(model, vocab_size=shards.vocab_size), 0)
    change(made)
    batches = data(shards, model.block_size, config.batch_size, 0, config.accumulate)
    try:
        train(made, batches, config, run, step=step,
              progress=lambda done, *_: signal.raise_signal(signal.SIGINT) if done == until else None)
    except (FloatingPointError, MemoryError):
        pass
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    results = examine(run)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert all(found["evidence"] and found["advice"] for found in results["findings"])
    return results


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


class InOrder(TrainingData):
    """The text from its beginning, each batch fifty times."""

    def batch(self, step, micro=0):
        rows = np.concatenate(self.shards.train.arrays)[step // 50 * 256:][:257].astype(np.int64)
        return Batch(rows[:-1].reshape(8, 32), rows[1:].reshape(8, 32))


class SameBatch(TrainingData):
    def batch(self, step, micro=0):
        return super().batch(0, micro)


class OnValidation(TrainingData):
    def __init__(self, *args):
        super().__init__(*args)
        self.loader = Loader(self.shards.val, *args[1:])


class EasyValidation(TrainingData):
    def validation(self, batches=0):
        tokens, targets, _ = next(super().validation(1))
        easy = np.bincount(np.concatenate(self.shards.train.arrays)).argmax()
        yield Batch(tokens, np.where(targets == easy, targets, -1))


class Dies(TrainingData):
    def batch(self, step, micro=0):
        if step == 60:
            raise MemoryError("Unable to allocate 7.45 GiB")
        return super().batch(step, micro)


def deaden(model):
    model.params["h.1.mlp.c_fc.bias"][:64] = -12


def poison(model):
    model.params["h.0.mlp.c_fc.weight"][:] *= 1e6


def growing(model, optimizer, *rest):
    """A step with weight decay of the wrong sign."""
    row = one_step(model, optimizer, *rest)
    model.params.flat *= 1.03
    return row


SICK = [
    ("targets not shifted", {"data": Unshifted}),
    ("loss mask", {"data": Masked}),
    ("data order", {"data": InOrder}),
    ("data order", {"data": SameBatch}),
    ("leak", {"data": OnValidation}),
    ("leak", {"data": EasyValidation}),
    ("leak", {"words": "leaked"}),
    ("below the entropy floor", {"words": "mixed up"}),
    ("repetition", {"words": "menus", "steps": 600}),
    ("out of memory", {"data": Dies, "save_every": 50}),
    ("out of memory", {"data": Dies}),
    ("diverged", {"lr": 100.0, "clip": 0.0}),
    ("schedule not finished", {"until": 110}),
    ("learning rate too high", {"lr": 0.5, "min_lr": 0.5}),
    ("learning rate too low", {"lr": 1e-6, "min_lr": 1e-6}),
    ("exploding gradients", {"step": growing}),
    ("vanishing gradients", {"change": poison}),
    ("dead units", {"change": deaden}),
    ("duplicated data", {"words": "twice"}),
    ("over-fitting", {"words": "few", "steps": 300}),
    ("too small a vocabulary", {"vocab_size": 258}),
    ("wasted padding", {"words": "padded"}),
]


EVIDENCE = {                                # what more the evidence says, by the fault
    "growing": r"h\.\d\.\S+ grew most, \d+ times since step 30, tenfold from step \d+ on",
    "poison": r"gradient of h\.1\.mlp\.c_fc \S+, largest of a layer \S+, so small from step 30 on",
    "menus": r"' home news about contact' \d+ times, in the training text 2,\d+ times",
    "Dies": r"train.batch_size=[1-7] with train.accumulate=\d would fit, with the same gradients, in 0.0\d+ GB",
}


def evidence_of(plant):
    fault = next(iter(EVIDENCE.keys() & {getattr(value, "__name__", value) for value in plant.values()}), None)
    return EVIDENCE.get(fault, "")


@pytest.mark.parametrize("illness, plant", SICK)
def test_a_sick_run_is_diagnosed(illness, plant, corpus, tmp_path):
    results = trained(corpus, tmp_path, **plant)
    assert [found["illness"] for found in results["findings"]] == [illness], results
    (found,) = results["findings"]
    assert re.search(evidence_of(plant), found["evidence"] + found["advice"]), found


HEALTHY = {
    "plain": {}, "dropout": {"model": replace(MODEL, dropout=0.1)}, "wsd": {"schedule": "wsd"},
    "accumulated": {"batch_size": 4, "accumulate": 2}, "slow": {"lr": 1e-3, "steps": 300},
    "one layer": {"model": replace(MODEL, n_layer=1, n_head=4)}, "two languages": {"words": "two languages"},
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_healthy_run_is_left_alone(kind, corpus, tmp_path):
    results = trained(corpus, tmp_path, **HEALTHY[kind])
    assert results["healthy"] and not results["findings"] and not results["skipped"], results


@pytest.fixture(scope="module")
def healthy(corpus, tmp_path_factory):
    trained(corpus, run := tmp_path_factory.mktemp("healthy"))
    return run


@pytest.mark.parametrize("loops_at, notes", [((0.0,), 1), ((), 0)])
def test_greedy_text_that_loops_is_the_sampling(loops_at, notes, healthy, monkeypatch):
    """Only text at temperature 1 must not, where the training text does not: that is a sick run above."""
    fluent = open_shards(healthy / "data").train.arrays[0]

    def samples(self, temperature, count):
        return [[7, 8] * 32 if temperature in loops_at else fluent[64 * i:][:64].tolist() for i in range(count)]
    monkeypatch.setattr(Patient, "samples", samples)
    results = examine(healthy)
    assert not results["findings"] and len(results["notes"]) == notes


def test_the_command_tells_it_by_exit_code_and_json(healthy, corpus, tmp_path, capsys):
    assert main(["doctor", str(healthy)]) == 0
    assert "healthy: 17 checks found nothing" in capsys.readouterr().out
    assert main(["doctor", str(healthy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    trained(corpus, tmp_path, until=110)
    assert main(["doctor", str(tmp_path)]) == 1
    assert "SCHEDULE NOT FINISHED: step 110 of 150" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "data")]) == 2
    assert "no run directory" in capsys.readouterr().err
