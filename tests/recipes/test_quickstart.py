"""`minillm quickstart`: the main job in a few steps, and what it says on a machine that is too slow."""
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cases import BACKENDS

from minillm.__main__ import main
from minillm.data.shards.format import open_shards
from minillm.recipes import quickstart
from minillm.train import loop
from minillm.train.checkpoint import load_training


@pytest.mark.parametrize("corpus", ["docs", "stories"])
def test_quickstart(corpus, tmp_path, capsys):
    """A few steps of the main job; its figures are finite and its page complete."""
    quickstart.STORIES, kept = 300, quickstart.STORIES
    try:
        assert main(["quickstart", "--corpus", corpus, "--steps", "4", "--out", str(tmp_path), "--json"]) == 0
    finally:
        quickstart.STORIES = kept
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert 0 < results["baselines"]["lzma"] < 4 and results["val_bpb"] > 0.1
    assert ("floor_bpb" in results) == (corpus == "stories")
    for words in ("before training", "after training", "gzip", "minillm train --data FOLDER"):
        assert words in said.err
    assert (tmp_path / "loss.png").exists() or not has_matplotlib()


def has_matplotlib():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture
def machine(monkeypatch):
    """`machine(seconds_of)` fakes one whose step number s, the 15 trial steps first, takes seconds_of(s); for a small
    model on a few stories."""
    monkeypatch.setattr(quickstart, "STORIES", 300)
    monkeypatch.setattr(quickstart, "ENOUGH", 500)
    monkeypatch.setattr(quickstart, "SETTINGS", replace(quickstart.SETTINGS, batch_size=2))
    monkeypatch.setitem(quickstart.MODELS, "stories", {"n_layer": 1, "n_head": 1, "n_embd": 32, "block_size": 64})

    def fake(seconds_of):
        clock = SimpleNamespace(now=0.0, calls=0)

        def tick():                                                  # a step reads the time as it begins and ends
            clock.now += seconds_of(clock.calls // 2) / 2
            clock.calls += 1
            return clock.now
        for module, counter in (quickstart, lambda: clock.now), (loop, tick):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=counter))
        return clock
    return fake


def run(tmp_path, **kwargs):
    """(results, lines that say that the machine is too slow, all lines) of a quickstart of a minute."""
    said = []
    results = quickstart.quickstart("stories", tmp_path, **{"minutes": 1.0, **kwargs}, say=said.append)
    return results, [line for line in said if "too slow" in line], said


def test_a_machine_too_slow_for_a_good_text_is_told_before_training(machine, tmp_path):
    clock = machine(lambda step: 0.5)                                # 100 steps in a minute: a tenth is for the rest
    results, (line,), said = run(tmp_path)
    assert results["planned_steps"] == results["steps"] == 117 and clock.now < 7.5 + 60, "the minute is used, not more"
    assert "only 100 steps fit into 1 minutes" in line and "--minutes 5" in line and "quieter" in line
    assert said.index(line) < next(i for i, line in enumerate(said) if "before training" in line)


def test_a_machine_that_is_busy_when_training_begins_is_told_at_the_end(machine, tmp_path):
    clock = machine(lambda step: 0.05 if step < 15 else 0.5)
    results, (line,), said = run(tmp_path)
    assert results["planned_steps"] == results["steps"] == 117 and clock.now < 61
    assert "only 117 steps fitted into 1 minutes" in line and "--minutes 5" in line
    assert said.index(line) > next(i for i, line in enumerate(said) if "after training" in line)


def test_a_machine_that_becomes_busy_in_the_decay_is_given_a_quarter_more(machine, tmp_path):
    clock = machine(lambda step: 0.1 if step < 15 + 450 else 1.0)
    results, (line,), _ = run(tmp_path)
    assert 587 <= results["planned_steps"] <= 588 and results["steps"] == 450 + 31 and clock.now < 1.5 + 77
    assert f"time was up after 481 of {results['planned_steps']} steps" in line and "--minutes 2)" in line


def test_a_quick_machine_uses_its_time_and_learns_no_text_by_heart(machine, tmp_path, monkeypatch):
    clock = machine(lambda step: 0.1)
    results, slow, _ = run(tmp_path)
    assert not slow and 587 <= results["steps"] == results["planned_steps"] <= 588 and 60 < clock.now < 61.5
    machine(lambda step: 1e-6)
    monkeypatch.setattr(quickstart, "EPOCHS", 2)
    results, slow, _ = run(tmp_path / "faster")
    tokens = open_shards(tmp_path / "faster" / "data").train.tokens
    assert not slow and results["tokens"] == pytest.approx(2 * tokens, rel=0.01)


def test_steps_that_were_asked_for_are_not_judged(machine, tmp_path):
    machine(lambda step: 0.5)
    results, slow, _ = run(tmp_path, steps=3)
    assert not slow and results["steps"] == 3


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the C++ extension is not built")
@pytest.mark.parametrize("asked, has, taken", [("auto", True, "cpu/bf16"), ("auto", False, "auto"),
                                               ("cpu", True, "cpu"), ("cpu/bf16", False, "cpu/bf16")])
def test_bfloat16_where_the_cpu_has_it(machine, tmp_path, monkeypatch, asked, has, taken):
    machine(lambda step: 0.5)
    monkeypatch.setattr(quickstart, "multiplies_in_bf16", lambda: has)
    _, _, said = run(tmp_path, steps=1, backend=asked)
    assert load_training(tmp_path / "last")[2]["settings"]["backend"] == taken
    assert any("bfloat16" in line for line in said if line.startswith("model")) == (taken == "cpu/bf16")
