"""Programs that fooled the benchmark of ops while it was timing: they are found out, and honest candidates are not."""
import numpy as np
import pytest
from benching import hurried

from benchmarks import fresh, measure, ops
from minillm.ops.table import OPS, Dims

DIMS = Dims(B=2, T=8, C=16, NH=2, V=11)


def cheating(kind):
    """The numpy candidate's runs with one of the three cheats put before them."""
    def change(run):
        kept, calls = {}, []

        def replay(*args):
            return kept.setdefault("once", run())

        def stale():
            calls.append(1)
            return kept.setdefault("last", run()) if len(calls) > 3 else run()

        def nothing():
            calls.append(1)
            result = run()
            return result if len(calls) < 3 else ((np.zeros((1, 1), "float32"), ()) if len(result) == 2 else
                                                  (np.zeros((1, 1), "float32"),) * 3)
        return {"replay by address": replay, "stale after three calls": stale, "an array of one zero": nothing}[kind]
    return change


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", ["replay by address", "stale after three calls", "an array of one zero"])
def test_cheats_are_found_while_they_are_timed(monkeypatch, kind, direction):
    honest = ops.ours

    def with_a_cheat(spec, choice, args, dout):
        made = honest(spec, choice, args, dout)
        if choice != "cpu":
            return made
        return measure.Candidate("cpu", made.runs | {direction: cheating(kind)(made.runs[direction])}, made.results)

    monkeypatch.setattr(ops, "ours", with_a_cheat)
    monkeypatch.setattr(ops, "choices_of", lambda *args: ["numpy", "cpu"])
    hurried(monkeypatch)
    rows, wrong, _ = ops.op_rows("layernorm", DIMS, torch=False)
    assert "timed call" in wrong["cpu"][0] and "numpy" not in wrong
    assert ("cpu", direction) not in {(row["candidate"], row["direction"]) for row in rows}


def test_a_candidate_never_sees_inputs_that_bfloat16_cannot_tell_from_its_last_ones():
    """Two draws in a hundred thousand are so close, and would make an honest kernel a cheat."""
    class Draws:
        def __init__(self):
            self.left = [0.7, 0.7001, 0.7, 1.2, 1.2001, 0.9]

        def uniform(self, low, high):
            return self.left.pop(0)

        def random(self):
            return 0.0

    spec = OPS["gelu"]
    inputs = fresh.Fresh(spec, "forward", {"x": np.ones(3, "float32")}, None, {}, None, {}, Draws())
    scales = []
    for name in ("cpu/bf16", "cpu", "cpu/bf16", "cpu/bf16"):
        inputs.before(name)
        scales.append(inputs.scale)
        assert inputs.arrays[0].tolist() == [np.float32(inputs.scale)] * 3
    assert scales == [0.7, 0.7001, 1.2, 0.9]


@pytest.mark.parametrize("op", OPS)
def test_honest_candidates_of_every_op_stay(monkeypatch, op):
    hurried(monkeypatch)
    rows, wrong, _ = ops.op_rows(op, DIMS, ladder=True)
    assert not wrong and {row["candidate"] for row in rows} >= {"numpy"}
