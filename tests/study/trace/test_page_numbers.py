"""What the page prints and judges, under node: digits, places, sums, finite differences, answers."""
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from traced import recording

from minillm.study.trace import page as page_module

FOLDER = Path(page_module.__file__).parent
ARRAY = {"id": "a1", "name": "dx", "shape": [2, 1, 3], "dtype": "float32", "whole": True, "values": [1, 2, 3, 4, 5, 6],
         "stats": {"min": 1, "max": 6}}


def node(script, expression, **values):
    """The value of an expression over what a script exports."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    given = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
    program = f"const s = require({json.dumps(str(FOLDER / script))});{given}console.log(JSON.stringify({expression}))"
    return json.loads(subprocess.run(["node"], input=program, capture_output=True, text=True, check=True).stdout)


def test_a_number_is_printed_as_python_prints_it():
    rng = np.random.default_rng(0)
    float32 = [*(rng.standard_normal(500) * 10.0 ** rng.integers(-12, 6, 500)).astype(np.float32), np.float32(0), *map(
        np.float32, ("-0.0", 1e-4, 9.9999e-5, 1e-5, 1, -12, 1.5e-9, 123456.7))]
    decimals = [float(str(x)) for x in float32]             # the digits that a recording has
    float64 = [*rng.standard_normal(100), 1e-30, 0.1, 3.0249999999999997e-05]
    assert node("numbers.js", "v.map(x => s.exact(x))", v=decimals) == [*map(repr, decimals)]
    assert node("numbers.js", "v.map(x => s.exact(x))", v=float64) == [repr(float(x)) for x in float64]
    assert node("numbers.js", "v.map(x => s.exact(x, false))", v=[0, 7, -1]) == ["0", "7", "-1"]


def test_a_short_number_is_cut_and_says_so():
    """Its digits are the first of the number's; nothing is rounded."""
    values = [float(str(np.float32(x))) for x in np.random.default_rng(1).standard_normal(300)
              * 10.0 ** np.random.default_rng(2).integers(-9, 7, 300)]
    for value, text in zip(values, node("numbers.js", "v.map(x => s.short(x))", v=values)):
        if "…" in text:
            digits, power = text.split("…")
            assert digits in (f"{value:.20f}", repr(value)) or abs(float(digits + power) - value) < abs(
                value) * 10.0 ** -(len(digits.strip("-0.").replace(".", "")) - 1)
            assert abs(float(digits + power)) <= abs(value) and len(text) < 13
        else:
            assert text == repr(value)
    assert node("numbers.js", "[0.123456789, -1.2345678e-7, 1234567.5, 0.00012345678].map(x => s.short(x))") == [
        "0.12345…", "-1.23…e-07", "1234567.5", "1.23…e-04"]


def test_places():
    found = node("numbers.js", "[s.indices(a.shape, 4), s.nameAt(a, 4), s.nameAt(a, 1, true), s.placesOf(a)]", a=ARRAY)
    assert found == [[1, 0, 1], "dx[1, 0, 1]", "dx[1, 0, :]", [0, 1, 2, 3, 4, 5]]
    cut = ARRAY | {"shape": [9, 8], "whole": False, "rows": [2, 5], "cols": [0, 7, 3]}
    assert node("numbers.js", "[s.placesOf(a), s.placesOf(a).map(i => s.matrixOf(a).at(i))]", a=cut) == [
        [16, 23, 19, 40, 47, 43], [1, 2, 3, 4, 5, 6]]
    assert node("numbers.js", "[17, 64].map(i => s.matrixOf(a).at(i) === undefined)", a=cut) == [True, True]


def test_terms_come_from_the_gradients_that_came_in():
    """A place counts through the elements of the first, then of the second; -1 was there before."""
    arrays = {"a1": ARRAY, "a2": ARRAY | {"id": "a2"}, "a3": ARRAY | {"id": "a3", "contributors": {
        "by": "element", "arrays": ["a1", "a2"], "before": "a2", "index": [4], "top": [[6, 2.0, 3, 1.0, -1, 0.5]],
        "rest": [[2, 1.5]]}}}
    sent = "s.termsOf(a, a.a3, 4).terms.map(t => [t.array.id, t.place, t.term])"
    assert node("numbers.js", sent, a=arrays) == [["a2", 0, 2.0], ["a1", 3, 1.0], ["a2", 4, 0.5]]
    assert node("numbers.js", "[s.termsOf(a, a.a3, 0), s.termsOf(a, a.a1, 4)]", a=arrays) == [None, None]
    adds = "[5, 5.0001, 4.9].map(x => s.addUp(s.termsOf(a, a.a3, 4), x, 6))"
    assert node("numbers.js", adds, a=arrays) == [True, False, False]


def test_terms_of_a_recording_add_up_and_differences_agree():
    """Every one of a real recording; none does any more when the gradient is doubled."""
    arrays = recording()["arrays"]
    judge = """Object.values(a).filter(g => g.contributors).flatMap(g => s.placesOf(g).map((at, i) => [
        s.termsOf(a, g, at), by * g.values[i], s.largestOf(g)]).filter(([t]) => t).map(all => s.addUp(...all)))"""
    right, wrong = (node("numbers.js", judge, a=arrays, by=by) for by in (1, 2))
    assert len(right) > 500 and all(right) and sum(wrong) < len(wrong) / 3            # many are zero
    agree = """Object.values(a).filter(g => g.numeric).flatMap(
        g => s.placesOf(g).map(i => s.numericOf(g, i)).filter(Boolean))"""
    found = node("numbers.js", agree, a=arrays)
    assert len(found) > 50 and all(one["agrees"] for one in found)
    for array in (broken := json.loads(json.dumps(arrays))).values():
        array["values"] = [1.001 * x for x in array["values"]]
    assert not all(one["agrees"] for one in node("numbers.js", agree, a=broken))


ANSWERS = [("0.312", 0.3140, True, True), ("0,314", 0.3140, True, True), (" −0.314 ", -0.3140, True, True),
           ("3.14e-1", 0.314, True, True), ("0.3", 0.3140, True, False), ("-0.314", 0.3140, True, False),
           ("0", 1e-9, True, False), ("0", 0, True, True), ("", 0, False, False), ("one", 1, False, False),
           ("Infinity", 1, False, False)]


def test_an_answer_is_judged():
    judged = node("numbers.js", "a.map(([typed, expected]) => s.judge(typed, expected))", a=ANSWERS)
    assert judged == [{"known": known, "right": right} for _, _, known, right in ANSWERS]


def test_blanks_stay_where_they_were():
    counts = (0, 1, 2, 3, 99, 99)
    found = node("numbers.js", "n.map(n => [...s.blanks('a12', n, 3)])", n=counts)
    assert [len(set(places)) for places in found] == [0, 1, 2, 3, 3, 3] and found[-1] == found[-2]
    assert all(0 <= place < count for places, count in zip(found, counts) for place in places)


def test_rows_of_the_graph_hold_every_call_once():
    """Forward beside its backward; the backward goes up: what ran later stands higher; steps stand in their op."""
    calls = recording()["calls"]
    ids = "s.rowsOf(c, 'forward').map(r => [r.forward?.id, r.backward?.id, r.group, r.inside?.id])"
    rows = node("graph.js", ids, c=calls)
    shown = [call for row in rows for call in row[:2] if call is not None]
    assert sorted(shown) == [call["id"] for call in calls if call["phase"] != "decode"]
    outer = [row for row in rows if row[3] is None]
    forward, backward = ([row[side] for row in outer if row[side] is not None] for side in (0, 1))
    assert forward == sorted(forward) and backward == sorted(backward, reverse=True)
    for row in rows:
        if row[0] is not None and row[1] is not None and calls[row[0]]["partner"] is not None:
            assert calls[row[0]]["partner"] == row[1]
    assert [*dict.fromkeys(row[2] for row in rows)] == ["update", "embedding", "block 0", "head"]
    decode = node("graph.js", "s.rowsOf(c, 'decode').map(r => r.forward.id)", c=calls)
    assert sorted(decode) == [call["id"] for call in calls if call["phase"] == "decode"]
