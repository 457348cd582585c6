"""The training loop: resume is bit-exact whatever kills the run, the log is whole, NaN is traced to its op and layer."""
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm import GPT, GPTConfig, TrainConfig, select
from minillm.train import loop as training
from minillm.models.pretrained import load_model, load_training
from minillm.data.shards.prepare import TrainingData, prepare
from minillm.train.nonfinite import NonFiniteError

MODEL = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=16, vocab_size=280, dropout=0.1)
CONFIG = TrainConfig(steps=40, batch_size=3, accumulate=2, lr=3e-3, warmup=5, eval_every=10, save_every=3, log_every=1)
TEXT = [(f"doc {i}", f"Document {i} says that {i} times {i} is {i * i}, and nothing else. " * 4) for i in range(40)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory with shards and tokenizer, shared by all runs of this module."""
    directory = tmp_path_factory.mktemp("prepared")
    prepare(lambda: TEXT, directory, vocab_size=280, source="test")
    return directory


def run_training(prepared, run, config=CONFIG, model_config=MODEL, **kwargs):
    _, shards = prepare(lambda: TEXT, prepared, source="test")
    data = TrainingData(shards, model_config.block_size, config.batch_size, config.seed, config.accumulate)
    model = GPT(model_config, config.seed)
    state = training.train(model, data, config, run, **kwargs)
    return model, state


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    """The reference: 40 steps in one go."""
    run = tmp_path_factory.mktemp("whole")
    model, state = run_training(prepared, run)
    return run, model, state


def final_state(run):
    """Parameters, both moments and the step of run/last."""
    _, params = load_model(run / "last")
    m, v, state = load_training(run / "last")
    return params.flat, m.flat, v.flat, state["step"]


def test_loss_falls_and_the_run_directory_is_complete(uninterrupted):
    run, _, state = uninterrupted
    rows = training.read_log(run)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.5
    assert rows[-1]["val_loss"] < rows[9]["val_loss"]
    assert state["tokens"] == 40 * 3 * 2 * 16
    for name in ("config.json", "model.safetensors", "log.csv", "last/optimizer.safetensors", "last/state.json"):
        assert (run / name).exists(), name


def test_best_model_is_the_one_saved_at_the_root(uninterrupted, prepared):
    run, _, state = uninterrupted
    _, shards = prepare(lambda: TEXT, prepared, source="test")
    data = TrainingData(shards, MODEL.block_size, CONFIG.batch_size)
    nats, tokens = training.evaluate(GPT.from_pretrained(run), data.validation())
    assert nats / tokens == pytest.approx(state["best"]["val_loss"], rel=1e-6)
    assert tokens == data.validation_tokens


def test_two_runs_of_one_seed_are_identical(uninterrupted, prepared, tmp_path):
    run_training(prepared, tmp_path)
    assert_same_bits(final_state(tmp_path), final_state(uninterrupted[0]))


def test_stopped_at_17_and_resumed_for_23_is_the_same_run(uninterrupted, prepared, tmp_path):
    stop_at = 17

    def progress(step, steps, text):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    _, state = run_training(prepared, tmp_path, progress=progress)
    assert state["step"] == stop_at
    run_training(prepared, tmp_path)
    assert_same_bits(final_state(tmp_path), final_state(uninterrupted[0]))
    assert [row["step"] for row in training.read_log(tmp_path)] == list(range(1, 41))


CHILD = """
import sys
sys.path.insert(0, {tests!r})
import pathlib
from test_train import run_training, slowly
run_training(pathlib.Path({prepared!r}), pathlib.Path({run!r}), progress=slowly)
"""


def slowly(step, *rest):
    """Say that the step is done, and leave the parent time to kill."""
    print(step, flush=True)
    time.sleep(0.01)


def test_sigkill_at_random_moments_changes_no_bit(uninterrupted, prepared, tmp_path):
    """Kill again and again, a random time after the first step of each life; checkpoints are written every 3 steps."""
    rng, lives = random.Random(1), 0
    script = CHILD.format(tests=os.path.dirname(__file__), prepared=str(prepared), run=str(tmp_path))
    while True:
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        lives += 1
        first = child.stdout.readline()
        if lives <= 6 and first:
            time.sleep(rng.random() * 0.15)
            child.send_signal(signal.SIGKILL)
        child.communicate()
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
    assert lives >= 3, "the child must really have been killed on the way"
    assert_same_bits(final_state(tmp_path), final_state(uninterrupted[0]))


def test_kill_while_the_checkpoint_is_written(uninterrupted, prepared, tmp_path, monkeypatch):
    """A death inside `save` (here: a disk that fills up half-way) loses nothing that was saved before."""
    real, calls = training.checkpoint.save_training, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(*args)

    monkeypatch.setattr(training.checkpoint, "save_training", failing)
    with pytest.raises(OSError, match="No space"):
        run_training(prepared, tmp_path)
    assert load_training(tmp_path / "last")[2]["step"] == 9
    run_training(prepared, tmp_path)
    assert_same_bits(final_state(tmp_path), final_state(uninterrupted[0]))


def test_resume_refuses_another_model_seed_or_data(prepared, tmp_path):
    short = dataclasses.replace(CONFIG, steps=2)
    run_training(prepared, tmp_path, short)
    with pytest.raises(ValueError, match="n_layer"):
        run_training(prepared, tmp_path, short, dataclasses.replace(MODEL, n_layer=1))
    with pytest.raises(ValueError, match="seed"):
        run_training(prepared, tmp_path, dataclasses.replace(short, seed=5))
    with pytest.raises(ValueError, match="model.safetensors: truncated"):
        weights = tmp_path / "last" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-3])
        run_training(prepared, tmp_path, short)


def test_resume_never_starts_again(prepared, tmp_path):
    short = dataclasses.replace(CONFIG, steps=2)
    run_training(prepared, tmp_path, short)
    _, state = run_training(prepared, tmp_path, short, resume=False)
    assert state["step"] == 2
    assert len(training.read_log(tmp_path)) == 2


def poisoned(model, op, call):
    """The model, with a NaN planted in the output of the call-th call of one forward or backward."""
    calls = []
    real = getattr(model.ops, op)

    def bad(*args, **into):
        result = real(*args, **into)
        calls.append(1)
        if (len(calls) - 1) % bad.every == call:
            (result[0] if isinstance(result, tuple) else result).flat[0] = np.nan
        return result

    bad.every = 2 if op.startswith(("attention", "gelu", "mlp")) else 1
    model.ops = model.ops._replace(**{op: bad})
    return model


@pytest.mark.parametrize("op, call, layer", [
    ("attention_forward", 1, "h.1.attn.c_attn"), ("mlp_forward", 0, "h.0.mlp.c_fc"),
    ("attention_backward", 0, "h.1.attn.c_attn"), ("mlp_backward", 1, "h.0.mlp.c_fc")])
def test_nan_is_traced_to_op_and_layer(prepared, tmp_path, op, call, layer):
    _, shards = prepare(lambda: TEXT, prepared, source="test")
    data = TrainingData(shards, MODEL.block_size, CONFIG.batch_size, 0, CONFIG.accumulate)
    model = poisoned(GPT(MODEL), op, call)
    before = model.params.flat.copy()
    with pytest.raises(NonFiniteError, match=rf"step 0: {op}: 1 NaN.* in (after )?{layer}"):
        training.train(model, data, CONFIG, tmp_path)
    assert np.array_equal(before, model.params.flat), "a bad gradient must not reach the parameters"


def test_nan_in_a_parameter_is_named(prepared, tmp_path):
    _, shards = prepare(lambda: TEXT, prepared, source="test")
    data = TrainingData(shards, MODEL.block_size, CONFIG.batch_size, 0, CONFIG.accumulate)
    model = GPT(MODEL)
    model.params["h.1.ln_2.weight"][3] = np.inf
    with pytest.raises(NonFiniteError, match="parameter h.1.ln_2.weight"):
        training.train(model, data, CONFIG, tmp_path)


def test_the_numpy_backend_trains_alike(uninterrupted, prepared, tmp_path):
    _, shards = prepare(lambda: TEXT, prepared, source="test")
    data = TrainingData(shards, MODEL.block_size, CONFIG.batch_size, 0, CONFIG.accumulate)
    state = training.train(GPT(MODEL, ops=select("numpy")), data, CONFIG, tmp_path)
    assert state["best"]["val_loss"] == pytest.approx(uninterrupted[2]["best"]["val_loss"], abs=2e-3)


def test_torn_log_line_is_dropped(tmp_path):
    (tmp_path / "log.csv").write_text(",".join(training.COLUMNS) + "\n3,100,2.5,0.001,1.0,,,900\n6,200,2.4")
    rows = training.read_log(tmp_path)
    assert [row["step"] for row in rows] == [3]
    training.trim_log(tmp_path, 2)
    assert training.read_log(tmp_path) == []
