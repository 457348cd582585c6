"""Programs that fooled the benchmark of ops while it was timing: they are found out, and honest candidates are not."""
import numpy as np
import pytest

from benchmarks import measure, ops
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
    monkeypatch.setattr(measure.interleave, "__defaults__", (None, 0.005, *measure.interleave.__defaults__[2:]))
    rows, wrong, _ = ops.op_rows("layernorm", DIMS, torch=False)
    assert "timed call" in wrong["cpu"][0] and "numpy" not in wrong
    assert ("cpu", direction) not in {(row["candidate"], row["direction"]) for row in rows}


@pytest.mark.parametrize("op", OPS)
def test_honest_candidates_of_every_op_stay(monkeypatch, op):
    monkeypatch.setattr(measure.interleave, "__defaults__", (None, 0.005, *measure.interleave.__defaults__[2:]))
    rows, wrong, _ = ops.op_rows(op, DIMS, ladder=True)
    assert not wrong and {row["candidate"] for row in rows} >= {"numpy"}
