"""The doctor on runs of a Llama: a healthy one, one with dead gates, one that ran out of memory."""
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from minillm import Llama, LlamaConfig, TrainConfig, load_model
from minillm.__main__ import main
from minillm.data.shards.format import open_shards
from minillm.data.shards.prepare import TrainingData, prepare
from minillm.train.loop import train
from minillm.workbench.doctor import dead_units, examine, shape_of, vanishing
from minillm.workbench.patient import Patient

SHAPE = LlamaConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, n_inner=64, block_size=32, vocab_size=300,
                    mlp_bias=True, rope_scaling=(("factor", 2.0), ("rope_type", "linear")))


def texts():
    """A language of forty words, each followed by one of four."""
    rng = np.random.default_rng(0)
    words, following = ["".join(rng.choice(list("aeioubcdfglmn"), 5)) for _ in range(40)], rng.integers(0, 40, (40, 4))
    for i in range(120):
        place, said = rng.integers(40), []
        for _ in range(120):
            place = following[place, rng.integers(4)]
            said.append(words[place])
        yield f"text {i}", " ".join(said) + "."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama") / "run"
    directory.mkdir()
    prepare(lambda: list(texts()), directory, vocab_size=300, source="forty words")
    config = TrainConfig(steps=60, batch_size=8, lr=3e-3, min_lr=3e-4, warmup=10, eval_every=25, eval_batches=8,
                         save_every=0, log_every=2)
    data = TrainingData(open_shards(directory / "data"), SHAPE.block_size, 8, 0)
    train(Llama(SHAPE), data, config, directory)
    return directory


def test_a_healthy_run(run, capsys):
    found = examine(run)
    assert found["healthy"], found["findings"]
    assert {"vanishing", "dead_units", "not_learning", "leak"} <= set(found["checked"])
    assert main(["doctor", str(run)]) == 0
    assert [when for when, _ in Patient(run).gradients] == ["at the start", "best", "last"]


def test_dead_gates_and_faded_layers_are_named(run):
    p = Patient(run)
    p.model = load_model(run / "last")
    p.model.params["model.layers.1.mlp.gate_proj.bias"][:16] = -40
    evidence = dead_units(p).evidence
    assert re.match("25% of the units of model.layers.1.mlp never fire; by layer 0.00 0.25", evidence)
    p.model.params["model.layers.0.self_attn.o_proj.weight"][:] *= 1e-6
    p.model.params["model.layers.0.input_layernorm.weight"][:] *= 1e-5
    assert "gradient of model.layers.0.self_attn." in vanishing(p).evidence


def test_queries_and_keys_that_attend_to_all_alike_are_healthy(run):
    p = Patient(run)
    p.model = load_model(run / "last")
    p.model.params["model.layers.1.self_attn.k_proj.weight"][:] *= 1e-5         # of the queries' gradient a factor
    assert vanishing(p) is None


def test_the_shape_of_a_run_that_died():
    for shape in (SHAPE, replace(SHAPE, window=8, full_layers=(1,))):
        assert shape_of(json.loads(json.dumps(asdict(shape)))) == shape
