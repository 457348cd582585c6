"""A training that a time ends: in time whatever the machine's speed, and resumed without a changed bit."""
import dataclasses
import os
import signal
import time
from types import SimpleNamespace

import pytest
from tolerances import assert_same_bits
from training import CONFIG, final_state, prepared, run_training  # noqa: F401  (a fixture)

from minillm.train import loop
from minillm.train.checkpoint import load_training
from minillm.train.log import read_log

TIMED = dataclasses.replace(CONFIG, steps=1000, schedule="wsd", decay=0.4, min_lr=0.0, warmup=2, save_every=0,
                            eval_every=0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only steps move: `clock.step(seconds_of)` is one of training that takes seconds_of(its number)."""
    fake = SimpleNamespace(now=0.0)
    fake.monotonic, fake.perf_counter = (lambda: fake.now), time.perf_counter

    def step(seconds_of):
        def timed(model, optimizer, data, config, state):
            fake.now += seconds_of(state["step"])
            return loop.one_step(model, optimizer, data, config, state)
        return timed
    fake.step = step
    monkeypatch.setattr(loop, "time", fake)
    return fake


@pytest.mark.parametrize("seconds, steps", [(1.0, 40), (2.0, 20), (9.0, 4)])
def test_ends_when_the_time_does(prepared, tmp_path, clock, seconds, steps):
    totals = []
    _, state = run_training(prepared, tmp_path, TIMED, step=clock.step(lambda step: seconds), finish=40.0,
                            progress=lambda done, total, text: totals.append(total))
    assert state["step"] == steps and clock.now <= 40 and set(totals) == {steps}
    first, end = state["decay"]
    assert end == steps and state["best"]["step"] == steps
    assert load_training(tmp_path / "last")[2]["decay"] == [first, end]
    rates = [row["lr"] for row in read_log(tmp_path)]
    assert set(rates[1:first + 1]) == {TIMED.lr}
    assert rates[-1] == pytest.approx(TIMED.lr / (end - first), rel=1e-5), "the last step before 0"


def test_ends_in_time_on_a_machine_that_becomes_slower(prepared, tmp_path, clock):
    _, state = run_training(prepared, tmp_path, TIMED, step=clock.step(lambda step: 0.5 if step < 20 else 2.0),
                            finish=40.0)
    assert 10 + 2 * (state["step"] - 20) == clock.now <= 40 and clock.now > 30


def stop_at(number):
    def progress(step, steps, text):
        if step == number:
            os.kill(os.getpid(), signal.SIGINT)
    return progress


def test_resumed_in_the_decay_on_another_machine_it_is_the_same_run(prepared, tmp_path, clock):
    run_training(prepared, tmp_path / "whole", TIMED, step=clock.step(lambda step: 1.0), finish=40.0)
    clock.now = 0.0
    run_training(prepared, tmp_path / "parts", TIMED, step=clock.step(lambda step: 1.0), finish=40.0,
                 progress=stop_at(30))
    _, state = run_training(prepared, tmp_path / "parts", TIMED, step=clock.step(lambda step: 70.0), finish=1e6)
    assert state["step"] == 40
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "whole"))


def test_the_checkpoint_of_a_kill_in_the_decay_knows_its_end(prepared, tmp_path, clock):
    """No signal handler runs, and no checkpoint is due: the one that the decay wrote as it began is there."""
    def killed(step, steps, text):
        if step == 30:
            raise KeyError("killed")
    run_training(prepared, tmp_path / "whole", TIMED, step=clock.step(lambda step: 1.0), finish=40.0)
    clock.now = 0.0
    with pytest.raises(KeyError, match="killed"):
        run_training(prepared, tmp_path / "parts", TIMED, step=clock.step(lambda step: 1.0), finish=40.0,
                     progress=killed)
    said = []
    run_training(prepared, tmp_path / "parts", TIMED, say=said.append)
    assert said == ["resuming from step 24"]
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "whole"))


def test_resumed_before_the_decay_it_goes_on_at_full_rate(prepared, tmp_path, clock):
    """The new time counts from the resume; what came before is as it was."""
    run_training(prepared, tmp_path, TIMED, step=clock.step(lambda step: 1.0), finish=40.0, progress=stop_at(10))
    assert load_training(tmp_path / "last")[2]["decay"] is None
    _, state = run_training(prepared, tmp_path, TIMED, step=clock.step(lambda step: 1.0), finish=clock.now + 20)
    assert state["decay"] == [22, 30] and state["step"] == 30
    assert {row["lr"] for row in read_log(tmp_path) if 5 <= row["step"] <= 23} == {TIMED.lr}


def test_more_steps_than_the_most_are_not_made(prepared, tmp_path, clock):
    config = dataclasses.replace(TIMED, steps=20)
    _, state = run_training(prepared, tmp_path, config, step=clock.step(lambda step: 1.0), finish=1000.0)
    assert state["step"] == 20 and state["decay"] == [12, 20]


def test_by_steps_alone_it_is_the_same_schedule(prepared, tmp_path, clock):
    config = dataclasses.replace(TIMED, steps=40)
    run_training(prepared, tmp_path / "steps", config)
    run_training(prepared, tmp_path / "time", TIMED, step=clock.step(lambda step: 1.0), finish=40.0)
    assert_same_bits(final_state(tmp_path / "steps"), final_state(tmp_path / "time"))
