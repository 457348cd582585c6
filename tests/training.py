"""A small training run, shared by the tests of training."""
import time

import pytest

from minillm import GPT, GPTConfig, TrainConfig
from minillm.data.shards.prepare import TrainingData, prepare
from minillm.models.pretrained import read_model
from minillm.train.checkpoint import load_training
from minillm.train.loop import train

MODEL = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=16, vocab_size=280, dropout=0.1)
CONFIG = TrainConfig(steps=40, batch_size=3, accumulate=2, lr=3e-3, warmup=5, eval_every=10, save_every=3, log_every=1)
TEXT = [(f"doc {i}", f"Document {i} says that {i} times {i} is {i * i}, and nothing else. " * 4) for i in range(40)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory with shards and tokenizer, shared by all runs of this module."""
    directory = tmp_path_factory.mktemp("prepared")
    prepare(lambda: TEXT, directory, vocab_size=280, source="test")
    return directory


def training_data(prepared, config=CONFIG, model_config=MODEL):
    """Batches of the shards in `prepared`."""
    _, shards = prepare(lambda: TEXT, prepared, source="test")
    return TrainingData(shards, model_config.block_size, config.batch_size, config.seed, config.accumulate)


def run_training(prepared, run, config=CONFIG, model_config=MODEL, **kwargs):
    model = GPT(model_config, config.seed)
    return model, train(model, training_data(prepared, config, model_config), config, run, **kwargs)


def final_state(run):
    """Parameters, both moments and the step of run/last."""
    _, params = read_model(run / "last")
    m, v, state = load_training(run / "last")
    return params.flat, m.flat, v.flat, state["step"]


def slowly(step, *rest):
    """Say that the step is done, and leave the parent time to kill."""
    print(step, flush=True)
    time.sleep(0.01)
