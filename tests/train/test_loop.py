"""The training loop: a complete run directory, and a resume that is bit-exact whatever kills the run."""
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_same_bits
from training import CONFIG, MODEL, final_state, prepared, run_training, training_data  # noqa: F401  (a fixture)

from minillm import GPT, select
from minillm.train import checkpoint
from minillm.train.checkpoint import load_training
from minillm.train.log import read_log
from minillm.train.loop import evaluate, train


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    """The reference: 40 steps in one go."""
    run = tmp_path_factory.mktemp("whole")
    model, state = run_training(prepared, run)
    return run, model, state


def test_loss_falls_and_the_run_directory_is_complete(uninterrupted):
    run, _, state = uninterrupted
    rows = read_log(run)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.5
    assert rows[-1]["val_loss"] < rows[9]["val_loss"]
    assert state["tokens"] == 40 * 3 * 2 * 16
    for name in ("config.json", "model.safetensors", "log.csv", "last/optimizer.safetensors", "last/state.json"):
        assert (run / name).exists(), name


def test_best_model_is_the_one_saved_at_the_root(uninterrupted, prepared):
    run, _, state = uninterrupted
    data = training_data(prepared)
    nats, tokens = evaluate(GPT.from_pretrained(run), data.validation())
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
    assert [row["step"] for row in read_log(tmp_path)] == list(range(1, 41))


CHILD = """
import sys
sys.path.insert(0, {tests!r})
import pathlib
from training import run_training, slowly
run_training(pathlib.Path({prepared!r}), pathlib.Path({run!r}), progress=slowly)
"""


def test_sigkill_at_random_moments_changes_no_bit(uninterrupted, prepared, tmp_path):
    """Kill again and again, a random time after the first step of each life; checkpoints are written every 3 steps."""
    rng, lives = random.Random(1), 0
    script = CHILD.format(tests=str(Path(__file__).parents[1]), prepared=str(prepared), run=str(tmp_path))
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
    real, calls = checkpoint.save_training, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(*args)

    monkeypatch.setattr(checkpoint, "save_training", failing)
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


def test_resume_asks_before_it_takes_other_settings(prepared, tmp_path):
    short, said = dataclasses.replace(CONFIG, steps=2), []
    run_training(prepared, tmp_path, short)
    for name, value in {"lr": 1e-3, "min_lr": 1e-5, "warmup": 2, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6,
                        "weight_decay": 0.2, "clip": 0.5, "backend": "numpy", "batch_size": 4, "accumulate": 1,
                        "schedule": "wsd", "decay": 0.5}.items():
        other = dataclasses.replace(short, **{name: value})
        with pytest.raises(ValueError, match=f"other settings: {name} was {getattr(CONFIG, name)}, now {value}; "
                                             "use --override"):
            run_training(prepared, tmp_path, other)
    _, state = run_training(prepared, tmp_path, dataclasses.replace(short, lr=1e-3, steps=3), resume="override",
                            say=said.append)
    assert state["step"] == 3 and load_training(tmp_path / "last")[2]["settings"]["lr"] == 1e-3
    run_training(prepared, tmp_path, dataclasses.replace(short, lr=1e-3, steps=4, eval_every=1), say=said.append)
    assert said == ["resuming from step 2 (steps was 2, now 3; lr was 0.003, now 0.001)",
                    "resuming from step 3 (steps was 3, now 4; eval_every was 10, now 1)"]


def test_a_run_stopped_before_its_first_validation_may_end_there(prepared, tmp_path):
    def progress(step, steps, text):
        os.kill(os.getpid(), signal.SIGINT)

    _, state = run_training(prepared, tmp_path, progress=progress)
    assert state["step"] == 1 and state["best"] is None
    for _ in range(2):
        _, state = run_training(prepared, tmp_path, dataclasses.replace(CONFIG, steps=1))
        assert state["step"] == state["best"]["step"] == 1
    assert load_training(tmp_path / "last")[2]["best"] == state["best"]


def test_resume_never_starts_again(prepared, tmp_path):
    short = dataclasses.replace(CONFIG, steps=2)
    run_training(prepared, tmp_path, short)
    _, state = run_training(prepared, tmp_path, short, resume=False)
    assert state["step"] == 2
    assert len(read_log(tmp_path)) == 2


def test_the_numpy_backend_trains_alike(uninterrupted, prepared, tmp_path):
    state = train(GPT(MODEL, ops=select("numpy")), training_data(prepared), CONFIG, tmp_path)
    assert state["best"]["val_loss"] == pytest.approx(uninterrupted[2]["best"]["val_loss"], abs=2e-3)


def test_recomputation_changes_no_bit_of_a_run(uninterrupted, prepared, tmp_path):
    """Nor does it matter to a run that goes on with the other choice."""
    run_training(prepared, tmp_path, deadline=0)
    model, _ = run_training(prepared, tmp_path, dataclasses.replace(CONFIG, recompute=True))
    assert model.recompute and not uninterrupted[1].recompute
    for one, other in zip(final_state(uninterrupted[0]), final_state(tmp_path)):
        assert_same_bits(np.asarray(one), np.asarray(other))
