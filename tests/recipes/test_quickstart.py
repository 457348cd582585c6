"""`minillm quickstart`: the main job in a few steps, and what it says on a machine that is too slow."""
import json
import math
import time
from itertools import count
from types import SimpleNamespace

import pytest

from minillm.__main__ import main
from minillm.recipes import quickstart


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
def measured_speed(monkeypatch):
    """A function that fakes the speed of the trial steps, for a small model on a few stories."""
    monkeypatch.setattr(quickstart, "STORIES", 300)
    monkeypatch.setitem(quickstart.MODELS, "stories", {"n_layer": 1, "n_head": 1, "n_embd": 32, "block_size": 64})

    def fake(seconds_per_step):
        ticks = count(0, seconds_per_step)
        clock = SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: next(ticks))
        monkeypatch.setattr(quickstart, "time", clock)
    return fake


def test_a_machine_too_slow_for_a_good_text_is_told_before_training(measured_speed, tmp_path):
    measured_speed(0.5)                                              # 100 steps in a minute: a tenth is for the rest
    said = []
    results = quickstart.quickstart("stories", tmp_path, minutes=1.0, say=said.append)
    lines = [line for line in said if "too slow" in line]
    assert results["planned_steps"] == results["steps"] == 100 and len(lines) == 1
    assert "only 100 steps fit into 1 minutes" in lines[0] and "--minutes 5" in lines[0] and "quieter" in lines[0]
    assert said.index(lines[0]) < next(i for i, line in enumerate(said) if "before training" in line)


def test_a_machine_that_became_busy_is_told_at_the_end(measured_speed, tmp_path):
    measured_speed(1e-6)                                             # as many steps as there may be: time is up before
    said = []
    results = quickstart.quickstart("stories", tmp_path, minutes=0.02, say=said.append)
    (line,) = [line for line in said if "too slow" in line]
    assert 0 < results["steps"] < results["planned_steps"] == quickstart.LONGEST
    assert f"time was up after {results['steps']:,} of 3,000 steps" in line
    assert f"--minutes {math.ceil(0.02 * 3000 / results['steps'])})" in line


def test_steps_that_were_asked_for_are_not_judged(measured_speed, tmp_path):
    said = []
    quickstart.quickstart("stories", tmp_path, steps=3, say=said.append)
    assert not any("too slow" in line for line in said)
