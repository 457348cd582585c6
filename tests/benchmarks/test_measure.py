"""Timing that can be believed: a wrong kernel is caught and not timed, candidates take turns."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from benching import quick, run_json  # noqa: F401  (quick is a fixture of every test)

from benchmarks import measure
from minillm import ops as reference
from minillm.kernels import select as registry


@pytest.fixture
def planted(monkeypatch):
    """A "compiled" LayerNorm whose backward forgets the term that goes through the variance."""
    def backward(dout, cache):
        dx, dweight, dbias = reference.layernorm_backward(dout, cache)
        return (dx + np.float32(0.01) * dout, dweight, dbias)

    kernels = {name: getattr(reference, name) for spec in registry.OPS.values() for name in registry.functions(spec)}
    kernels |= {"layernorm_backward": backward, "__name__": "planted"}
    monkeypatch.setattr(registry, "_cpp", SimpleNamespace(**kernels))
    for name, spec in list(registry.OPS.items()):
        monkeypatch.setitem(registry.OPS, name, replace(spec, kernels=spec.kernels if name == "layernorm" else {}))


def test_a_wrong_kernel_is_named_and_not_timed(planted, tmp_path, capsys):
    code, document = run_json(tmp_path, "layernorm")
    assert code == 1
    assert set(document["wrong"]) == {"layernorm cpu"}
    (line,) = document["wrong"]["layernorm cpu"]
    assert line.startswith("dx[0, ") and "expected" in line and "allowed 1e-04" in line
    assert "cpu" not in {row["candidate"] for row in document["rows"]}
    assert "WRONG, not timed: layernorm cpu" in capsys.readouterr().out


def test_a_kernel_that_raises_is_wrong_and_the_others_go_on():
    good = measure.Candidate("good", {}, lambda: {"out": np.ones(3)})
    bad = measure.Candidate("bad", {}, lambda: 1 / 0)
    right, wrong = measure.gate([bad, good], {"out": np.ones(3)}, 1e-4)
    assert right == [good] and "ZeroDivisionError" in wrong["bad"][0]


@pytest.mark.parametrize("change, words", [
    (lambda a: a.__setitem__((1, 2), np.nan), "out[1, 2] is nan"),
    (lambda a: a.__setitem__((2, 0), a[2, 0] + 1), "out[2, 0]"),
    (lambda a: a.resize((4, 3), refcheck=False), "out has shape (4, 3), expected (3, 4)"),
], ids=["nan", "off", "shape"])
def test_disagreements_name_the_worst_element(change, words):
    expected = np.random.default_rng(0).standard_normal((3, 4))
    got = expected.astype(np.float32)
    assert measure.disagreements({"out": got}, {"out": expected}, 1e-4) == []
    change(got)
    (line,) = measure.disagreements({"out": got}, {"out": expected}, 1e-4)
    assert words in line


def test_order_gives_everybody_every_place_and_both_neighbours():
    names = ["a", "b", "c"]
    rounds = [measure.order(names, turn) for turn in range(6)]
    assert all(sorted(names_now) == names for names_now in rounds)
    for name in names:
        assert sorted(names_now.index(name) for names_now in rounds) == [0, 0, 1, 1, 2, 2]
    assert {(left, right) for r in rounds for left, right in zip(r, r[1:])} == {
        (x, y) for x in names for y in names if x != y}


def test_candidates_take_turns_and_medians_are_those_of_the_calls():
    now, calls, costs = [0.0], [], {"slow": 0.5, "quick": 0.125}          # exact in binary

    def candidate(name):
        def run():
            calls.append(name)
            now[0] += costs[name]
            return np.ones(2)
        return run

    timings = measure.interleave({name: candidate(name) for name in costs}, budget=1.0, clock=lambda: now[0],
                                 sleep=lambda seconds: calls.append("|"))
    bursts = "".join(f" {name}" for name in calls).split(" |")[1:]
    assert [burst.strip() for burst in bursts[:2]] == ["slow slow", "quick quick"]     # pauses before them, too
    del bursts[:2]
    turns = [burst.split()[0] for burst in bursts]
    assert turns == ["slow", "quick", "quick", "slow", "quick", "slow", "slow", "quick", "slow", "quick"]
    assert {burst.strip() for burst in bursts} == {"slow", "quick quick"}
    assert timings["slow"].median == pytest.approx(0.5) and timings["slow"].samples == 5
    assert timings["quick"].median == pytest.approx(0.125) and timings["quick"].samples == 10


def test_a_result_that_is_not_finite_stops_the_timing():
    with pytest.raises(FloatingPointError):
        measure.interleave({"bad": lambda: np.array([1.0, np.nan])})
    with pytest.raises(ValueError, match="at least 5"):
        measure.interleave({}, repeat=4)
