"""The learning rate: warm-up and cosine; warm-up, stable, decay; and a decay that a clock begins."""
import math

import pytest

from minillm import TrainConfig
from minillm.train.schedule import Timetable, cosine_schedule, learning_rate, wsd_schedule


def test_schedule():
    """Warm-up from lr/warmup to lr, half a cosine down to min_lr, and flat after the end."""
    def rate(step):
        return cosine_schedule(step, warmup=10, steps=110, lr=1.0, min_lr=0.1)
    assert rate(0) == pytest.approx(0.1) and rate(4) == pytest.approx(0.5)
    assert rate(9) == rate(10) == 1.0
    assert rate(35) == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(0.5) / 2))
    assert rate(60) == pytest.approx(0.55) and rate(110) == rate(500) == pytest.approx(0.1)
    assert all(rate(step) > rate(step + 1) for step in range(10, 110))


def test_schedule_without_warm_up_or_cosine():
    assert cosine_schedule(0, 0, 10, 1.0, 0.0) == 1.0
    assert cosine_schedule(10, 10, 10, 1.0, 0.5) == 1.0
    assert cosine_schedule(11, 10, 10, 1.0, 0.5) == pytest.approx(0.5)


def test_warm_up_stable_decay():
    def rate(step):
        return wsd_schedule(step, warmup=10, start=60, end=100, lr=1.0, min_lr=0.2)
    assert rate(0) == pytest.approx(0.1) and rate(4) == pytest.approx(0.5)
    assert {rate(step) for step in range(9, 61)} == {1.0}
    assert rate(61) == pytest.approx(0.98) and rate(80) == pytest.approx(0.6) and rate(99) == pytest.approx(0.22)
    assert rate(100) == rate(500) == pytest.approx(0.2)


def test_a_decay_in_the_warm_up_and_one_of_no_steps():
    assert wsd_schedule(5, 10, 3, 8, 1.0, 0.0) == pytest.approx(0.6), "the warm-up comes first"
    assert wsd_schedule(49, 0, 50, 50, 1.0, 0.1) == 1.0 and wsd_schedule(50, 0, 50, 50, 1.0, 0.1) == 0.1


def test_what_config_chooses():
    config = TrainConfig(steps=100, warmup=10, lr=1.0, min_lr=0.0)
    assert learning_rate(config, 55) == pytest.approx(0.5)
    config = TrainConfig(steps=100, warmup=10, lr=1.0, min_lr=0.0, schedule="wsd", decay=0.4)
    assert [learning_rate(config, step) for step in (9, 55, 60, 80)] == pytest.approx([1, 1, 1, 0.5])
    assert learning_rate(config, 55, decay=[50, 60]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="schedule must be cosine or wsd: got 'linear'"):
        TrainConfig(schedule="linear")
    with pytest.raises(ValueError, match="decay must be a number with 0 <= decay <= 1: got 1.5"):
        TrainConfig(decay=1.5)


def planned_by(seconds_of, finish, steps=10_000, decay=0.4):
    """Run a clock through a training whose step number s takes seconds_of(s): (its state, the seconds it took)."""
    table = Timetable(100.0, 100.0 + finish, TrainConfig(steps=steps, schedule="wsd", decay=decay))
    state, now, end = {"step": 0, "decay": None}, 100.0, steps
    while state["step"] < end:
        now += seconds_of(state["step"])
        state["step"] += 1
        end, begins = table.plan(state, now)
        assert not begins or state["decay"] == [state["step"], end]
    return state, now - 100.0


@pytest.mark.parametrize("seconds, last", [(0.01, 10_000), (0.1, 2_100), (3.0, 70), (50.0, 4)])
def test_a_machine_of_steady_speed_decays_for_its_share_and_ends_in_time(seconds, last):
    state, took = planned_by(lambda step: seconds, finish=210)
    first, end = state["decay"]
    assert state["step"] == end and last - 1 <= end <= last and took < 210.001
    assert first == pytest.approx(0.6 * end, abs=2)


def test_a_machine_that_becomes_slower_before_the_decay_ends_in_time():
    state, took = planned_by(lambda step: 0.1 if step < 800 else 0.4, finish=210)
    assert 200 < took < 210.001 and state["step"] == pytest.approx(800 + 130 / 0.4, abs=5)


def test_a_slower_machine_in_the_decay_changes_nothing_that_was_planned():
    state, took = planned_by(lambda step: 0.1 if step < 1500 else 0.2, finish=210)
    assert 2_090 <= state["step"] <= 2_100 and took == pytest.approx(150 + 60 * 2, abs=3)


def test_a_first_step_beyond_the_time_is_the_last():
    state, took = planned_by(lambda step: 300.0, finish=210)
    assert state == {"step": 1, "decay": [1, 1]} and took == 300


def test_only_a_schedule_that_can_end_takes_a_time():
    with pytest.raises(ValueError, match='finish needs schedule "wsd", .* got "cosine"'):
        Timetable(0.0, 10.0, TrainConfig())
