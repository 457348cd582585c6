"""The score of our gradient check: planted errors are found, right pairs pass, and a worse checker fails the score."""
import json

import numpy as np
import pytest
from benching import EMPTY, quick  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli
from benchmarks import gradcheck as score
from benchmarks import gradient_checkers, report
from benchmarks.gradient_checkers import CHECKERS, complaint
from benchmarks.planted import USUAL, counts, numbered, right_pair, trouble
from benchmarks.right_pairs import ELEMENTARY, right_runs
from minillm.kernels.select import OPS

PAIRS = [op for op, spec in OPS.items() if spec.kind == "pair"]
CASES = [case for case in numbered() if case.kind != "one of 10**5" and "10**5" not in case.label]
OURS = CHECKERS["minillm"]


@pytest.mark.parametrize("op", PAIRS)
def test_planted_errors_are_found(op):
    """A third of those of each op, other thirds for other ops; `python -m benchmarks gradcheck` has all."""
    mine = [case for number, case in enumerate(CASES) if case.op == op and (number + PAIRS.index(op)) % 3 == 0]
    cases = [case for case in mine if counts(case)]
    assert len(cases) > 12
    assert not [case[:4] for case in cases if not score.found(complaint(OURS, case.pair()))]


def test_one_wrong_element_among_many_is_found():
    """Of embedding, whose forward is quick: an element, a row, and the one token of 200 that comes twice."""
    large = [case for case in numbered() if case.op == "embedding" and case.kind == "one of 10**5"]
    large += [case for case in numbered() if case.label.startswith("embedding_by_assignment at 10**5")]
    assert len(large) == 4
    for case in large:
        assert counts(case) and score.found(complaint(OURS, case.pair())), case[:4]


@pytest.mark.parametrize("part", range(4))
def test_right_pairs_pass(part):
    """Every pair and some elementary functions, at random sizes, units and values."""
    said = {number: complaint(OURS, pair) for number, pair in enumerate(right_runs(320)) if number % 4 == part}
    assert not {number: words for number, words in said.items() if words}


def test_the_list_holds_every_op_and_kind():
    cases = list(numbered())
    assert len(cases) > 900 and len({case.label.rpartition(",")[0] for case in cases}) > 60
    for op in PAIRS:
        kinds = {case.kind for case in cases if case.op == op}
        assert {"factor", "sign", "dout", "writes", "stale cache", "call by call", "one of 10**5"} <= kinds
    assert {scale for case in cases for scale in case.scale} >= {1e-6, 1e8}
    assert {pair.op for pair in right_runs(len(PAIRS) + len(ELEMENTARY))} == {*PAIRS, *ELEMENTARY}


@pytest.mark.parametrize("op", PAIRS)
@pytest.mark.parametrize("scale", [(1, 1), (1e-6, 1e6)])
def test_the_rule_sees_no_error_in_a_right_pair(op, scale):
    right = right_pair(op, USUAL, scale=scale)
    assert not trouble((right.forward, right.backward), right)


def test_a_change_of_units_changes_nothing_else():
    plain, other = right_pair("linear", USUAL), right_pair("linear", USUAL, scale=(1e3, 1e-2))
    assert np.allclose(other.inputs["x"], 1e3 * plain.inputs["x"])
    (out, cache), (other_out, other_cache) = (pair.forward(*pair.inputs.values()) for pair in (plain, other))
    np.testing.assert_allclose(other_out, 1e-2 * out)
    dx, other_dx = plain.backward(np.ones_like(out), cache)[0], other.backward(np.ones_like(out), other_cache)[0]
    np.testing.assert_allclose(other_dx, 1e-5 * dx)


@pytest.fixture
def few(monkeypatch):
    """The score of few errors and pairs."""
    cases = [case for case in CASES if case.op == "gelu" and case.kind in ("factor", "sign", "writes") and counts(case)]
    monkeypatch.setattr(score, "planted", lambda: cases)
    monkeypatch.setattr(score, "QUICK", 31)
    return cases


def run(tmp_path):
    code = cli.main(["gradcheck", "--quick", "--only", "minillm", "--json", "--out", str(tmp_path / "results.json")])
    return code, json.loads((tmp_path / "results.json").read_text())


def test_the_score(tmp_path, few):
    code, document = run(tmp_path)
    *kinds, right = document["rows"]
    assert code == 0 and document["wrong"] == {} and right["runs"] == 31 and right["false_alarms"] == 0
    assert {row["dims"] for row in kinds} == {"factor", "sign", "writes"}
    assert sum(row["planted"] for row in kinds) == sum(row["told_apart"] for row in kinds) == len(few)


@pytest.mark.parametrize("checker, words", [
    (lambda pair: None, "not found: factor"),
    (lambda pair: 1 / 0, "false alarm: factor"),
    (lambda pair: pair.backward(pair.inputs["x"], pair.forward(pair.inputs["x"])[1]), "not found: sign")])
def test_a_checker_that_fails_its_score_fails(tmp_path, few, monkeypatch, checker, words):
    """One that accepts everything, one that nothing pleases, one that only calls the pair."""
    monkeypatch.setitem(gradient_checkers.CHECKERS, "minillm", checker)
    code, document = run(tmp_path)
    assert code == 1 and any(line.startswith(words) for line in document["wrong"]["gradcheck minillm"])


def test_a_check_that_takes_too_long_has_found_nothing(monkeypatch):
    def endless(pair):
        while True:
            pass

    monkeypatch.setattr(gradient_checkers, "SECONDS", 0.05)
    said = complaint(endless, right_pair("gelu"))
    assert said == "gave up: after 0.05 s of the CPU" and not score.found(said)


def test_the_table_goes_between_its_markers(tmp_path):
    def rows(name, apart):
        return [{"op": "gradcheck", "dims": "sign", "candidate": name, "planted": 20, "found": 20, "told_apart": apart,
                 "false_alarms": 20 - apart, "plain": 5, "plain_told_apart": 5},
                {"op": "gradcheck", "dims": "right pairs", "candidate": name, "runs": 1000, "false_alarms": 20 - apart,
                 "median_ms": 12.34}]

    (tmp_path / "results.json").write_text(json.dumps(EMPTY | {"rows": rows("minillm", 20) + rows("torch", 9)}))
    (tmp_path / "README.md").write_text("<!-- gradcheck -->\n<!-- /gradcheck -->\n")
    report.update_readmes(tmp_path / "results.json", tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    for line in ("| error | planted | minillm | torch |", "| sign | 20 | 20 | 9 |", "| **all** | 20 | 20 | 9 |",
                 "| false alarms at other right pairs |  | 0 of 1,000 | 11 of 1,000 |"):
        assert line in text
